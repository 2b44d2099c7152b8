"""A trajectory part by part, for measures that pool samples in memory that does not grow with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthflow.errors import TrajectoryError
from depthflow.measures._ufunc import Where, as_states

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

PART_BYTES = 32 * 2**20


def parts(traj: xr.DataArray) -> Iterator[tuple[np.ndarray, Where]]:
    """Give states (sample, depth, token, feature) and their labels, part by part along ``sample``.

    Parameters
    ----------
    traj : xarray.DataArray
        With all four dims in order. Parts are dask's chunks where it has any, one in memory at a time; else some tens
        of megabytes.
    """
    count = traj.sizes["sample"]
    if traj.chunks is not None:
        sizes = traj.chunksizes["sample"]
    else:
        size = max(1, PART_BYTES // max(1, traj.nbytes // count))
        sizes = (size,) * (count // size) + ((count % size,) if count % size else ())
    start = 0
    for size in sizes:
        part = traj.isel(sample=slice(start, start + size))
        yield as_states(part.values), Where.of(part)
        start += size


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
