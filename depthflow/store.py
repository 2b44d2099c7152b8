"""Keep a trajectory on disk as a zarr v3 store, and open one lazily."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from depthflow.errors import StoreError
from depthflow.schema import SCHEMA_VERSION, STATE, check

CHUNK_BYTES = 32 * 2**20
"""Size of a chunk of states, one file, to aim at: large enough for a disk, small beside the memory of any machine."""
CHUNKS_EACH = 4
"""Chunks that each of several processes is to have at least, so that they end at about the same time."""
DONE = "done"
"""Variable of a recorded store: whether a sample's states are written."""
SETTINGS = "settings"
"""Attribute of a recorded store: what it was recorded with."""
COMPLETE = "complete"
"""Attribute of a recorded store: whether its recording came to its end."""


def chunk_samples(per_sample: int, count: int | None, batch: int = 1, processes: int = 1) -> int:
    """Return how many samples a chunk holds: whole batches, or an equal part of one.

    Parameters
    ----------
    per_sample : int
        Bytes of a sample's states.
    count : int or None
        Samples in all, where that is known.
    batch : int
        Samples that come at a time.
    processes : int
        How many processes write; each is to have several chunks.
    """
    most = max(1, CHUNK_BYTES // max(1, per_sample))
    if most < batch:
        return max(part for part in range(1, most + 1) if batch % part == 0)
    if count is not None:
        most = min(most, count if processes == 1 else count // (CHUNKS_EACH * processes))
    return max(1, min(batch, count or batch), most - most % batch)


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
        If something is at ``path`` already, as it is never overwritten; or it cannot be written there.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path} exists already and is not overwritten. Remove it, or choose another path.")
    check(traj, "save_trajectory")
    dataset = traj.drop_encoding().to_dataset(name=STATE)
    if "sample" in traj.dims:
        rows = chunk_samples(traj.nbytes // max(1, traj.sizes["sample"]), traj.sizes["sample"])
        chunks = tuple(rows if dim == "sample" else size for dim, size in traj.sizes.items())
        dataset[STATE].encoding["chunks"] = chunks
        if traj.chunks is not None:
            dataset = dataset.chunk(dict(zip(traj.dims, chunks, strict=True)))
    try:
        # Chunks of nothing but NaN too: what is missing is taken for lost.
        dataset.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, write_empty_chunks=True)
    except OSError as error:
        raise StoreError(
            f"{path} could not be written: {error.strerror or error}. Remove what is there of it, and choose a folder "
            "that can be written and has room."
        ) from error


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
        missing), files of it are missing, or a newer depthflow wrote it.
    """
    dataset = _opened(path)
    if not dataset.attrs.get(COMPLETE, True):
        written, announced = int(dataset[DONE].sum()), dataset.attrs[SETTINGS]["samples"]
        missing = f"all after the first {written}" if announced is None else f"{announced - written} of {announced}"
        raise StoreError(
            f"{path} is an unfinished recording: {missing} samples are missing. Finish it by calling record again with "
            "the same model, inputs and store."
        )
    chunks = -(-dataset[STATE].shape[0] // dataset[STATE].encoding["chunks"][0])
    there = sum(1 for _ in (Path(path) / STATE / "c").glob("*")) if chunks else 0
    if there < chunks:  # zarr reads what is missing as NaN
        raise StoreError(
            f"{path} lacks {chunks - there} of its {chunks} chunks of states: was it copied whole? Copy it again, or "
            "record anew."
        )
    return _states(dataset, path)


def open_part(path: str | Path, start: int, stop: int) -> xr.DataArray:
    """Open the samples from ``start`` to before ``stop``, perhaps none, of a store of which others may be missing."""
    return _states(_opened(path), path).isel(sample=slice(start, stop))


def _opened(path: str | Path) -> xr.Dataset:
    if not (Path(path) / "zarr.json").is_file():
        raise StoreError(
            f"{path} is not a zarr v3 store: it has no zarr.json. Give the folder that record or save made."
        )
    dataset: xr.Dataset = xr.open_zarr(path, consolidated=False)
    if STATE not in dataset:
        raise StoreError(
            f"{path} holds {sorted(map(str, dataset.data_vars))}, not the variable {STATE!r} of a trajectory."
        )
    return dataset


def _states(dataset: xr.Dataset, path: str | Path) -> xr.DataArray:
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
