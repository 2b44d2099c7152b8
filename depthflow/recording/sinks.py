"""Where recorded states go; here, an array in memory that is filled in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from depthflow.recording.memory import require
from depthflow.schema import DIMS, STATE, check

if TYPE_CHECKING:
    from types import TracebackType

Columns: TypeAlias = Mapping[str, np.ndarray]
"""What is known of each sample beside its states, such as its label: one array (sample,) a coord."""

Describe: TypeAlias = Callable[[int, Columns], tuple[dict[str, Any], Mapping[str, Any]]]
"""From the number of samples and their columns to the coords and the attributes of the trajectory."""

Result = TypeVar("Result", covariant=True)


class Sink(AbstractContextManager["Sink[Result]"], ABC, Generic[Result]):
    """Takes the states of one batch after another, in the order of the samples, while it is entered."""

    def wants(self, start: int, stop: int) -> bool:
        """Return whether any of the samples from ``start`` to before ``stop`` is needed."""
        return True

    @abstractmethod
    def open(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Prepare for samples of ``shape`` (depth, token, feature); once more if the shape turns out to be another."""

    @abstractmethod
    def room(self, start: int, samples: int) -> Tensor:
        """Return a CPU tensor (sample, depth, token, feature) for the batch whose first sample is number ``start``."""

    @abstractmethod
    def commit(self, start: int, room: Tensor, columns: Columns, describe: Describe) -> None:
        """Keep the states that ``room`` was filled with, as far as they are wanted."""

    @abstractmethod
    def finish(self, describe: Describe) -> Result:
        """Return what was made of all states."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class MemorySink(Sink[xr.DataArray]):
    """Collects in one array if the number of samples is known, else in one a batch, which are joined at the end."""

    def __init__(self, count: int | None) -> None:
        self.count = count
        self._columns: list[Columns] = []
        self._parts: list[Tensor] = []
        self._used: list[int] = []

    def open(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Allocate what is known to be needed, if there is memory for it."""
        self._shape, self._dtype = shape, dtype
        self._parts, self._used = [], []
        if self.count is not None:
            self._allocate(self.count)

    def room(self, start: int, samples: int) -> Tensor:
        """Return the next rows of the array, or a new array where there are none left."""
        if not self._parts or self._used[-1] + samples > len(self._parts[-1]):
            self._allocate(samples)
        return self._parts[-1][self._used[-1] : self._used[-1] + samples]

    def commit(self, start: int, room: Tensor, columns: Columns, describe: Describe) -> None:
        """Count the rows as filled."""
        self._used[-1] += len(room)
        self._columns.append(columns)

    def finish(self, describe: Describe) -> xr.DataArray:
        """Return the trajectory in memory."""
        states = self._joined().numpy()
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        coords, attrs = describe(len(states), columns)
        return check(xr.DataArray(states, dims=DIMS, coords=coords, attrs=attrs, name=STATE), "record")

    def _joined(self) -> Tensor:
        """Return all states (sample, depth, token, feature); each part is freed as it is copied."""
        if len(self._parts) == 1:
            return self._parts[0][: self._used[0]]
        whole = torch.empty((sum(self._used), *self._shape), dtype=self._dtype, device="cpu")
        start = 0
        for used in self._used:
            whole[start : start + used] = self._parts.pop(0)[:used]
            start += used
        return whole

    def _allocate(self, samples: int) -> None:
        shape = (samples, *self._shape)
        need = int(np.prod(shape)) * self._dtype.itemsize
        require(need, f"a recording of {' × '.join(map(str, shape))} states (sample × depth × token × feature)")
        self._parts.append(torch.empty(shape, dtype=self._dtype, device="cpu"))
        self._used.append(0)
