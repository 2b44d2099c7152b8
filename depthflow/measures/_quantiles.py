"""Quantiles of values that come part by part, in memory that grows with the logarithm of their number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

BUFFER = 512
"""Values a level holds at most: all that came, while they are no more than this."""

CONFIDENCE = 0.99
"""Probability with which a quantile's rank is within :attr:`Sketch.rank_error` of the one that was asked for."""


class Sketch:
    """A compactor sketch (Karnin, Lang & Liberty 2016, arXiv:1603.05346) of the values of each of several cells.

    A value at level h stands for 2ʰ values. A level that holds more than ``BUFFER`` is sorted, and every second of its
    values, from a random offset on, goes up a level: the rank of any number among them is kept in expectation, and
    changes by no more than 2ʰ. All cells have seen equally many values, so that they are worked on at once. NaN counts
    as larger than every number.

    Parameters
    ----------
    cells : int
        How many quantities are followed.
    seed : int
        Of the offsets.
    """

    def __init__(self, cells: int, seed: int) -> None:
        self.cells = cells
        self._levels = [np.empty((cells, 0))]
        self._rng = np.random.default_rng(seed)
        self._variance = 0.0
        self.count = 0
        """Values seen of each cell."""

    def add(self, values: np.ndarray) -> None:
        """Take in ``values`` (cell, value)."""
        self.count += values.shape[1]
        self._put(0, values)

    def merge(self, later: Sketch) -> None:
        """Take in all that ``later`` saw, of the same cells."""
        self.count += later.count
        self._variance += later._variance
        for level, values in enumerate(later._levels):
            self._put(level, values)

    def _put(self, level: int, values: np.ndarray) -> None:
        """Add ``values`` to a level, and pass half of a full one on."""
        if level == len(self._levels):
            self._levels.append(np.empty((len(values), 0)))
        held = np.concatenate([self._levels[level], values], axis=1)
        if held.shape[1] <= BUFFER:
            self._levels[level] = held
            return
        held.sort(axis=1)
        paired = held.shape[1] - held.shape[1] % 2
        # An odd one out stays; a copy, as a view would hold on to all.
        self._levels[level] = held[:, paired:].copy()
        self._variance += 4.0**level
        self._put(level + 1, held[:, int(self._rng.integers(2)) : paired : 2])

    @property
    def rank_error(self) -> float:
        """How far the rank of a quantile may be from the one asked for, as a share of all values; 0 if it is exact.

        It is Hoeffding's bound on the sum of the compactions' errors, each of which is at most the weight of its
        level and zero in expectation: it holds with probability ``CONFIDENCE`` for any one quantile. Level h is passed
        on at most count/(2ʰ·513) times, so it is never above √(2·ln 200)·√2/513 = 0.009.
        """
        return math.sqrt(2 * math.log(2 / (1 - CONFIDENCE)) * self._variance) / max(1, self.count)

    def quantiles(self, shares: Sequence[float]) -> np.ndarray:
        """Return the quantiles (share, cell), by linear interpolation as NumPy's are while nothing was passed on."""
        values = np.concatenate(self._levels, axis=1)
        weight = np.concatenate([np.full(level.shape[1], 2.0**at) for at, level in enumerate(self._levels)])
        order = np.argsort(values, axis=1)
        values, weights = np.take_along_axis(values, order, axis=1), weight[order]
        # The middle of the ranks, counted from 0, of the values that each stands for.
        middle = np.cumsum(weights, axis=1) - (weights + 1) / 2
        found = np.empty((len(shares), len(values)))
        for at, share in enumerate(shares):
            rank = share * (self.count - 1)
            above = np.minimum((middle < rank).sum(axis=1), values.shape[1] - 1)
            below = np.maximum(above - (above > 0), 0)
            rows = np.arange(len(values))
            span = middle[rows, above] - middle[rows, below]
            part = np.clip((rank - middle[rows, below]) / np.where(span > 0, span, 1.0), 0.0, 1.0)
            low, high = values[rows, below], values[rows, above]
            # Not low + 1·(high − low), which is NaN where only one of the two is and takes no part.
            found[at] = np.where(part == 0, low, np.where(part == 1, high, low + part * (high - low)))
        return found
