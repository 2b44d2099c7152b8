"""Go through a dask-backed trajectory: part by part, the next one read meanwhile, and with an eye on how far it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from depthflow.schema import labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from tqdm import tqdm

PART_BYTES = 64 * 2**20


def loaded_parts(traj: xr.DataArray) -> Iterator[xr.DataArray]:
    """Give the trajectory's samples in parts in memory, each with the labels that its samples have in the whole.

    A part is as many of dask's chunks as some tens of megabytes hold, and at least one. While it is worked on the next
    is read, so that two are in memory, and what dask needs to put one together.
    """
    per_sample = traj.nbytes // traj.sizes["sample"]
    parts = whole_chunks(traj.variable, PART_BYTES // max(1, per_sample))
    labelled = traj.assign_coords(sample=labels(traj, "sample"))

    def read(part: slice) -> xr.DataArray:
        return labelled.isel(sample=part).compute()

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, parts[0])
        for following in [*parts[1:], None]:
            part = coming.result()
            if following is not None:
                coming = reader.submit(read, following)
            yield part


def whole_chunks(variable: xr.Variable, most: int) -> list[slice]:
    """Return the samples of neighbouring chunks, at most so many together unless one chunk holds more."""
    samples = variable.sizes["sample"]
    chunks = variable.chunks[variable.get_axis_num("sample")] if variable.chunks is not None else (samples,)
    parts, start, stop = [], 0, 0
    for size in chunks:
        if stop > start and stop + size - start > most:
            parts.append(slice(start, stop))
            start = stop
        stop += size
    return [*parts, slice(start, stop)]


def watched(traj: xr.DataArray, bar: tqdm[Any]) -> xr.DataArray:
    """Return the same trajectory; where it is lazy, ``bar`` tells how many of its samples were read."""
    if traj.chunks is None or "sample" not in traj.dims:
        return traj
    note = _Reading(bar, int(traj.get_axis_num("sample")))
    return traj.copy(data=traj.data.map_blocks(note, dtype=traj.dtype, meta=np.empty((0,) * traj.ndim, traj.dtype)))


class _Reading:
    """Lets blocks through and tells ``bar`` of them; a copy in another process tells nothing."""

    def __init__(self, bar: tqdm[Any] | None, axis: int) -> None:
        self.bar, self.axis = bar, axis
        self.samples, self._lock = 0, Lock()

    def __call__(self, states: np.ndarray) -> np.ndarray:
        if self.bar is not None:
            with self._lock:
                self.samples += states.shape[self.axis]
                self.bar.set_postfix_str(f"{self.samples:,} samples read")
        return states

    def __reduce__(self) -> tuple[type[_Reading], tuple[None, int]]:
        return _Reading, (None, self.axis)
