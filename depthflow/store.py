"""Keep a trajectory on disk as a zarr v3 store, and open one lazily."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from depthflow.errors import StoreError
from depthflow.schema import SCHEMA_VERSION, STATE, check

CHUNK_BYTES = 64 * 2**20
DONE = "done"
"""Variable of a recorded store: whether a sample's states are written."""
COMPLETE = "complete"
"""Attribute of a recorded store: whether its recording came to its end."""


def save_trajectory(traj: xr.DataArray, path: str | Path) -> None:
    """Write a trajectory to a new zarr v3 store, chunked along ``sample``.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory, in memory or dask-backed.
    path : str or Path
        Where the store will be; nothing may be there yet.

    Raises
    ------
    StoreError
        If something is at ``path`` already: it is never overwritten.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path} exists already and is not overwritten. Remove it, or choose another path.")
    check(traj, "save_trajectory")
    dataset = traj.drop_encoding().to_dataset(name=STATE)
    if "sample" in traj.dims:
        per_sample = max(1, traj.nbytes // traj.sizes["sample"])
        rows = int(np.clip(CHUNK_BYTES // per_sample, 1, traj.sizes["sample"]))
        chunks = tuple(rows if dim == "sample" else size for dim, size in traj.sizes.items())
        dataset[STATE].encoding["chunks"] = chunks
        if traj.chunks is not None:
            dataset = dataset.chunk(dict(zip(traj.dims, chunks, strict=True)))
    dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False)


def open_trajectory(path: str | Path) -> xr.DataArray:
    """Open a store as a dask-backed trajectory; nothing is read but its metadata and coords.

    Parameters
    ----------
    path : str or Path
        A store made by :func:`save_trajectory` or by ``record(store=…)``.

    Raises
    ------
    StoreError
        If there is no store, it holds no trajectory, its recording was not finished (says how many samples are
        missing), or a newer depthflow wrote it.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        raise StoreError(
            f"{path} is not a zarr v3 store: it has no zarr.json. Give the folder that record or save made."
        )
    dataset = xr.open_zarr(path, consolidated=False)
    if STATE not in dataset:
        raise StoreError(
            f"{path} holds {sorted(map(str, dataset.data_vars))}, not the variable {STATE!r} of a trajectory."
        )
    if not dataset.attrs.get(COMPLETE, True):
        written, announced = int(dataset[DONE].sum()), dataset.sizes["sample"]
        missing = f"{announced - written} of {announced}" if announced > written else f"all after the first {written}"
        raise StoreError(
            f"{path} is an unfinished recording: {missing} samples are missing. Finish it by calling record again with "
            "the same model, inputs and store."
        )
    traj = dataset[STATE]
    version = traj.attrs.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version!r}; this depthflow reads up to {SCHEMA_VERSION}. "
            "Update depthflow, or record again."
        )
    for name in traj.coords:
        traj[name].load()
    return check(traj, "open_trajectory")
