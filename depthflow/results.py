"""The store of an analysis's results: hidden until it is complete, written part by part, and opened lazily."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import dask.array
import numpy as np
import xarray as xr
import zarr

from depthflow.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

GROUPS = ("results", "null")
"""The groups of a store: the trajectory's results and its null's, a Dataset a measure in each."""

CHUNK_BYTES = 2 * 2**20
"""Size of the chunks of what has one value or more a sample; and what is no larger than one is opened into memory."""

ZARR: Mapping[str, Any] = {"zarr_format": 3, "consolidated": False}


class NewResults:
    """A store of results in the making; it is at ``path`` once the ``with`` block ends without an error.

    Until then it is a hidden folder beside. What a killed process left of that is removed by the next one.

    Raises
    ------
    StoreError
        If something is at ``path`` already.
    """

    def __init__(self, path: Path, null_name: str) -> None:
        if path.exists():
            raise StoreError(f"{path} exists already and is not overwritten. Remove it, or choose another folder.")
        self.path, self.null_name = path, null_name
        self._hidden = path.with_name(f".{path.name}.unfinished")

    def __enter__(self) -> NewResults:
        shutil.rmtree(self._hidden, ignore_errors=True)
        self._root = zarr.open_group(self._hidden, mode="w-", zarr_format=3)
        for group in GROUPS:
            self._root.create_group(group)
        self._root["null"].attrs["null"] = self.null_name
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._hidden.rename(self.path)
        else:
            shutil.rmtree(self._hidden, ignore_errors=True)

    def write(self, group: str, name: str, result: xr.Dataset) -> None:
        """Write a measure's whole result."""
        result.drop_encoding().to_zarr(self._hidden, group=f"{group}/{name}", mode="a", **ZARR)

    def gather(self, group: str, name: str, first: xr.Dataset, traj: xr.DataArray) -> Gathering:
        """Make room for a result with one row a sample of ``traj``, whose first part is like ``first``."""
        samples = traj.sizes["sample"]
        rowwise = [str(key) for key, variable in first.data_vars.items() if "sample" in variable.dims]
        layout = first.drop_vars([*rowwise, *(key for key, coord in first.coords.items() if "sample" in coord.dims)])
        known = traj.coords.variables.items()
        layout = layout.assign_coords({key: coord for key, coord in known if "sample" in coord.dims})
        encoding = {}
        for key in rowwise:
            variable = first[key].variable
            shape = tuple(samples if dim == "sample" else size for dim, size in variable.sizes.items())
            row = max(1, variable.nbytes // variable.sizes["sample"])
            rows = int(np.clip(CHUNK_BYTES // row, 1, samples))
            encoding[key] = {"chunks": tuple(rows if dim == "sample" else variable.sizes[dim] for dim in variable.dims)}
            # Nothing is ever computed of it: only the array's metadata are written.
            room = dask.array.empty(shape, variable.dtype, chunks=shape)
            layout[key] = (variable.dims, room, variable.attrs)
        where = f"{group}/{name}"
        layout.drop_encoding().to_zarr(
            self._hidden, group=where, mode="a", compute=False, encoding=encoding, safe_chunks=False, **ZARR
        )
        return Gathering(zarr.open_group(self._hidden, path=where, mode="r+"), rowwise)


class Gathering:
    """The variables of one result, gathered from its parts to whole chunks, which are written at once."""

    def __init__(self, group: zarr.Group, names: list[str]) -> None:
        self._columns = {name: _Column(_array(group, name)) for name in names}

    def add(self, part: xr.Dataset) -> None:
        """Take in the result of the samples that follow those before."""
        for name, column in self._columns.items():
            column.add(part[name].transpose("sample", ...).values)

    def close(self) -> None:
        """Write what is left."""
        for column in self._columns.values():
            column.flush(column.held)


class _Column:
    """One variable: what came of it since the last whole chunk."""

    def __init__(self, array: zarr.Array) -> None:
        self.array, self.start, self.held = array, 0, 0
        self._parts: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        self._parts.append(values)
        self.held += len(values)
        self.flush(self.held - self.held % self.array.chunks[0])

    def flush(self, count: int) -> None:
        """Write the first ``count`` rows of what is held."""
        if not count:
            return
        held = np.concatenate(self._parts)
        self.array[self.start : self.start + count] = held[:count]
        # A copy: a view would keep what is written in memory.
        self.start, self.held, self._parts = self.start + count, self.held - count, [held[count:].copy()]


def _array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.path} holds no array {name!r}.")
    return array


def open_results(path: Path) -> dict[str, dict[str, xr.Dataset]]:
    """Return each group's Datasets by the measure's name; what is larger than a chunk stays on disk, dask-backed."""
    tree = xr.open_datatree(path, engine="zarr", consolidated=False, chunks={})
    return {
        group: {name: _opened(node.to_dataset()) for name, node in tree[group].children.items()} for group in GROUPS
    }


def _opened(result: xr.Dataset) -> xr.Dataset:
    small = {name: variable.compute() for name, variable in result.variables.items() if variable.nbytes <= CHUNK_BYTES}
    return result.assign(small)
