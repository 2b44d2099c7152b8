"""What pooled measures keep of the samples that came: accumulators, and the one way in which they are filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from depthflow.measures._chunks import parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    import xarray as xr


class Accumulator(Protocol):
    """Sums, or whatever else is kept, over samples that arrive in order.

    It holds nothing of a part once :meth:`add` has returned, unless the samples' own values are what it collects.
    """

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples: a prepared trajectory (sample, depth, token, feature) in memory."""

    def merge(self, later: Self) -> None:
        """Take in what ``later`` has of the samples that follow; it stays as it is."""


Kept = TypeVar("Kept", bound=Accumulator)


def accumulated(traj: xr.DataArray, start: Callable[[], Kept]) -> Kept:
    """Return the accumulator that ``start`` makes, of all samples of a prepared trajectory.

    Here one part after another is read and forgotten. Where dask computes on a cluster, the states stay there: each
    worker accumulates its share, and accumulators are all that travels.
    """
    if traj.chunks is not None:
        from depthflow.measures._cluster import accumulated_on, client

        cluster = client()
        if cluster is not None:
            gathered: Kept = accumulated_on(cluster, traj, start)
            return gathered
    total = start()
    for part in parts(traj):
        total.add(part)
    return total
