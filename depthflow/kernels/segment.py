"""Cut a sequence into contiguous phases so that the dissimilarity within them is least.

W is a symmetric dissimilarity (block, block); its diagonal is not read. The weight of a cut is the sum of W over the
pairs that it separates, so the heaviest cut leaves the least sum within phases. Positions count from 0, and a phase is
named by its first block. Ties go to the smallest boundary.
"""

from __future__ import annotations

import math

import numpy as np

from depthflow.kernels._compile import kernel


@kernel()
def within_sums(dissimilarity: np.ndarray) -> np.ndarray:
    """Return ``sums[last, first]``: Σ_{i<j} W_ij over the blocks from ``first`` to ``last``; zero elsewhere."""
    size = len(dissimilarity)
    sums = np.zeros((size, size))
    for last in range(1, size):
        added = 0.0
        for first in range(last - 1, -1, -1):
            added += dissimilarity[last, first]
            sums[last, first] = sums[last - 1, first] + added
    return sums


@kernel()
def optimal(sums: np.ndarray, n_phases: int, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each number of phases k = 1…``n_phases`` the heaviest cut into phases of at least ``min_size``.

    Dynamic programming over the last phase, O(block²·n_phases) time.

    Returns
    -------
    starts : numpy.ndarray
        (k, phase), the first block of each phase in row k − 1, −1 beyond the kth.
    cut_weight : numpy.ndarray
        (k,), total weight less what is left within phases.
    """
    size = len(sums)
    best, start = np.empty((n_phases, size)), np.zeros((n_phases, size), np.int64)
    best[0] = sums[:, 0]
    for k in range(1, n_phases):
        for last in range((k + 1) * min_size - 1, size):
            least, chosen = math.inf, k * min_size
            for first in range(k * min_size, last - min_size + 2):
                total = best[k - 1, first - 1] + sums[last, first]
                if total < least:
                    least, chosen = total, first
            best[k, last], start[k, last] = least, chosen
    starts, cut_weight = np.full((n_phases, n_phases), -1), np.empty(n_phases)
    for k in range(n_phases):
        last = size - 1
        for phase in range(k, -1, -1):
            starts[k, phase] = start[phase, last]
            last = start[phase, last] - 1
        cut_weight[k] = sums[size - 1, 0] - best[k, size - 1]
    return starts, cut_weight


@kernel()
def bisection(sums: np.ndarray, n_phases: int, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nested phases: next is always split the phase whose heaviest cut in two weighs most.

    Returns
    -------
    starts, cut_weight : numpy.ndarray
        As of :func:`optimal`; a number of phases that cannot be reached with ``min_size`` has starts −1 and weight NaN.
    """
    size = len(sums)
    starts, cut_weight = np.full((n_phases, n_phases), -1), np.full(n_phases, math.nan)
    phase, weight, place = np.empty(n_phases + 1, np.int64), np.empty(n_phases), np.empty(n_phases, np.int64)
    phase[0], phase[1] = 0, size
    weight[0], place[0] = heaviest_cut(sums, 0, size - 1, min_size)
    starts[0, 0], cut_weight[0] = 0, 0.0
    for k in range(1, n_phases):
        split = np.argmax(weight[:k])
        if weight[split] == -math.inf:
            break
        cut_weight[k] = cut_weight[k - 1] + weight[split]
        phase[split + 2 : k + 2] = phase[split + 1 : k + 1].copy()
        weight[split + 1 : k + 1] = weight[split:k].copy()
        place[split + 1 : k + 1] = place[split:k].copy()
        phase[split + 1] = place[split]
        for part in (split, split + 1):
            weight[part], place[part] = heaviest_cut(sums, phase[part], phase[part + 1] - 1, min_size)
        starts[k, : k + 1] = phase[: k + 1]
    return starts, cut_weight


@kernel()
def heaviest_cut(sums: np.ndarray, first: int, last: int, min_size: int) -> tuple[float, int]:
    """Return the weight of the heaviest cut in two of the blocks ``first`` to ``last``, and its second part's start.

    Both parts hold at least ``min_size`` blocks; the weight is −inf where there is no room.
    """
    heaviest, place = -math.inf, -1
    for start in range(first + min_size, last - min_size + 2):
        weight = sums[last, first] - sums[start - 1, first] - sums[last, start]
        if weight > heaviest:
            heaviest, place = weight, start
    return heaviest, place


@kernel()
def contrast(sums: np.ndarray, starts: np.ndarray) -> float:
    """Return mean dissimilarity between phases minus within, over pairs of blocks; NaN where either has no pair."""
    size = len(sums)
    within, pairs = 0.0, 0
    for phase in range(len(starts)):
        stop = starts[phase + 1] if phase + 1 < len(starts) else size
        within += sums[stop - 1, starts[phase]]
        pairs += (stop - starts[phase]) * (stop - starts[phase] - 1) // 2
    apart = size * (size - 1) // 2 - pairs
    if pairs == 0 or apart == 0:
        return math.nan
    difference: float = (sums[size - 1, 0] - within) / apart - within / pairs
    return difference


@kernel()
def segment(dissimilarity: np.ndarray, n_phases: int, min_size: int, nested: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the phases for each number k = 1…``n_phases`` of them, and how well they part the blocks.

    Returns
    -------
    starts : numpy.ndarray
        (k, phase), those of :func:`bisection` where ``nested``, else of :func:`optimal`.
    scores : numpy.ndarray
        (2, k): the weight of the cut, and the contrast.
    """
    sums = within_sums(dissimilarity)
    scores = np.empty((2, n_phases))
    if nested:
        starts, scores[0] = bisection(sums, n_phases, min_size)
    else:
        starts, scores[0] = optimal(sums, n_phases, min_size)
    for k in range(n_phases):
        scores[1, k] = contrast(sums, starts[k, : k + 1]) if starts[k, 0] == 0 else math.nan
    return starts, scores


@kernel()
def segment_shuffled(
    dissimilarity: np.ndarray, orders: np.ndarray, n_phases: int, min_size: int, nested: bool
) -> np.ndarray:
    """Return the contrast of ``n_phases`` phases under each order (shuffle, block) of the blocks.

    Where bisection cannot reach that many, the contrast is that of the most phases it reaches.
    """
    size = len(dissimilarity)
    out, permuted = np.empty(len(orders)), np.empty((size, size))
    for shuffle in range(len(orders)):
        for i in range(size):
            for j in range(size):
                permuted[i, j] = dissimilarity[orders[shuffle, i], orders[shuffle, j]]
        starts, scores = segment(permuted, n_phases, min_size, nested)
        out[shuffle] = scores[1, reached(starts) - 1]
    return out


@kernel()
def reached(starts: np.ndarray) -> int:
    """Return the largest number of phases that ``starts`` (k, phase) holds."""
    most = 0
    for k in range(len(starts)):
        if starts[k, 0] == 0:
            most = k + 1
    return most
