"""Go through a model's inputs batch by batch with every block ready to be called again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from depthflow.errors import ParameterError, RecordError, raise_faults, whole_number_fault
from depthflow.models.detect import adapt
from depthflow.recording.assemble import coords, provenance
from depthflow.recording.capture import settle
from depthflow.recording.feed import Feed
from depthflow.recording.mode import undisturbed
from depthflow.recording.replayer import Replayer
from depthflow.recording.tokens import Kept, choose, or_stand_in, require_same, require_types
from depthflow.trajectories import STRING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike
    from torch import nn

    from depthflow.models.base import Adapter
    from depthflow.models.generic import Blocks
    from depthflow.recording.replay import Replay
    from depthflow.trajectories import Tokens

FULL_PRECISION = {torch.float32, torch.float64}


@dataclass
class Session:
    """What is known of a run over all inputs; iterate over it for one :class:`Replay` a batch, once."""

    what: str
    adapter: Adapter
    feed: Feed
    replayer: Replayer
    tokens: Tokens
    progress: bool
    stand_in: bool = False
    """Whether other tokens stand in for ``"cls"`` where the model has none."""
    labels: list[np.ndarray] = field(default_factory=list)
    """The labels of each batch gone through, where there are any."""
    count: int = 0
    """Samples gone through before the present batch; after the last, all."""
    _chosen: Kept | None = None
    _modules: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Kept:
        """The tokens chosen, known from the first batch on."""
        if self._chosen is None:
            raise RecordError("no batch has been run yet.")
        return self._chosen

    @property
    def n_blocks(self) -> int:
        """How many blocks the model has, known from the first batch on."""
        return len(self._modules)

    def __iter__(self) -> Iterator[Replay]:
        with tqdm(total=self.feed.count, desc=self.what, unit="sample", disable=not self.progress) as bar:
            for batch in self.feed:
                replay = self.replayer.capture(batch)
                self._settle(replay)
                labels = self.feed.labels_of(batch, self.count)
                if labels is not None:
                    self.labels.append(labels)
                yield replay
                self.count += batch.size
                bar.update(batch.size)
        self.feed.check_counts(self.count)

    def _settle(self, replay: Replay) -> None:
        """Settle on the first batch which token is which; later ones must have the same."""
        layout = settle(self.adapter, self.adapter.layout(replay.batch.call), replay.states[0].shape[1])
        chosen = choose(or_stand_in(self.tokens, layout) if self.stand_in else self.tokens, layout)
        if chosen.patches is not None:
            raise ParameterError(f"{self.what} takes tokens as a type, types or indices; got {self.tokens!r}.")
        if len(set(chosen.index.tolist())) < chosen.count:
            raise ParameterError(
                f"{self.what} needs tokens= without repetition; got the positions {chosen.index.tolist()}."
            )
        if self._chosen is None:
            self._modules = [made.name for made in replay.calls]
        else:
            require_same(self._chosen, chosen)
        self._chosen = chosen

    def require_full_precision(self, replay: Replay) -> None:
        """Raise unless states are kept in single or double precision, where a small change is not rounded away."""
        state = replay.states[0]
        weights = {p.dtype for made in replay.calls for p in made.module.parameters() if p.is_floating_point()}
        reduced = sorted(str(dtype).removeprefix("torch.") for dtype in {state.dtype, *weights} - FULL_PRECISION)
        if torch.is_autocast_enabled(state.device.type):
            reduced.append("autocast")
        if reduced:
            raise RecordError(
                f"{self.what} needs a model in float32 or float64, as a small change is rounded away in {reduced[0]}. "
                "Give it `copy.deepcopy(model).float()`, outside of autocast."
            )

    def require_depth(self, depth: int, last: int) -> None:
        """Raise unless ``depth`` is one of the model's up to ``last``."""
        if not 0 <= depth <= last:
            raise ParameterError(
                f"{self.what} was asked for depth {depth}, but the model has {self.n_blocks} blocks: 0 to {last}."
            )

    def coords(self, kept: Kept) -> dict[str, Any]:
        """Return the coords of all samples, depths and blocks, and of the tokens ``kept``."""
        columns = {"label": np.concatenate(self.labels)} if self.labels else {}
        found = coords(kept, range(self.n_blocks + 1), self.count, columns)
        return found | {"block": np.arange(1, self.n_blocks + 1), "module": ("block", np.array(self._modules, STRING))}

    def attributes(self) -> dict[str, Any]:
        """Return what a result keeps of the model."""
        return provenance(self.adapter)


@contextmanager
def session(
    model: nn.Module,
    inputs: Any,
    what: str,
    *,
    tokens: Tokens,
    labels: ArrayLike | None,
    batch_size: int,
    device: str | torch.device | None,
    blocks: Blocks,
    progress: bool,
    stand_in: bool = False,
) -> Iterator[Session]:
    """Give a :class:`Session` on ``model``, which is undisturbed for its duration; arguments as :func:`record`'s.

    With ``stand_in``, a model without the token type ``"cls"`` gives its patches in its place, else all tokens but
    padding.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be recorded.
    """
    adapter = adapt(model, blocks)
    if adapter.refusal is not None:
        raise adapter.refusal.error()
    layout = adapter.layout()
    require_types(or_stand_in(tokens, layout) if stand_in else tokens, layout)
    raise_faults(ParameterError, what, whole_number_fault("batch_size", batch_size))
    feed = Feed(inputs, batch_size, labels)
    with undisturbed(adapter.root, device) as home, Replayer(adapter, home, what) as replayer:
        yield Session(what, adapter, feed, replayer, tokens, progress, stand_in)
