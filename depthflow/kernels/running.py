"""Gram matrices and triangular factors of rows that arrive part by part."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Self


class _Running(ABC):
    """Rows that arrive part by part, less their mean where ``center``, so that no part need be kept.

    The mean of two parts joined adds one row, their means' difference times √(n·m/(n + m)) (Chan et al. 1983,
    doi:10.1080/00031305.1983.10483115), so that nothing large is subtracted from something large.
    """

    def __init__(self, features: int, center: bool) -> None:
        self.center, self.count, self.mean = center, 0, np.zeros(features)

    def add(self, rows: np.ndarray) -> None:
        """Take in ``rows`` (row, feature), float64."""
        if not self.center:
            self._absorb(rows)
            return
        mean = rows.mean(0)
        self._absorb(rows - mean)
        self._join(len(rows), mean)

    def merge(self, later: Self) -> None:
        """Take in the rows that ``later`` took in; it stays as it is."""
        self._absorb_of(later)
        if self.center and later.count:
            self._join(later.count, later.mean)

    def _join(self, count: int, mean: np.ndarray) -> None:
        """Take note of ``count`` more rows, absorbed less their own ``mean``."""
        step, total = mean - self.mean, self.count + count
        if self.count:
            self._absorb(math.sqrt(self.count * count / total) * step[None])
        self.mean += count / total * step
        self.count = total

    @abstractmethod
    def _absorb(self, rows: np.ndarray) -> None: ...

    @abstractmethod
    def _absorb_of(self, later: Self) -> None: ...


class RunningGram(_Running):
    """The Gram matrix (feature, feature) of rows that arrive part by part."""

    def __init__(self, features: int, center: bool) -> None:
        super().__init__(features, center)
        self.matrix = np.zeros((features, features))

    def _absorb(self, rows: np.ndarray) -> None:
        self.matrix += rows.T @ rows

    def _absorb_of(self, later: RunningGram) -> None:
        self.matrix += later.matrix


class RunningFactor(_Running):
    """A matrix of few rows with the singular values of all rows that arrived, also where a Gram matrix loses them."""

    def __init__(self, features: int, center: bool) -> None:
        super().__init__(features, center)
        self.matrix = np.zeros((0, features))

    def _absorb(self, rows: np.ndarray) -> None:
        stacked = np.vstack([self.matrix, rows])
        self.matrix = stacked if len(stacked) <= 2 * stacked.shape[1] else np.asarray(np.linalg.qr(stacked, mode="r"))

    def _absorb_of(self, later: RunningFactor) -> None:
        self._absorb(later.matrix)
