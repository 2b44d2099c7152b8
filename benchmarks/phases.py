"""Optimal segmentation against ruptures' dynamic programme and the published exhaustive search."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ruptures import Dynp
from ruptures.base import BaseCost

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, ratio, seconds
from depthflow.kernels import segment

if TYPE_CHECKING:
    from collections.abc import Callable

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


def exhaustive(weight: np.ndarray, n_phases: int) -> list[int]:
    """Return the ends that the published search finds (arXiv:2512.19941).

    It splits a group of blocks in two by weighing every way to share them out, contiguous or not, and splits again the
    group whose best cut weighs most.
    """
    groups = [np.arange(len(weight))]
    while len(groups) < n_phases:
        cuts = [_heaviest_cut(weight[np.ix_(group, group)]) for group in groups]
        widest = int(np.argmax([cut for cut, _ in cuts]))
        group, other = groups[widest], cuts[widest][1]
        groups[widest : widest + 1] = [group[~other], group[other]]
    return sorted(int(group.max()) + 1 for group in groups)


def _heaviest_cut(weight: np.ndarray) -> tuple[float, np.ndarray]:
    best, found = -np.inf, np.zeros(len(weight), dtype=bool)
    for rest in product([False, True], repeat=len(weight) - 1):
        other = np.array([False, *rest])
        cut = weight[other[:, None] != other].sum() / 2
        if cut > best:
            best, found = cut, other
    return best, found


def phased(lengths: tuple[int, ...]) -> np.ndarray:
    """Return a dissimilarity (block, block) with clear phases of these lengths, and a little noise."""
    phase = np.repeat(np.arange(len(lengths)), lengths)
    half = np.triu((phase[:, None] != phase) + 0.01 * np.random.default_rng(0).random((len(phase), len(phase))), 1)
    return half + half.T


def ours(weight: np.ndarray, n_phases: int) -> list[int]:
    """Return the kernel's optimal ends."""
    starts, _ = segment.segment(weight, n_phases, 1, False)
    return [*starts[n_phases - 1, 1:].tolist(), len(weight)]


def faster(call: Callable[[], object], theirs: Callable[[], object], repeats: int) -> float:
    """Return the time of one of theirs over the time of one of ours."""
    return CALLS / ratio(lambda: [call() for _ in range(CALLS)], theirs, repeats)


def rows(smoke: bool) -> Rows:
    """Yield the rows of the kernel, of the public call, and of a thousand blocks."""
    repeats = 1 if smoke else 7
    clear = phased((2, 2, 1, 1) if smoke else (4, 3, 3, 2))
    half = np.triu(np.random.default_rng(200).random((200, 200)), 1)
    noise = (half + half.T)[: (20 if smoke else 200), : (20 if smoke else 200)]
    cases = [
        ("ruptures Dynp", dynp, clear, 100.0),
        ("ruptures Dynp", dynp, noise, 300.0),
        ("the published exhaustive search", exhaustive, clear, 1000.0),
    ]
    for against, search, weight, target in cases:
        size = f"L={len(weight)}, k=4"
        expected = search(weight, 4)
        public = depthflow.phases(1 - weight, 4).boundary.values.tolist()
        if not expected == ours(weight, 4) == public:
            raise Disagreement(f"{size}: {expected}, {ours(weight, 4)}, {public}")
        peer = partial(search, weight, 4)
        kernel = faster(partial(segment.segment, weight, 4, 1, False), peer, repeats)
        yield Row("phases, kernel", size, against, kernel, target, True, "same boundaries")
        call = faster(partial(depthflow.phases, 1 - weight, 4), peer, repeats)
        yield Row("phases, public call", size, against, call, None, True, "same boundaries")
    blocks = 100 if smoke else 1000
    weight = np.ones((blocks, blocks))
    took = min(seconds(lambda: segment.segment(weight, 10, 1, False)) for _ in range(3))
    yield Row("phases, kernel, seconds", f"L={blocks}, k=10", "–", took, None, False, "time only")
