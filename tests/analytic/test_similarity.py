"""Similarities known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

import depthflow
from tests.tolerances import EXACT, FLOAT64, STOCHASTIC

METRICS = ("cosine", "cka", "procrustes")


def test_cosine_of_a_rotation_is_the_cosine_of_the_angle_between():
    traj = depthflow.synthetic.rotation(angle=0.2)
    got = depthflow.similarity(traj, include_input=True)
    block = got.block.values
    np.testing.assert_allclose(got, np.cos(0.2 * (block[:, None] - block[None, :])), **FLOAT64)


def test_cosine_sees_no_rescaling_but_a_reversal():
    base = np.random.default_rng(0).normal(size=(3, 1, 7, 11))
    traj = depthflow.trajectory(base * np.array([1.0, 2.0, 0.1, -3.0])[:, None, None])
    expected = np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    np.testing.assert_allclose(depthflow.similarity(traj), expected, **FLOAT64)


@pytest.mark.parametrize("metric", ["cka", "procrustes"])
def test_a_rotation_a_shift_and_a_scaling_of_a_depth_are_not_seen(metric):
    rng = np.random.default_rng(1)
    base = rng.normal(size=(23, 11))
    depths = [base]
    for _ in range(3):
        turn = np.linalg.qr(rng.normal(size=(11, 11)))[0]
        depths.append(rng.uniform(0.1, 10) * base @ turn + rng.normal(size=11))
    traj = depthflow.trajectory(np.stack(depths, 1), dims=("sample", "depth", "feature"))
    got = depthflow.similarity(traj, metric=metric).values
    # The arccosine turns a rounding error of 1e-16 near one into the root of it.
    np.testing.assert_allclose(np.cos(np.pi / 2 * (1 - got)), 1.0, **FLOAT64)


def test_procrustes_of_one_against_two_equal_directions_is_an_eighth_turn():
    """Samples along one axis, then along that axis and another: ‖XᵀY‖_*/(‖X‖‖Y‖) = 1/√2, an angle of 45°."""
    first, second = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    nothing = np.zeros(4)
    states = np.stack([np.stack([first, nothing], 1), np.stack([first, nothing], 1), np.stack([first, second], 1)], 1)
    got = depthflow.similarity(depthflow.trajectory(states, dims=("sample", "depth", "feature")), metric="procrustes")
    np.testing.assert_allclose(got, [[1, 0.5], [0.5, 1]], **FLOAT64)


def test_cka_of_unrelated_states_is_zero_in_the_mean_however_many_features():
    """Plain CKA would be near one here: eight samples of forty features."""
    rng = np.random.default_rng(2)
    found = [
        depthflow.similarity(
            depthflow.trajectory(rng.normal(size=(8, 3, 40)), dims=("sample", "depth", "feature")), metric="cka"
        ).values[0, 1]
        for _ in range(300)
    ]
    np.testing.assert_allclose(np.mean(found), 0.0, **STOCHASTIC)


@pytest.mark.parametrize("metric", METRICS)
def test_symmetric_exactly_with_a_diagonal_of_ones(metric):
    states = np.random.default_rng(3).normal(size=(9, 6, 7, 11)).astype(np.float32)
    got = depthflow.similarity(depthflow.trajectory(states), metric=metric).values
    np.testing.assert_allclose(got, got.T, **EXACT)
    np.testing.assert_allclose(np.diag(got), 1.0, **EXACT)


@pytest.mark.parametrize("metric", ["cka", "procrustes"])
def test_a_sample_is_the_mean_of_its_tokens(metric):
    states = np.random.default_rng(4).normal(size=(9, 6, 7, 11))
    means = depthflow.trajectory(states.mean(2), dims=("sample", "depth", "feature"))
    got = depthflow.similarity(depthflow.trajectory(states), metric=metric)
    np.testing.assert_allclose(got, depthflow.similarity(means, metric=metric), **FLOAT64)
    assert got.attrs["states"] == "mean of the chosen tokens, one a sample"
