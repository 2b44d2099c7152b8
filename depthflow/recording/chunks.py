"""Which chunks of a store are whose, and the rows that wait for their chunk to be full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from depthflow.recording.direct import aligned

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from depthflow.recording.share import Share


class Grid:
    """Chunks of ``rows`` samples, of which a process has whole runs of ``run`` samples.

    Parameters
    ----------
    rows, run : int
        Samples a chunk and a run; a run is so many whole chunks.
    count : int or None
        Samples in all; where that is not known, there is one process, and every chunk is its own.
    share : Share
        Which process this is.
    """

    def __init__(self, rows: int, run: int, count: int | None, share: Share) -> None:
        self.rows, self.count = rows, count
        self.kept: set[int] = set()
        """Chunks that are written, or about to be."""
        self.first, self.last = 0, 0
        if count is not None:
            total, per_run = -(-count // rows), run // rows
            first, last = share.part(-(-total // per_run))
            self.first, self.last = min(first * per_run, total), min(last * per_run, total)

    def chunks(self, start: int, stop: int) -> range:
        """Return the chunks that hold any of the samples from ``start`` to before ``stop``."""
        return range(start // self.rows, -(-stop // self.rows))

    def start(self, chunk: int) -> int:
        """Return the number of a chunk's first sample."""
        return chunk * self.rows

    def stop(self, chunk: int) -> int:
        """Return the number after a chunk's last sample."""
        full = (chunk + 1) * self.rows
        return full if self.count is None else min(full, self.count)

    def missing(self, chunk: int) -> bool:
        """Return whether a chunk is this process's to write."""
        own = self.count is None or self.first <= chunk < self.last
        return own and chunk not in self.kept

    def first_missing(self) -> int | None:
        """Return the first chunk that this process has to write."""
        if self.count is None:
            return len(self.kept)
        return next((chunk for chunk in range(self.first, self.last) if chunk not in self.kept), None)


class Buffer:
    """Consecutive samples' states and columns, from sample ``start`` to before ``stop``."""

    def __init__(self) -> None:
        self.start = self.stop = 0
        self.pending: list[Future[None]] = []
        """What still reads the rows."""
        self._rows = torch.empty(0, device="cpu")
        self._columns: dict[str, np.ndarray] = {}

    def begin(self, start: int, rows: Tensor | None = None, columns: Mapping[str, np.ndarray] | None = None) -> None:
        """Forget all rows and begin at sample ``start``, with ``rows`` if there are any."""
        self.start = self.stop = start
        self._columns = {}
        if rows is not None and len(rows):
            self.room(start, len(rows), len(rows), rows.shape[1:], rows.dtype).copy_(rows)
            self.take(len(rows), columns or {})

    def room(self, start: int, samples: int, ahead: int, shape: Any, dtype: torch.dtype) -> Tensor:
        """Return rows for the samples from ``start`` on; where memory has to be had, it is had for ``ahead`` samples.

        Rows before are forgotten unless they are the samples just before.
        """
        if start != self.stop:
            self.begin(start)
        used = self.stop - self.start
        old = self._rows
        if old.shape[1:] != shape or old.dtype != dtype or used + samples > len(old):
            self._rows = aligned((used + max(samples, ahead), *shape), dtype)
            if used:
                self._rows[:used] = old[:used]
        return self._rows[used : used + samples]

    def take(self, samples: int, columns: Mapping[str, np.ndarray]) -> None:
        """Count ``samples`` more rows as filled."""
        self.stop += samples
        known = self._columns
        self._columns = {
            name: np.concatenate([known[name], values]) if name in known else values for name, values in columns.items()
        }

    def part(self, start: int, stop: int) -> tuple[Tensor, dict[str, np.ndarray]]:
        """Return the rows and columns of the samples from ``start`` to before ``stop``."""
        part = slice(start - self.start, stop - self.start)
        return self._rows[part], {name: values[part] for name, values in self._columns.items()}
