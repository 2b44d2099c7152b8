"""The segmentation kernels against all segmentations, and the recursion."""

from __future__ import annotations

import numpy as np
import pytest

from depthflow.kernels import segment
from tests.oracles import segment as oracle
from tests.tolerances import FLOAT64


def dissimilarity(blocks: int, seed: int) -> np.ndarray:
    half = np.triu(np.random.default_rng(seed).random((blocks, blocks)), 1)
    return half + half.T


def ends(starts: np.ndarray, blocks: int) -> tuple[int, ...]:
    return (*starts[1:].tolist(), blocks)


@pytest.mark.parametrize("blocks", range(1, 10))
@pytest.mark.parametrize("min_size", [1, 2, 3])
def test_optimal_is_the_best_of_all(blocks, min_size):
    weight = dissimilarity(blocks, blocks)
    room = blocks // min_size
    if room == 0:
        return
    starts, (cut_weight, _) = segment.segment(weight, room, min_size, False)
    for k in range(1, room + 1):
        expected, heaviest = oracle.best(weight, k, min_size)
        assert ends(starts[k - 1, :k], blocks) == expected
        np.testing.assert_allclose(cut_weight[k - 1], heaviest, **FLOAT64)
        assert (starts[k - 1, k:] == -1).all()


@pytest.mark.parametrize("blocks", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("min_size", [1, 2, 3])
def test_bisection_is_the_recursion(blocks, min_size):
    weight = dissimilarity(blocks, blocks)
    starts, (cut_weight, _) = segment.segment(weight, max(1, blocks // min_size), min_size, True)
    expected = oracle.bisected(weight, max(1, blocks // min_size), min_size)
    assert segment.reached(starts) == len(expected)
    for k, found in enumerate(expected, 1):
        assert ends(starts[k - 1, :k], blocks) == found
        np.testing.assert_allclose(cut_weight[k - 1], oracle.cut_weight(weight, found), **FLOAT64)
    assert np.isnan(cut_weight[len(expected) :]).all()


@pytest.mark.parametrize("nested", [False, True])
def test_ties_go_to_the_smallest_boundary(nested):
    starts, _ = segment.segment(np.ones((6, 6)) * 0, 4, 1, nested)
    assert starts[3].tolist() == [0, 1, 2, 3]


def test_contrast_follows_its_definition():
    weight = dissimilarity(8, 1)
    for found in oracle.segmentations(8, 3, 1):
        starts = np.array([0, *found[:-1]])
        got = segment.contrast(segment.within_sums(weight), starts)
        np.testing.assert_allclose(got, oracle.contrast(1 - weight, found), **FLOAT64)


@pytest.mark.parametrize("nested", [False, True])
def test_shuffles_are_segmented_anew(nested):
    weight = dissimilarity(7, 2)
    orders = np.array([np.random.default_rng(seed).permutation(7) for seed in range(5)])
    got = segment.segment_shuffled(weight, orders, 3, 2, nested)
    for order, contrast in zip(orders, got, strict=True):
        permuted = weight[np.ix_(order, order)]
        found = oracle.bisected(permuted, 3, 2)[-1] if nested else oracle.best(permuted, 3, 2)[0]
        np.testing.assert_allclose(contrast, oracle.contrast(1 - permuted, found), **FLOAT64)
