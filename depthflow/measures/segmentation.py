"""Phases of a dissimilarity matrix: how many, how sure, and against which null. Arrays in, arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthflow.kernels import segment

if TYPE_CHECKING:
    from collections.abc import Iterable

SAME = 1e-12
"""Dissimilarity below which two states differ by rounding; it counts as zero."""

INTERVAL = (2.5, 97.5)
"""Percentiles of resampled contrasts, the ends of a 95 % interval."""


class Segmentation(NamedTuple):
    """Phases of a sequence of blocks; positions count from 0."""

    starts: np.ndarray
    """The first block of each phase."""
    cut_weight: np.ndarray
    """Weight of the cut into 1, 2, … phases; NaN where bisection cannot reach that many."""
    contrast: float
    """Mean similarity within minus between phases."""
    reached: int
    """The largest number of phases that the method reached."""


def dissimilarity(similarity: np.ndarray) -> np.ndarray:
    """Return 1 − ``similarity`` with a zero diagonal, and zero where only rounding tells two states apart."""
    weight = 1.0 - similarity
    weight[np.abs(weight) <= SAME] = 0.0
    np.fill_diagonal(weight, 0.0)
    return weight


def number_of_phases(weight: np.ndarray, threshold: float, max_phases: int, min_size: int) -> int:
    """Return how many phases bisection makes until its heaviest cut falls to ``threshold`` of the total weight."""
    _, scores = segment.segment(weight, max_phases, min_size, True)
    heavy = np.diff(scores[0]) > threshold * weight.sum() / 2
    return 1 + int(np.argmin(np.append(heavy, False)))


def segmentation(weight: np.ndarray, n_phases: int, max_phases: int, min_size: int, nested: bool) -> Segmentation:
    """Return the phases of ``weight`` and the cut weights of up to ``max_phases``."""
    starts, scores = segment.segment(weight, max_phases, min_size, nested)
    reached = segment.reached(starts)
    k = min(n_phases, reached)
    return Segmentation(starts[k - 1, :k], scores[0], float(scores[1, k - 1]), reached)


def resampled(
    similarities: Iterable[np.ndarray], n_phases: int, min_size: int, nested: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of ``similarities`` in which a phase ends at each block, and their contrasts' interval."""
    contrasts, ends = [], []
    for similarity in similarities:
        found = segmentation(dissimilarity(similarity), n_phases, n_phases, min_size, nested)
        contrasts.append(found.contrast)
        is_end = np.zeros(len(similarity))
        is_end[found.starts - 1] = 1.0
        ends.append(is_end)
    return np.mean(ends, axis=0), np.percentile(contrasts, INTERVAL)


def shuffled(
    weight: np.ndarray, n_phases: int, min_size: int, nested: bool, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the contrasts of ``n`` random orders of the blocks, each segmented anew."""
    orders = rng.permuted(np.tile(np.arange(len(weight)), (n, 1)), axis=1)
    return segment.segment_shuffled(weight, orders, n_phases, min_size, nested)


def p_value(observed: float, null: np.ndarray) -> float:
    """Return (1 + the number of null contrasts ≥ ``observed``)/(1 + the number of nulls); NaN without a contrast."""
    if np.isnan(observed):
        return float("nan")
    return (1 + int(np.sum(null >= observed - SAME))) / (1 + len(null))
