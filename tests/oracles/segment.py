"""Segmentations by trying all of them, and the recursion written as a recursion."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np


def cut_weight(weight: np.ndarray, ends: tuple[int, ...]) -> float:
    """Return the sum of ``weight`` over pairs of blocks in different phases; ``ends`` are one past each last block."""
    phase = np.searchsorted(ends, np.arange(len(weight)), side="right")
    return sum(weight[i, j] for i, j in combinations(range(len(weight)), 2) if phase[i] != phase[j])


def segmentations(blocks: int, n_phases: int, min_size: int) -> list[tuple[int, ...]]:
    """Return the ends of every segmentation, in the order of their boundaries."""
    every = [(*inner, blocks) for inner in combinations(range(1, blocks), n_phases - 1)]
    return [ends for ends in every if min(b - a for a, b in pairwise((0, *ends))) >= min_size]


def best(weight: np.ndarray, n_phases: int, min_size: int) -> tuple[tuple[int, ...], float]:
    """Return the segmentation of the heaviest cut by trying all, the first of equals."""
    found = max(segmentations(len(weight), n_phases, min_size), key=lambda ends: cut_weight(weight, ends))
    return found, cut_weight(weight, found)


def bisected(weight: np.ndarray, n_phases: int, min_size: int) -> list[tuple[int, ...]]:
    """Return the ends after each split of the phase whose best cut in two weighs most, until there is no room."""
    found = [(len(weight),)]
    while len(found) < n_phases:
        ends = found[-1]
        cuts = [
            (weight[start:cut, cut:stop].sum(), -cut)
            for start, stop in pairwise((0, *ends))
            for cut in range(start + min_size, stop - min_size + 1)
        ]
        if not cuts:
            break
        found.append(tuple(sorted({*ends, -max(cuts)[1]})))
    return found


def contrast(similarity: np.ndarray, ends: tuple[int, ...]) -> float:
    """Return mean similarity of pairs of blocks within phases minus between."""
    phase = np.searchsorted(ends, np.arange(len(similarity)), side="right")
    within = [similarity[i, j] for i, j in combinations(range(len(phase)), 2) if phase[i] == phase[j]]
    between = [similarity[i, j] for i, j in combinations(range(len(phase)), 2) if phase[i] != phase[j]]
    return float(np.mean(within) - np.mean(between)) if within and between else float("nan")
