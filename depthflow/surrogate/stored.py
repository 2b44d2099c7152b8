"""Lessons from recorded states, in memory or in a store."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from depthflow.errors import SurrogateError, raise_faults
from depthflow.models.base import Call
from depthflow.recording.arguments import HERE, Arguments
from depthflow.recording.inputs import Batch
from depthflow.recording.replay import BlockCall, Replay
from depthflow.schema import DIMS, MEAN, check, labels, token_types
from depthflow.surrogate.lessons import Lesson, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from depthflow.models.base import Adapter
    from depthflow.recording.share import Share

STATE_ALONE = Arguments((HERE,), {})
"""What a block is called with that takes nothing beside the state."""

WINDOW_BYTES = 256 * 2**20
"""How much of a store is read at once; samples are shuffled among the chunks that are read together."""


class StoredSource:
    """States are read from a recorded trajectory; the teacher does not run, so its blocks must take the state alone.

    Parameters
    ----------
    traj : xarray.DataArray
        In memory or from a store.
    adapter : Adapter
        Of the teacher.
    device : torch.device or None
        Where the surrogate is.
    batch_size, seed, share
        As of :class:`Order`.
    """

    def __init__(
        self,
        traj: xr.DataArray,
        adapter: Adapter,
        device: torch.device | None,
        batch_size: int,
        seed: int,
        share: Share,
    ) -> None:
        _require_whole(traj, len(adapter.named_blocks))
        self._traj, self._adapter, self._device = traj.transpose(*DIMS), adapter, device
        self.count = traj.sizes["sample"]
        self.token_types = token_types(traj)
        self._kept_in = torch.float16 if traj.dtype == np.float16 else None
        weights = (weight for block in adapter.blocks for weight in block.parameters())
        self._dtype = next(weight.dtype for weight in weights if weight.is_floating_point())
        self._grains = None if self._traj.chunks is None else self._traj.chunks[0]
        window = None
        if self._grains is not None:
            window = max(1, WINDOW_BYTES // (max(self._grains) * traj.nbytes // self.count))
            self._grain = lru_cache(2 * window)(self._read)  # a step may reach into the next window
        self._order = Order(self.count, batch_size, seed, share, self._grains, window)

    def at(self, stage: int, step: int) -> Lesson:
        """Return the lesson of a step."""
        return self._lesson(self._order.at(stage, step))

    def through(self, batch_size: int, most: int | None = None) -> Iterator[Lesson]:
        """Give all samples in order, or the first ``most``."""
        count = self.count if most is None else min(most, self.count)
        for start in range(0, count, batch_size):
            yield self._lesson(np.arange(start, min(start + batch_size, count)))

    def replay(self, batch_size: int) -> Replay:
        """Return the first samples' block calls, tested: the blocks must make of each state the next one.

        Raises
        ------
        SurrogateError
            If they do not: the states are of another model, or its blocks take more than a state.
        """
        states, _ = next(self.through(batch_size))
        calls = [BlockCall(name, block, STATE_ALONE, HERE) for name, block in self._adapter.named_blocks]
        replay = Replay(self._adapter, Batch(Call(), len(states[0])), self._device, calls, states)
        for number in range(1, replay.n_blocks + 1):
            try:
                problem = replay.unlike(number, states[number - 1], states[number], self._kept_in)
            except (TypeError, ValueError, AttributeError) as error:  # a block misses what else it is given
                problem = f"fails ({str(error).splitlines()[0]})"
            if problem is not None:
                raise SurrogateError(
                    f"the states given are not what this model makes: its block {calls[number - 1].name!r} {problem}. "
                    "They are of another model or of other weights, or its blocks take more than the state, such as "
                    "rotary positions or a mask; then give the inputs, and the model runs on the fly."
                )
        return replay

    def _read(self, grain: int) -> np.ndarray:
        """Return the states of the samples that lie together on disk as grain number ``grain``."""
        start = sum((self._grains or ())[:grain])
        states: np.ndarray = self._traj.isel(sample=slice(start, start + (self._grains or ())[grain])).values
        return states

    def _lesson(self, index: np.ndarray) -> Lesson:
        if self._grains is None:
            read = self._traj.isel(sample=index).values
        else:
            ends = np.cumsum(self._grains)
            which = np.searchsorted(ends, index, side="right")
            starts = ends - self._grains
            read = np.stack([self._grain(int(n))[place - starts[n]] for n, place in zip(which, index, strict=True)])
        states = torch.from_numpy(np.ascontiguousarray(read)).to(self._device, self._dtype)
        return Lesson(list(states.unbind(1)), [STATE_ALONE] * (states.shape[1] - 1))


def _require_whole(traj: xr.DataArray, blocks: int) -> None:
    """Raise unless a trajectory has every depth and token of a model with so many blocks."""
    faults = []
    check(traj, "fit_surrogate")
    if set(traj.dims) != set(DIMS):
        raise SurrogateError(f"a fit to recorded states needs the dims {DIMS}; got {tuple(map(str, traj.dims))}.")
    depth, token = labels(traj, "depth"), labels(traj, "token")
    if not np.array_equal(depth, np.arange(blocks + 1)):
        faults.append(f"needs every depth of the model, 0 to {blocks}; got {depth.tolist()}. Record without depths=.")
    if MEAN in token_types(traj) or not np.array_equal(token, np.arange(len(token))):
        kinds = ", ".join(dict.fromkeys(token_types(traj)))
        faults.append(f"needs every token as the blocks see it; got {len(token)} ({kinds}). Record with tokens='all'.")
    raise_faults(SurrogateError, "a fit to recorded states", faults)
