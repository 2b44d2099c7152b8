"""Coherence where its answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import depthflow
from tests.tolerances import FLOAT64, STOCHASTIC

SAMPLES, DEPTHS, TOKENS, FEATURES = 3, 6, 7, 11


def test_identical_directions_are_fully_coherent() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(SAMPLES, DEPTHS, 1, FEATURES))
    traj = depthflow.trajectory(directions * rng.uniform(0.5, 2.0, size=(SAMPLES, DEPTHS, TOKENS, 1)))
    result = depthflow.coherence(traj, tokens=None, beta=4.0)
    assert_allclose(result.coherence, 1.0, **FLOAT64)
    assert_allclose(result.clusters_energy, 1.0, **FLOAT64)
    assert_allclose(result.angle_to_mean, 0.0, **FLOAT64)


def test_the_same_update_of_every_token() -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=(SAMPLES, 1, TOKENS, FEATURES))
    shared = np.cumsum(rng.normal(size=(SAMPLES, DEPTHS, 1, FEATURES)), axis=1)
    result = depthflow.coherence(depthflow.trajectory(start + shared), tokens=None)
    assert_allclose(result.update_coherence, 1.0, **FLOAT64)
    assert (result.coherence < 1).all()


def test_orthogonal_tokens() -> None:
    states = np.broadcast_to(np.eye(TOKENS, FEATURES), (SAMPLES, DEPTHS, TOKENS, FEATURES))
    drift = np.arange(1.0, DEPTHS + 1)[:, np.newaxis, np.newaxis]
    result = depthflow.coherence(depthflow.trajectory(states * drift), tokens=None, beta=2.0)
    assert_allclose(result.coherence, TOKENS**-0.5, **FLOAT64)
    assert_allclose(result.update_coherence, TOKENS**-0.5, **FLOAT64)
    assert_allclose(result.angle_to_mean, np.arccos(TOKENS**-0.5), **FLOAT64)
    assert_allclose(result.clusters_energy, (1 + (TOKENS - 1) * np.exp(-2.0)) / TOKENS, **FLOAT64)


@pytest.mark.parametrize("half", [1e-4, 0.3, 1.2])
def test_two_tokens_at_a_given_angle(half: float) -> None:
    """Each lies at half their angle from the mean, whose length is the cosine of that half."""
    tokens = np.array([[np.cos(half), np.sin(half)], [np.cos(half), -np.sin(half)]])
    result = depthflow.coherence(depthflow.trajectory(np.stack([tokens, 2 * tokens])[np.newaxis]), tokens=None)
    assert_allclose(result.coherence, np.cos(half), **FLOAT64)
    assert_allclose(result.angle_to_mean, half, **FLOAT64)
    assert_allclose(result.clusters_energy, (1 + np.exp(np.cos(2 * half) - 1)) / 2, **FLOAT64)


def test_isotropic_tokens_have_a_mean_square_of_one_over_their_number() -> None:
    states = np.random.default_rng(2).normal(size=(400, 2, TOKENS, FEATURES))
    result = depthflow.coherence(depthflow.trajectory(states), tokens=None)
    assert_allclose((result.coherence**2).mean("sample"), 1 / TOKENS, **STOCHASTIC)
    assert_allclose((result.update_coherence**2).mean("sample"), 1 / TOKENS, **STOCHASTIC)


def test_one_token_is_coherent_with_itself() -> None:
    states = np.random.default_rng(3).normal(size=(SAMPLES, DEPTHS, 1, FEATURES))
    result = depthflow.coherence(depthflow.trajectory(states, token_type="patch"))
    for name in ("coherence", "update_coherence", "clusters_energy"):
        assert_allclose(result[name], 1.0, **FLOAT64, err_msg=name)
    assert_allclose(result.angle_to_mean, 0.0, **FLOAT64)


def test_energy_without_interaction_is_one() -> None:
    states = np.random.default_rng(4).normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES))
    assert_allclose(
        depthflow.coherence(depthflow.trajectory(states), tokens=None, beta=0).clusters_energy, 1.0, **FLOAT64
    )
