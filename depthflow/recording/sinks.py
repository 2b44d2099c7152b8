"""Where recorded states go; here, an array in memory that is filled in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from depthflow.recording.memory import require
from depthflow.schema import DIMS, STATE, check

Describe: TypeAlias = Callable[[int, "np.ndarray | None"], tuple[dict[str, Any], Mapping[str, Any]]]
"""From the number of samples and their labels to the coords and the attributes of the trajectory."""


class Sink(Protocol):
    """Takes the states of one batch after another."""

    done: int
    """Samples that are safely kept already: those among the inputs need not be recorded again."""

    def open(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Prepare for samples of ``shape`` (depth, token, feature); once more if the shape turns out to be another."""

    def room(self, samples: int) -> Tensor:
        """Return a CPU tensor (sample, depth, token, feature) to fill with the next batch."""

    def commit(self, room: Tensor, labels: np.ndarray | None, describe: Describe) -> None:
        """Keep the states that ``room`` was filled with."""

    def finish(self, describe: Describe) -> xr.DataArray:
        """Return the trajectory."""


class MemorySink:
    """Collects in one array if the number of samples is known, else in one a batch, which are joined at the end."""

    done = 0

    def __init__(self, count: int | None) -> None:
        self.count = count
        self._labels: list[np.ndarray] = []
        self._parts: list[Tensor] = []
        self._used: list[int] = []

    def open(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Allocate what is known to be needed, if there is memory for it."""
        self._shape, self._dtype = shape, dtype
        self._parts, self._used = [], []
        if self.count is not None:
            self._allocate(self.count)

    def room(self, samples: int) -> Tensor:
        """Return the next rows of the array, or a new array where there are none left."""
        if not self._parts or self._used[-1] + samples > len(self._parts[-1]):
            self._allocate(samples)
        return self._parts[-1][self._used[-1] : self._used[-1] + samples]

    def commit(self, room: Tensor, labels: np.ndarray | None, describe: Describe) -> None:
        """Count the rows as filled."""
        self._used[-1] += len(room)
        if labels is not None:
            self._labels.append(labels)

    def finish(self, describe: Describe) -> xr.DataArray:
        """Return the trajectory in memory."""
        states = self._joined().numpy()
        coords, attrs = describe(len(states), np.concatenate(self._labels) if self._labels else None)
        return check(xr.DataArray(states, dims=DIMS, coords=coords, attrs=attrs, name=STATE), "record")

    def _joined(self) -> Tensor:
        """Return all states (sample, depth, token, feature); each part is freed as it is copied."""
        if len(self._parts) == 1:
            return self._parts[0][: self._used[0]]
        whole = torch.empty((sum(self._used), *self._shape), dtype=self._dtype)
        start = 0
        for used in self._used:
            whole[start : start + used] = self._parts.pop(0)[:used]
            start += used
        return whole

    def _allocate(self, samples: int) -> None:
        shape = (samples, *self._shape)
        need = int(np.prod(shape)) * self._dtype.itemsize
        require(need, f"a recording of {' × '.join(map(str, shape))} states (sample × depth × token × feature)")
        self._parts.append(torch.empty(shape, dtype=self._dtype))
        self._used.append(0)
