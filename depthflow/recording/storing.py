"""Write a recording to a zarr store chunk by chunk, so that it needs no memory and can be continued."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
import zarr
from torch import Tensor

from depthflow.errors import StoreError
from depthflow.models.fingerprint import fingerprint
from depthflow.schema import DIMS, STATE
from depthflow.store import CHUNK_BYTES, COMPLETE, DONE, open_trajectory

if TYPE_CHECKING:
    from depthflow.models.base import Adapter
    from depthflow.recording.inputs import Batch, Feed
    from depthflow.recording.sinks import Describe

SETTINGS = "settings"
LABEL_ROWS = 2**16
"""Samples a chunk of the small arrays, which hold one value a sample."""


def settings(
    adapter: Adapter,
    first: Batch,
    feed: Feed,
    *,
    tokens: Any,
    depths: Sequence[int] | None,
    dtype: str,
) -> dict[str, Any]:
    """Return what must be the same for a store to be continued, in values that JSON can hold.

    Weights, labels and the first sample stand in it by their hash. The batch size is not in it.
    """
    labels = feed.labels
    return {
        "model": adapter.name(),
        "weights": fingerprint(adapter.root.state_dict()),
        "blocks": adapter.names,
        "tokens": np.asarray(tokens).tolist() if not isinstance(tokens, str | None) else tokens,
        "depths": None if depths is None else list(depths),
        "dtype": dtype,
        "samples": feed.count,
        "first sample": fingerprint(first.part(0, 1).call.named()),
        "labels": None if labels is None else hashlib.blake2b(str(labels.tolist()).encode(), digest_size=8).hexdigest(),
    }


class StoreSink:
    """Fills a store in whole chunks of samples; ``done`` of them are on disk.

    Parameters
    ----------
    path : str or Path
        The store, new or unfinished.
    count : int or None
        Samples that will come; where it is not known, the arrays grow as they come.
    found : mapping
        The settings of this recording, which those of an unfinished store must equal.
    resume : bool
        Whether an unfinished store is continued.
    """

    def __init__(self, path: str | Path, count: int | None, found: Mapping[str, Any], *, resume: bool) -> None:
        self.path, self.count, self.settings = Path(path), count, dict(found)
        self.done = 0
        self.finished = False
        self._group: zarr.Group | None = None
        if self.path.exists():
            self._continue(resume)
        self._buffer: Tensor | None = None
        self._labels: list[np.ndarray] = []
        self._buffered = 0

    def _continue(self, resume: bool) -> None:
        if not resume:
            raise StoreError(f"{self.path} exists already and is not overwritten. Remove it, or choose another path.")
        if not (self.path / "zarr.json").is_file():
            raise StoreError(f"{self.path} exists and is no store. Remove it, or choose another path.")
        self._group = zarr.open_group(self.path, mode="r+")
        known = self._group.attrs.get(SETTINGS)
        if not isinstance(known, Mapping) or STATE not in self._group:
            raise StoreError(f"{self.path} was not written by record, so it cannot be continued. Choose another path.")
        other = [key for key in self.settings if known.get(key) != self.settings[key]]
        if other:
            listed = "; ".join(f"{key} {known.get(key)!r} there, {self.settings[key]!r} here" for key in other)
            raise StoreError(
                f"{self.path} holds a recording of other settings: {listed}. Record with the same model, inputs and "
                "settings, or choose another path."
            )
        self.finished = bool(self._group.attrs.get(COMPLETE))
        self.done = int(np.sum(self._array(DONE)[:]))

    def open(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Note the shape; the store is made when the first chunk is written."""
        self._shape, self._dtype = shape, dtype
        if self._group is None:
            per_sample = int(np.prod(shape)) * dtype.itemsize
            self._rows = max(
                1, CHUNK_BYTES // per_sample if self.count is None else min(CHUNK_BYTES // per_sample, self.count)
            )
        else:
            state = self._array(STATE)
            if state.shape[1:] != shape:
                raise StoreError(f"{self.path} holds states of shape {state.shape[1:]}; this recording has {shape}.")
            self._rows = state.chunks[0]
        self._buffer = torch.empty((self._rows, *shape), dtype=dtype)

    def room(self, samples: int) -> Tensor:
        """Return memory for one batch: in the next chunk itself where it fits."""
        if self._buffer is not None and self._buffered + samples <= self._rows:
            return self._buffer[self._buffered : self._buffered + samples]
        return torch.empty((samples, *self._shape), dtype=self._dtype)

    def commit(self, room: Tensor, labels: np.ndarray | None, describe: Describe) -> None:
        """Take the states in, and write every chunk that is full."""
        if self._buffer is None:
            return
        while len(room):
            taken = min(len(room), self._rows - self._buffered)
            slot = self._buffer[self._buffered : self._buffered + taken]
            if slot.data_ptr() != room.data_ptr():
                slot.copy_(room[:taken])
            if labels is not None:
                self._labels.append(labels[:taken])
                labels = labels[taken:]
            room = room[taken:]
            self._buffered += taken
            if self._buffered == self._rows:
                self._write(describe)

    def finish(self, describe: Describe) -> xr.DataArray:
        """Write what is left, declare the store finished, and return it opened."""
        if self._buffered:
            self._write(describe)
        if self._group is not None:
            if self._array(STATE).shape[0] != self.done:
                self._resize(self.done)
            self._group.attrs[COMPLETE] = True
        return open_trajectory(self.path)

    def _write(self, describe: Describe) -> None:
        """Write the buffered samples: states and labels first, then the mark that they are done."""
        if self._buffer is None:
            return
        labels = np.concatenate(self._labels) if self._labels else None
        if self._group is None:
            self._group = self._create(describe, labels)
        start, stop = self.done, self.done + self._buffered
        if stop > self._array(STATE).shape[0]:
            self._resize(stop)
        self._array(STATE)[start:stop] = self._buffer[: self._buffered].numpy()
        if labels is not None:
            self._array("label")[start:stop] = labels
        self._array(DONE)[start:stop] = True
        self.done, self._buffered, self._labels = stop, 0, []

    def _create(self, describe: Describe, labels: np.ndarray | None) -> zarr.Group:
        samples = self.count or 0
        if labels is not None:
            labels = np.zeros(samples, dtype=labels.dtype)
        coords, attrs = describe(samples, labels)
        small = xr.Dataset(
            {DONE: ("sample", np.zeros(samples, dtype=bool))}, coords, {SETTINGS: self.settings, COMPLETE: False}
        )
        rows = min(LABEL_ROWS, samples or LABEL_ROWS)
        encoding = {name: {"chunks": (rows,)} for name, found in small.variables.items() if found.dims == ("sample",)}
        small.to_zarr(self.path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)
        group = zarr.open_group(self.path, mode="r+")
        group.create_array(
            STATE,
            shape=(samples, *self._shape),
            chunks=(self._rows, *self._shape),
            dtype=str(self._dtype).removeprefix("torch."),
            compressors=None,  # states hardly compress, and trying takes longer than writing them
            fill_value=float("nan"),
            dimension_names=DIMS,
            attributes=dict(attrs),
        )
        return group

    def _resize(self, samples: int) -> None:
        if self._group is None:
            return
        for name in ("sample", "label", DONE, STATE):
            if name in self._group:
                array = self._array(name)
                array.resize((samples, *array.shape[1:]))
        self._array("sample")[:] = np.arange(samples)

    def _array(self, name: str) -> zarr.Array:
        array = self._group[name] if self._group is not None else None
        if not isinstance(array, zarr.Array):
            raise StoreError(
                f"{self.path} lacks the array {name!r}; it was not written by record. Choose another path."
            )
        return array
