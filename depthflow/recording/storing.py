"""Write a recording to a zarr store, each chunk while the model runs on, so that it can be killed and continued."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import xarray as xr
import zarr

from depthflow.errors import ParameterError, RecordError, StoreError
from depthflow.recording.chunks import Buffer, Grid
from depthflow.recording.direct import DirectStore
from depthflow.recording.memory import readable
from depthflow.recording.sameness import HASH, distance, require_alike, unlike
from depthflow.recording.sinks import Sink
from depthflow.schema import DIMS, STATE
from depthflow.store import COMPLETE, DONE, SETTINGS, chunk_samples, open_part, open_trajectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import torch
    from torch import Tensor

    from depthflow.recording.feed import Feed
    from depthflow.recording.share import Share
    from depthflow.recording.sinks import Columns, Describe

CREATING = ".creating"
"""How the name of a store ends that is not yet in its place."""

RUNS = 1024
"""Into about how many runs of chunks the samples are divided: one file of ``done`` each, written by one process."""

UNANNOUNCED = 64
"""Chunks a run where the number of samples is not known."""

FULL = (errno.ENOSPC, errno.EDQUOT)


class StoreSink(Sink[xr.DataArray]):
    """Fills a store chunk by chunk; where there are several processes, this one its share of them.

    Two buffers take turns: the model fills one while chunks of the other are written, past the page cache as long as
    the disk keeps up with the model. A chunk's file appears whole or
    not at all, and is marked in ``done`` after that; so a store can be continued wherever its writer was killed.
    Processes never write the same file: each has whole runs of chunks, and whatever is kept of a run's samples lies in
    files of its own.

    Parameters
    ----------
    path : str or Path
        The store, new or unfinished.
    feed : Feed
        What is recorded.
    found : mapping
        The settings of this recording, which those of an unfinished store must equal.
    resume : bool
        Whether an unfinished store is continued.
    share : Share
        Which of the processes that fill the store this is.

    Raises
    ------
    StoreError
        If the store cannot be continued (says why).
    RecordError
        If several processes cannot share these inputs.
    """

    def __init__(self, path: str | Path, feed: Feed, found: Mapping[str, Any], *, resume: bool, share: Share) -> None:
        self.path, self.count, self.settings, self.share = Path(path), feed.count, dict(found), share
        if "://" in str(path):
            raise ParameterError(f"store is a folder on a file system that all processes see; got {str(path)!r}.")
        self._feed, self._batch = feed, feed.first().size
        self._files = DirectStore(self.path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="depthflow-store")
        self._filling, self._resting = Buffer(), Buffer()
        self._group: zarr.Group | None = None
        self._grid: Grid | None = None
        self._witness: int | None = None
        self._other: int | None = None
        self._agreed = False
        if share.of > 1 and (self.count is None or not feed.in_order):
            raise RecordError(
                f"{share.of} processes share the recording, so the number of samples and their order must be known "
                "beforehand. Give an array, a list of batches, or a DataLoader that does not shuffle."
            )
        if share.of > 1 and not resume:
            raise ParameterError(
                f"{share.of} processes fill one store, and resume=False would have each refuse what another has made. "
                "Leave resume out, and remove the store beforehand."
            )
        if self.path.exists():
            self._continue(resume)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(wait=True)

    def wants(self, start: int, stop: int) -> bool:
        """Return whether a sample of these is this process's and not written, or is the one to compare."""
        if self._grid is None or (self._witness is not None and start <= self._witness < stop):
            return True
        return any(map(self._grid.missing, self._grid.chunks(start, stop)))

    def open(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Note the shape; the store is made when the first batch is there."""
        self._shape, self._dtype = shape, dtype

    def room(self, start: int, samples: int) -> Tensor:
        """Return the next rows of a buffer, behind those that wait for the rest of their chunk."""
        ahead = samples if self._grid is None else samples + self._grid.rows - 1
        return self._filling.room(start, samples, ahead, self._shape, self._dtype)

    def commit(self, start: int, room: Tensor, columns: Columns, describe: Describe) -> None:
        """Take the states in, and have every chunk that is full written."""
        if self._grid is None:
            self._guarded(lambda: self._create(describe, columns))
        if not self._agreed:
            coords, _ = describe(0, {})
            require_alike(self.path, self._arrays, self._shape, columns, coords)
            self._agreed = True
        grid, buffer = self._known_grid, self._filling
        if self._witness is not None and start <= self._witness < start + len(room):
            self._compare(self._witness, room[self._witness - start])
        buffer.take(len(room), columns)
        there = grid.chunks(buffer.start, buffer.stop)
        full = [chunk for chunk in there if grid.missing(chunk) and grid.stop(chunk) <= buffer.stop]
        for chunk in full:
            self._submit(chunk, buffer)
        rest = grid.start(there[-1]) if grid.missing(there[-1]) else buffer.stop
        if full:
            self._files.direct &= all(write.done() for write in self._resting.pending)  # else the model would wait
            self._wait(self._resting)
            self._resting.begin(rest, *buffer.part(rest, buffer.stop))
            self._filling, self._resting = self._resting, buffer
        elif rest == buffer.stop:
            buffer.begin(rest)

    def finish(self, describe: Describe) -> xr.DataArray:
        """Write what is left, declare the store finished if it is, and return this process's part of it, opened."""
        grid, left = self._known_grid, self._filling
        last = grid.chunks(left.start, left.stop)[-1:]
        if self.count is None and last and grid.missing(last[0]):
            self._submit(last[0], left)
        for buffer in (self._resting, left):
            self._wait(buffer)
        self._require_count()
        if not self._attrs[COMPLETE]:
            self._guarded(self._complete)
        if self.share.of == 1:
            return open_trajectory(self.path)
        return open_part(self.path, grid.start(grid.first), grid.start(grid.last))

    @property
    def _known_grid(self) -> Grid:
        if self._grid is None:
            raise RecordError("no batch has been recorded yet.")
        return self._grid

    @property
    def _attrs(self) -> dict[str, Any]:
        return {} if self._group is None else dict(self._group.attrs)

    def _continue(self, resume: bool) -> None:
        if not resume:
            raise StoreError(f"{self.path} exists already and is not overwritten. Remove it, or choose another path.")
        if not (self.path / "zarr.json").is_file():
            raise StoreError(f"{self.path} exists and is no store. Remove it, or choose another path.")
        self._group = zarr.open_group(self._files, mode="r+")
        known = self._attrs.get(SETTINGS)
        if not isinstance(known, Mapping) or STATE not in self._group:
            raise StoreError(f"{self.path} was not written by record, so it cannot be continued. Choose another path.")
        other = [key for key in self.settings if known.get(key) != self.settings[key] and key != HASH]
        if other:
            listed = "; ".join(f"{key} {known.get(key)!r} there, {self.settings[key]!r} here" for key in other)
            raise StoreError(
                f"{self.path} holds a recording of other settings: {listed}. Record with the same model, inputs and "
                "settings, or choose another path."
            )
        done, state = self._array(DONE), self._array(STATE)
        marked = np.asarray(done[:])
        announced = self.count is not None or self._attrs[COMPLETE]
        grid = Grid(state.chunks[0], done.chunks[0], len(marked) if announced else None, self.share)
        written = [chunk for chunk in grid.chunks(0, len(marked)) if marked[grid.start(chunk) : grid.stop(chunk)].all()]
        grid.kept.update(written)
        self._grid, missing = grid, grid.first_missing()
        before = [chunk for chunk in written if missing is not None and chunk < missing]
        if before:
            self._witness = min(grid.stop(before[-1]), len(marked)) - 1
            self._other = grid.start(before[0])
        if self.count is not None:  # else places that may never be filled would count
            self._require_space(int(np.sum(~marked)) * state.nbytes // max(1, len(marked)))

    def _create(self, describe: Describe, columns: Columns) -> None:
        """Make the store beside its place and move it there; whoever comes second takes the first one's."""
        samples = self.count or 0
        per_sample = int(np.prod(self._shape)) * self._dtype.itemsize
        self._require_space(samples * per_sample)
        rows = chunk_samples(per_sample, self.count, self._batch, self.share.of)
        chunks = UNANNOUNCED if self.count is None else -(-samples // (rows * RUNS))
        coords, attrs = describe(samples, {name: np.zeros(samples, values.dtype) for name, values in columns.items()})
        small = xr.Dataset(
            {DONE: ("sample", np.zeros(samples, dtype=bool))}, coords, {SETTINGS: self.settings, COMPLETE: False}
        )
        along = {"chunks": (rows * chunks,)}
        encoding = {name: along for name, found in small.variables.items() if found.dims == ("sample",)}
        place = self.path.with_name(f".{self.path.name}.{uuid4().hex}{CREATING}")
        try:
            small.to_zarr(place, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)
            zarr.open_group(place, mode="r+").create_array(
                STATE,
                shape=(samples, *self._shape),
                chunks=(rows, *self._shape),
                dtype=str(self._dtype).removeprefix("torch."),
                compressors=None,  # states hardly compress, and trying takes longer than writing them
                fill_value=float("nan"),
                dimension_names=DIMS,
                attributes=dict(attrs),
            )
            place.rename(self.path)
        except Exception:  # also zarr's own, when a process that is through removes this for a leftover
            if not (self.path / "zarr.json").is_file():
                raise
        finally:
            shutil.rmtree(place, ignore_errors=True)
        self._continue(resume=True)

    def _submit(self, chunk: int, buffer: Buffer) -> None:
        """Have the buffer's rows of a chunk written in the background."""
        grid = self._known_grid
        grid.kept.add(chunk)
        start, stop = grid.start(chunk), min(grid.stop(chunk), buffer.stop)
        states, columns = buffer.part(start, stop)
        buffer.pending.append(self._writer.submit(self._write, start, stop, states, columns))

    def _write(self, start: int, stop: int, states: Tensor, columns: Columns) -> None:
        """Write a chunk: states and columns first, then the mark that they are done."""
        if stop > self._array(DONE).shape[0]:
            self._resize(start + self._array(DONE).chunks[0])
        self._array(STATE)[start:stop] = states.numpy()
        for name, values in columns.items():
            self._array(name)[start:stop] = values
        self._array(DONE)[start:stop] = True

    def _wait(self, buffer: Buffer) -> None:
        """Wait until the buffer's chunks are written."""
        while buffer.pending:
            self._guarded(buffer.pending.pop(0).result)

    def _guarded(self, write: Callable[[], None]) -> None:
        """Write; an error of the disk is raised again with what is kept and how to go on."""
        try:
            write()
        except OSError as error:
            room = "Make room there" if error.errno in FULL else "See to that"
            kept = int(np.sum(self._array(DONE)[:])) if self._group is not None else 0
            raise StoreError(
                f"writing to {self.path} failed: {error.strerror or error}. {kept} of {self.count or 'all'} samples "
                f"are kept. {room}, and call record again with the same model, inputs and store: it goes on from there."
            ) from error

    def _complete(self) -> None:
        """Declare the store finished if every sample is there, and remove what killed writers have left behind."""
        done = np.asarray(self._array(DONE)[:])
        if self.count is None:
            done = done[: int(np.sum(done))]
            self._resize(len(done))
            self._array("sample")[:] = np.arange(len(done))
        if not done.all() or self._group is None:
            return
        for left in self.path.rglob("*.partial"):
            left.unlink(missing_ok=True)
        for left in self.path.parent.glob(f".{self.path.name}.*{CREATING}"):
            shutil.rmtree(left, ignore_errors=True)
        with suppress(FileNotFoundError):  # another process that is through as well took this for a leftover
            self._group.attrs[COMPLETE] = True

    def _require_count(self) -> None:
        """Raise unless the inputs gave as many samples as there are to be."""
        passed = self._feed.passed
        if self.count is not None and passed != self.count:
            raise RecordError(
                f"the inputs announced {self.count} samples and gave {passed}. Give iter(…) of them, whose number is "
                "not asked for, and another store."
            )
        written = int(np.sum(self._array(DONE)[:]))
        if self.count is None and passed != written:
            raise StoreError(
                f"{self.path} holds {written} samples; these inputs hold {passed}. Record with the same inputs, or "
                "choose another path."
            )

    def _compare(self, sample: int, state: Tensor) -> None:
        """Raise unless a sample that is written comes out again as it was."""
        stored = np.asarray(self._array(STATE)[sample], dtype=np.float64)
        other = None if self._other is None else np.asarray(self._array(STATE)[self._other])
        apart, most = distance(state.numpy(), stored), unlike(stored, other)
        if apart > most:
            raise StoreError(
                f"sample {sample} comes out otherwise than {self.path} holds it (by {apart:.1%} on average over "
                "its tokens): the inputs are others or in another order, as of a DataLoader that shuffles, or the "
                "model draws at random. Record with the same inputs, or choose another path."
            )
        self._witness = None

    def _require_space(self, needed: int) -> None:
        """Raise unless the disk has room for what is still to be written."""
        free = shutil.disk_usage(next(place for place in self.path.absolute().parents if place.exists())).free
        if needed > free:
            raise StoreError(
                f"{self.path} needs {readable(needed)} more, and {readable(free)} are free on its disk. Make room, or "
                "keep less: tokens='cls+mean', depths=[…], dtype='float16', or fewer samples."
            )

    def _resize(self, samples: int) -> None:
        # What is done comes last: where it is long enough, all else is.
        for name, array in sorted(self._arrays.items(), key=lambda item: item[0] == DONE):
            if name == STATE or array.metadata.dimension_names == ("sample",):
                array.resize((samples, *array.shape[1:]))

    @property
    def _arrays(self) -> dict[str, Any]:
        return {} if self._group is None else dict(self._group.arrays())

    def _array(self, name: str) -> zarr.Array:
        array = self._group.get(name) if self._group is not None else None
        if not isinstance(array, zarr.Array):
            raise StoreError(
                f"{self.path} lacks the array {name!r}: was it removed meanwhile, or not written by record? Choose "
                "another path."
            )
        return array.with_config({"write_empty_chunks": True})  # looking for empty ones reads all that is written
