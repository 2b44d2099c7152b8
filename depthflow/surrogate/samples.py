"""The samples of a fit: those that it looks at first, those that it learns from, those that it is judged by."""

from __future__ import annotations

from collections.abc import Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from depthflow.errors import ParameterError, SurrogateError
from depthflow.models.rebuild import rebuildable
from depthflow.recording.feed import Feed
from depthflow.recording.inputs import whole
from depthflow.recording.mode import prepared
from depthflow.recording.replayer import Replayer, ReplayError
from depthflow.recording.share import Share
from depthflow.surrogate.lessons import LiveSource, repeatable
from depthflow.surrogate.stored import StoredSource
from depthflow.surrogate.survey import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from depthflow.models.base import Adapter
    from depthflow.recording.replay import Replay
    from depthflow.surrogate.lessons import Source
    from depthflow.surrogate.settings import SurrogateSettings

NAME = "fit_surrogate"


@dataclass(frozen=True)
class Samples:
    """Where a fit's lessons come from."""

    adapter: Adapter
    inputs: Any
    held_out: Any
    augment: Callable[[Any], Any] | None
    settings: SurrogateSettings
    seed: int
    share: Share

    @contextmanager
    def sources(self, home: torch.device | None, spaced: bool = False) -> Iterator[tuple[Source, Source | None]]:
        """Give the lessons, and the validation's; with ``spaced``, lessons of a few samples from first to last."""
        learnt = few(self.inputs) if spaced else self.inputs
        with Replayer(self.adapter, home, NAME, tested=self.settings.init == "teacher") as replayer:

            def source(inputs: Any, augment: Callable[[Any], Any] | None, share: Share) -> Source:
                common = (self.settings.batch_size, self.seed, share)
                if isinstance(inputs, xr.DataArray):
                    return StoredSource(inputs, self.adapter, home, *common)
                return LiveSource(replayer, inputs, *common, self.settings.workers, augment)

            try:
                lessons = source(learnt, self.augment, Share() if spaced else self.share)
                yield lessons, None if self.held_out is None else source(self.held_out, None, Share())
            except ReplayError as error:
                raise SurrogateError(
                    f"{error} Or let new blocks stand in: settings=SurrogateSettings(init='fresh')."
                ) from error

    def recipe(self, home: torch.device | None) -> dict[str, Any] | None:
        """Return how the teacher can be built again, where that is known and can be tested on an input."""
        if isinstance(self.inputs, xr.DataArray):
            return None
        feed = Feed(DataLoader(self.inputs) if isinstance(self.inputs, Dataset) else self.inputs, 1)
        first = next(repeatable(feed, self.seed))
        return rebuildable(self.adapter, prepared(self.adapter.root, first.part(0, 1), home))


def split(inputs: Any, validation: Any, seed: int) -> tuple[Any, Any]:
    """Return the inputs to learn from and those to be judged by, if any."""
    if isinstance(validation, bool) or not isinstance(validation, int | float):
        return inputs, validation
    if not 0 <= validation < 1:
        raise ParameterError(
            f"{NAME} needs validation as a share of the samples, from 0 to below 1, or as inputs; got {validation!r}."
        )
    count = counted(inputs)
    held = int(validation * count)
    if held == 0:
        return inputs, None
    order = np.random.default_rng(seed).permutation(count)
    kept, out = np.sort(order[held:]), np.sort(order[:held])
    return taken(inputs, kept), taken(inputs, out)


def few(inputs: Any) -> Any:
    """Return some samples from the first to the last, evenly spaced; all where they come in an order of their own."""
    count = counted(inputs)
    return taken(inputs, np.linspace(0, count - 1, SAMPLES).astype(np.int64)) if count > SAMPLES else inputs


def counted(inputs: Any) -> int:
    """Return how many samples there are to choose from; 0 where they come in an order of their own."""
    if isinstance(inputs, xr.DataArray):
        return inputs.sizes.get("sample", 0)
    if isinstance(inputs, Dataset):
        return len(inputs) if isinstance(inputs, Sized) else 0
    every = whole(inputs)
    return 0 if every is None else every.size


def taken(inputs: Any, index: np.ndarray) -> Any:
    """Return the samples at the positions ``index`` of an array, a dict of arrays or a trajectory."""
    if isinstance(inputs, xr.DataArray):
        return inputs.isel(sample=index)
    if isinstance(inputs, Dataset):
        return Subset(inputs, index.tolist())
    every = whole(inputs)
    if every is None:
        return inputs
    call = every.taken(index).call
    return dict(call.kwargs) or call.args[0]


def require_alike(judges: Source | None, token_types: list[str], batch_size: int) -> None:
    """Raise unless the validation's states have the tokens of the training's, before any time is spent on these."""
    if judges is None:
        return
    next(iter(judges.through(batch_size)))
    if list(judges.token_types) != list(token_types):
        raise SurrogateError(
            f"{NAME} needs a validation whose states have the {len(token_types)} tokens of the training's, each of the "
            f"same type; got {len(judges.token_types)}. Give both one size of image, one length of text."
        )


def first(replay: Replay) -> dict[str, Tensor]:
    """Return what the model is called with for the first sample or, where only states are known, its first state."""
    called = replay.batch.call.named() or {"state": replay.states[0]}
    return {name: value[0] for name, value in called.items() if isinstance(value, Tensor) and value.ndim > 0}
