"""Accumulators filled by the workers of a ``dask.distributed`` cluster, so that states never travel to the caller."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import dask
import xarray as xr
from dask.delayed import delayed

from depthflow.measures._chunks import part_labels
from depthflow.schema import DIMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np

untyped: Any = dask.base

GROUP_BYTES = 256 * 2**20
"""States of neighbouring chunks that one task takes in, so that few accumulators travel."""

FAN_IN = 4
"""Accumulators that one task merges."""


def client() -> Any | None:
    """Return the client of the cluster on which dask would compute now, if there is one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    owner = getattr(untyped.get_scheduler(), "__self__", None)
    return owner if isinstance(owner, distributed.Client) else None


def accumulated_on(cluster: Any, traj: xr.DataArray, start: Callable[[], Any]) -> Any:
    """Return the accumulator that ``start`` makes, of all samples of a prepared trajectory, from the workers.

    Which chunks are taken in together, and in which order accumulators are merged, depends on the chunks alone: so the
    answer does not depend on the number of workers.
    """
    states = traj.data.rechunk(dict.fromkeys(range(1, len(DIMS)), -1))
    known = part_labels(traj)
    begun = cluster.scatter(start, broadcast=True, hash=False)
    taken, merged = (delayed(step, pure=False) for step in (_taken, _merged))
    totals = [
        taken(begun, _readable(states.blocks[first:last]), known[first:last])
        for first, last in _groups(states.chunks[0], states.nbytes // len(states))
    ]
    while len(totals) > 1:
        totals = [merged(begun, totals[at : at + FAN_IN]) for at in range(0, len(totals), FAN_IN)]
    return cluster.compute(totals[0]).result()


class _Unread:
    """Chunks of states that a task reads one by one, each forgotten before the next."""

    def __init__(self, states: Any) -> None:
        (self.states,) = untyped.optimize(states)

    def __iter__(self) -> Iterator[np.ndarray]:
        for at in range(self.states.numblocks[0]):
            yield self.states.blocks[at].compute(scheduler="synchronous")


def _readable(states: Any) -> Any:
    """Return an iterable of the chunks of ``states``: those that are on the workers already, or yet to be read."""
    if sys.modules["distributed"].futures_of(states):
        return states.to_delayed().ravel().tolist()
    return _Unread(states)


def _groups(chunks: tuple[int, ...], sample_bytes: int) -> Iterator[tuple[int, int]]:
    """Give from where to before where chunks are taken in together."""
    first, held = 0, 0
    for at, size in enumerate(chunks):
        if at > first and held + size * sample_bytes > GROUP_BYTES:
            yield first, at
            first, held = at, 0
        held += size * sample_bytes
    yield first, len(chunks)


def _taken(start: Callable[[], Any], chunks: Iterable[np.ndarray], known: list[Mapping[str, np.ndarray]]) -> Any:
    """Return an accumulator of ``chunks``; runs on a worker."""
    total = start()
    for states, labels in zip(chunks, known, strict=True):
        total.add(xr.DataArray(states, labels, DIMS))
    return total


def _merged(start: Callable[[], Any], totals: list[Any]) -> Any:
    """Return a new accumulator of all that ``totals`` have; dask may call again on the same ones, so they stay."""
    total = start()
    for later in totals:
        total.merge(later)
    return total
