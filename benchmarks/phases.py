"""Optimal segmentation against ruptures' dynamic programme and the search through all segmentations."""

from __future__ import annotations

from itertools import combinations, islice
from math import comb

import numpy as np
from ruptures import Dynp
from ruptures.base import BaseCost

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, ratio, seconds
from depthflow.kernels import segment

SEARCHED = 1000
"""Segmentations that the exhaustive search weighs at most; its time for all follows from theirs."""

CALLS = 50
"""Calls of ours for one of theirs, so that microseconds can be timed."""


class WithinWeight(BaseCost):
    """The sum of a dissimilarity over the pairs of a segment, from prefix sums, as ruptures' costs are written."""

    model = "within"
    min_size = 1

    def fit(self, signal: np.ndarray) -> WithinWeight:
        """Take the dissimilarity (block, block)."""
        self.signal = signal
        self.prefix = np.zeros((len(signal) + 1, len(signal) + 1))
        self.prefix[1:, 1:] = signal.cumsum(0).cumsum(1)
        return self

    def error(self, start: int, end: int) -> float:
        """Return the cost of the segment [start, end)."""
        prefix = self.prefix
        return 0.5 * (prefix[end, end] - prefix[start, end] - prefix[end, start] + prefix[start, start])


def dynp(weight: np.ndarray, n_phases: int) -> list[int]:
    """Return ruptures' optimal ends."""
    return Dynp(custom_cost=WithinWeight(), min_size=1, jump=1).fit(weight).predict(n_bkps=n_phases - 1)


def exhaustive(weight: np.ndarray, n_phases: int, most: int | None = None) -> list[int]:
    """Return the ends of the heaviest cut, found by weighing them all, or only the first so many."""
    best, found = -np.inf, []
    for inner in islice(combinations(range(1, len(weight)), n_phases - 1), most):
        phase = np.searchsorted(inner, np.arange(len(weight)), side="right")
        cut = weight[phase[:, None] < phase[None, :]].sum()
        if cut > best:
            best, found = cut, [*inner, len(weight)]
    return found


def ours(weight: np.ndarray, n_phases: int) -> list[int]:
    """Return the kernel's optimal ends."""
    starts, _ = segment.segment(weight, n_phases, 1, False)
    return [*starts[n_phases - 1, 1:].tolist(), len(weight)]


def faster(call, theirs, repeats: int) -> float:
    """Return the time of one of theirs over the time of one of ours."""
    return CALLS / ratio(lambda: [call() for _ in range(CALLS)], theirs, repeats)


def rows(smoke: bool) -> Rows:
    """Yield the rows of the kernel, of the public call, and of a thousand blocks."""
    repeats = 1 if smoke else 7
    for blocks, n_phases, target in ((12, 4, 100.0), (20 if smoke else 200, 4, 300.0)):
        half = np.triu(np.random.default_rng(blocks).random((blocks, blocks)), 1)
        weight = half + half.T
        size = f"L={blocks}, k={n_phases}"
        expected = dynp(weight, n_phases)
        public = depthflow.phases(1 - weight, n_phases).boundary.values.tolist()
        if not expected == ours(weight, n_phases) == public:
            raise Disagreement(f"{size}: {expected}, {ours(weight, n_phases)}, {public}")
        peer = lambda weight=weight, n_phases=n_phases: dynp(weight, n_phases)  # noqa: E731
        kernel = lambda weight=weight, n_phases=n_phases: segment.segment(weight, n_phases, 1, False)  # noqa: E731
        yield Row("phases, kernel", size, "ruptures Dynp", faster(kernel, peer, repeats), target, True, "same")
        call = lambda weight=weight, n_phases=n_phases: depthflow.phases(1 - weight, n_phases)  # noqa: E731
        yield Row("phases, public call", size, "ruptures Dynp", faster(call, peer, repeats), None, True, "same")
        every = comb(blocks - 1, n_phases - 1)
        weighed = min(every, SEARCHED)
        if weighed == every and exhaustive(weight, n_phases) != expected:
            raise Disagreement(f"{size}: {exhaustive(weight, n_phases)} against {expected}")
        search = lambda weight=weight, n_phases=n_phases: exhaustive(weight, n_phases, SEARCHED)  # noqa: E731
        against = "exhaustive search" if weighed == every else f"exhaustive search, {weighed} of {every} timed"
        times = faster(kernel, search, repeats) * every / weighed
        yield Row("phases, kernel", size, against, times, 1000.0, True, "same")
    blocks = 100 if smoke else 1000
    weight = np.ones((blocks, blocks))
    took = min(seconds(lambda: segment.segment(weight, 10, 1, False)) for _ in range(3))
    yield Row("phases, kernel", f"L={blocks}, k=10", "0.1 s", 0.1 / took, None, True, "time only")
