"""Phases that are known, and what must hold of any."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import depthflow
from tests.oracles import segment as oracle
from tests.tolerances import EXACT, FLOAT64

METHODS = ("optimal", "bisection")


def block_diagonal(lengths, between=0.0):
    phase = np.repeat(np.arange(len(lengths)), lengths)
    return np.where(phase[:, None] == phase[None, :], 1.0, between)


def random_similarity(blocks, seed):
    half = np.triu(np.random.default_rng(seed).uniform(-1, 1, size=(blocks, blocks)), 1)
    return half + half.T + np.eye(blocks)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lengths", [(5, 4, 3), (1, 6), (2, 2, 2, 2), (7, 1, 1)])
def test_a_block_diagonal_similarity_is_recovered_exactly(method, lengths):
    similarity = block_diagonal(lengths, between=0.3)
    for n_phases in (len(lengths), None):
        got = depthflow.phases(similarity, n_phases, method=method, threshold=0.05)
        np.testing.assert_array_equal(got.phase, np.repeat(np.arange(1, len(lengths) + 1), lengths))
        np.testing.assert_array_equal(got.boundary, np.cumsum(lengths))
        np.testing.assert_allclose(got.contrast, 0.7, **FLOAT64)
    weight = 1 - similarity
    np.fill_diagonal(weight, 0)
    most = oracle.cut_weight(weight, tuple(np.cumsum(lengths)))
    np.testing.assert_allclose(got.cut_weight.sel(n_phases=len(lengths)), most, **FLOAT64)


@pytest.mark.parametrize("method", METHODS)
def test_a_phased_trajectory_is_recovered(method):
    traj = depthflow.synthetic.phased_depth(lengths=(5, 4, 3))
    got = depthflow.phases(traj, method=method, n_boot=30, n_null=99)
    assert got.boundary.values.tolist() == [5, 9, 12]
    assert got.p_value.item() == 0.01
    assert got.contrast_low <= got.contrast <= got.contrast_high
    np.testing.assert_array_equal(got.boundary_probability, np.isin(got.block, [5, 9, 12]).astype(float))


@pytest.mark.parametrize("blocks", range(2, 10))
def test_optimal_is_the_best_of_all_segmentations(blocks):
    similarity = random_similarity(blocks, blocks)
    weight = 1 - similarity
    for n_phases in range(1, blocks + 1):
        expected, heaviest = oracle.best(weight, n_phases, 1)
        got = depthflow.phases(similarity, n_phases)
        assert tuple(got.boundary.values) == expected
        np.testing.assert_allclose(got.cut_weight.sel(n_phases=n_phases), heaviest, **FLOAT64)
        np.testing.assert_allclose(got.contrast, oracle.contrast(similarity, expected), **FLOAT64)


@pytest.mark.parametrize("seed", range(5))
def test_reversed_depth_has_the_reversed_phases(seed):
    similarity = random_similarity(11, seed)
    for method in METHODS:
        forth = depthflow.phases(similarity, 4, method=method, min_size=2)
        back = depthflow.phases(similarity[::-1, ::-1], 4, method=method, min_size=2)
        np.testing.assert_array_equal(5 - back.phase[::-1], forth.phase)
        np.testing.assert_allclose(back.contrast, forth.contrast, **FLOAT64)


@pytest.mark.parametrize("seed", range(5))
def test_scaling_the_dissimilarity_changes_no_phase(seed):
    similarity = random_similarity(9, seed)
    for method in METHODS:
        plain, scaled = (depthflow.phases(s, method=method) for s in (similarity, 1 - 3 * (1 - similarity)))
        np.testing.assert_array_equal(plain.phase, scaled.phase)
        np.testing.assert_allclose(3 * plain.cut_weight, scaled.cut_weight, **FLOAT64)
        np.testing.assert_allclose(3 * plain.contrast, scaled.contrast, **FLOAT64)


def test_a_constant_between_all_blocks_changes_the_contrast_of_no_segmentation():
    similarity = random_similarity(9, 0)
    shifted = similarity + 0.3 * (1 - np.eye(9))
    for n_phases in (2, 3):
        plain, moved = (depthflow.phases(s, n_phases) for s in (similarity, shifted))
        ends = tuple(moved.boundary.values)
        np.testing.assert_allclose(moved.contrast, oracle.contrast(similarity, ends), **FLOAT64)
        assert plain.cut_weight.sel(n_phases=n_phases) > moved.cut_weight.sel(n_phases=n_phases)


def test_bisection_is_nested_and_never_heavier_than_the_optimum():
    similarity = random_similarity(12, 1)
    found = [depthflow.phases(similarity, k, method="bisection", max_phases=12) for k in range(1, 13)]
    for fewer, more in pairwise(found):
        assert set(fewer.boundary.values) < set(more.boundary.values)
    optimal = depthflow.phases(similarity, 1, max_phases=12)
    assert (found[0].cut_weight <= optimal.cut_weight + 1e-12).all()
    np.testing.assert_allclose(found[0].cut_weight[[0, 1, 11]], optimal.cut_weight[[0, 1, 11]], **FLOAT64)


def test_gain_is_the_step_of_the_cut_weight():
    got = depthflow.phases(random_similarity(12, 2), 3)
    assert got.n_phases.values.tolist() == list(range(1, 11))
    np.testing.assert_allclose(got.gain[1:], np.diff(got.cut_weight), **FLOAT64)
    np.testing.assert_allclose([got.gain[0], got.cut_weight[0]], 0.0, **EXACT)


def test_the_threshold_is_a_share_of_the_total_weight():
    """Two phases far apart hold 9 of 11 units; each splits once more for 1 unit: cuts of 9/11, then twice 1/11."""
    weight = np.zeros((4, 4))
    weight[:2, 2:] = 9 / 4
    weight[0, 1] = weight[2, 3] = 1.0
    similarity = 1 - weight - weight.T
    for threshold, n_phases in ((0.0, 4), (0.09, 4), (0.0910, 2), (0.5, 2), (0.82, 1)):
        for method in METHODS:
            assert depthflow.phases(similarity, method=method, threshold=threshold).sizes["phase"] == n_phases
    assert depthflow.phases(similarity, threshold=0.0, max_phases=3).sizes["phase"] == 3


def test_states_that_are_all_alike_are_one_phase_whatever_the_rounding():
    states = np.tile(np.random.default_rng(3).normal(size=(5, 1, 7, 11)), (1, 9, 1, 1))
    states *= np.random.default_rng(4).uniform(0.5, 2, size=(1, 9, 1, 1))
    got = depthflow.phases(depthflow.trajectory(states), threshold=0.0, n_null=5, n_boot=5)
    assert got.phase.values.tolist() == [1] * 8
    assert np.isnan(got.contrast)
    assert np.isnan(got.p_value)
    assert np.isnan(got.contrast_low)


def test_a_phase_a_block_has_no_pair_within():
    got = depthflow.phases(random_similarity(5, 3), 5)
    assert got.boundary.values.tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(got.contrast)
    assert got.contrast.dims == ()


def test_min_size_holds_everywhere():
    similarity = random_similarity(11, 4)
    for min_size in (2, 3, 5):
        got = depthflow.phases(similarity, 2, min_size=min_size)
        assert np.diff(got.boundary.values, prepend=0).min() >= min_size
        assert got.sizes["n_phases"] == 11 // min_size


def test_bisection_says_where_it_has_no_room():
    """Six blocks halve into three and three, which cannot be halved into twos again."""
    similarity = block_diagonal((3, 3))
    got = depthflow.phases(similarity, method="bisection", min_size=2)
    np.testing.assert_array_equal(np.isnan(got.cut_weight), [False, False, True])
    assert depthflow.phases(similarity, 3, min_size=2).boundary.values.tolist() == [2, 4, 6]


def test_the_null_of_unordered_depth_is_not_beaten():
    """The similarity of blocks that carry no order: p-values of fair draws are spread evenly."""
    p_values = [
        depthflow.phases(random_similarity(8, seed), 3, n_null=39, seed=seed).p_value.item() for seed in range(80)
    ]
    assert 0.35 < np.mean(p_values) < 0.65
    assert min(p_values) >= 1 / 40
    assert np.mean(np.array(p_values) <= 0.1) < 0.25
