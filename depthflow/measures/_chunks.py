"""A trajectory part by part, for measures that pool samples in memory that does not grow with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from depthflow.errors import TrajectoryError
from depthflow.schema import DIMS, labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from depthflow.measures._ufunc import Where

PART_BYTES = 32 * 2**20


def part_sizes(traj: xr.DataArray) -> tuple[int, ...]:
    """Return how many samples each part holds: dask's chunks where there are any; else some tens of megabytes."""
    if traj.chunks is not None:
        sizes: tuple[int, ...] = traj.variable.chunksizes["sample"]
        return sizes
    count = traj.sizes["sample"]
    size = max(1, PART_BYTES // max(1, traj.nbytes // count))
    return (size,) * (count // size) + ((count % size,) if count % size else ())


def part_labels(traj: xr.DataArray) -> list[dict[str, np.ndarray]]:
    """Return the labels along sample, depth and token of each part."""
    sample, depth, token = (labels(traj, dim) for dim in DIMS[:3])
    each = np.split(sample, np.cumsum(part_sizes(traj))[:-1])
    return [{"sample": some, "depth": depth, "token": token} for some in each]


def parts(traj: xr.DataArray) -> Iterator[xr.DataArray]:
    """Give a prepared trajectory part by part along ``sample``, each with its states in memory, and no other part."""
    start = 0
    for known in part_labels(traj):
        stop = start + len(known["sample"])
        yield xr.DataArray(traj[start:stop].values, known, DIMS)
        start = stop


def require_finite(states: np.ndarray, where: Where, measure: str) -> None:
    """Raise unless all states (sample, depth, token, feature) are finite, naming the first that is not."""
    finite = np.isfinite(states)
    if finite.all():
        return
    bad = np.argwhere(~finite)
    sample, depth, token, feature = bad[0]
    raise TrajectoryError(
        f"{measure} needs finite states; got {states[tuple(bad[0])]} first at sample {where.sample[sample]}, depth "
        f"{where.depth[depth]}, token {where.token[token]}, feature {feature} ({len(bad)} in this part). Remove those "
        "samples, or mend the model."
    )
