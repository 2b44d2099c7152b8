"""The resultant kernels against plain NumPy, token by token and pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from depthflow.kernels import resultant
from tests.oracles import resultant as oracle
from tests.tolerances import EXACT, FLOAT64, SMALL_ANGLE

SHAPE = (3, 6, 7, 11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta", [0.0, 1.0, 9.0])
def test_resultants_and_energy(dtype: type, beta: float) -> None:
    states = np.random.default_rng(0).normal(0.3, 1.0, size=SHAPE).astype(dtype)
    expected = oracle.resultants(states, beta)
    result = resultant.resultants(states)
    for name in ("coherence", "update_coherence", "angle_to_mean"):
        assert_allclose(getattr(result, name), expected[name], **FLOAT64, err_msg=name)
    assert_allclose(result.norm, np.sqrt((states.astype(float) ** 2).sum(axis=-1)), **FLOAT64)
    energy = resultant.interaction_energy(states[1], result.norm[1], beta)
    assert_allclose(energy, expected["clusters_energy"][1], **FLOAT64)


def test_energy_in_several_blocks_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resultant, "GRAM_ROWS", 3)
    states = np.random.default_rng(1).normal(size=SHAPE)
    norm = np.linalg.norm(states, axis=-1)
    energy = resultant.interaction_energy(states[0], norm[0], 2.0)
    assert_allclose(energy, oracle.resultants(states[:1], 2.0)["clusters_energy"][0], **FLOAT64)


def test_angles_to_the_mean_of_nearly_equal_tokens() -> None:
    rng = np.random.default_rng(2)
    for spread in (1e-1, 1e-3, 1e-5, 1e-7):
        states = rng.normal(size=(3, 6, 1, 11)) + spread * rng.normal(size=SHAPE)
        expected = oracle.resultants(states, 1.0)["angle_to_mean"]
        assert_allclose(resultant.resultants(states).angle_to_mean, expected, **SMALL_ANGLE)


def test_states_and_updates_without_a_direction_give_nan_where_they_enter() -> None:
    states = np.random.default_rng(3).normal(size=SHAPE)
    states[0, 1, 2] = 0.0
    states[1, 3] = states[1, 2]
    result = resultant.resultants(states)
    assert np.argwhere(np.isnan(result.coherence)).tolist() == [[0, 1]]
    assert np.argwhere(np.isnan(result.angle_to_mean).all(axis=2)).tolist() == [[0, 1]]
    assert np.argwhere(np.isnan(result.update_coherence)).tolist() == [[1, 2]]
    energy = resultant.interaction_energy(states[0], result.norm[0], 1.0)
    assert np.argwhere(np.isnan(energy)).tolist() == [[1]]


def test_the_mean_of_opposite_tokens_has_no_direction() -> None:
    states = np.random.default_rng(4).normal(size=(1, 2, 1, 11))
    result = resultant.resultants(np.concatenate([states, -3 * states], axis=2))
    assert_allclose(result.coherence, 0.0, **FLOAT64)
    assert np.isnan(result.angle_to_mean).all()


def test_coherence_of_identical_tokens_is_not_above_one() -> None:
    states = np.repeat(np.random.default_rng(5).normal(size=(3, 6, 1, 11)), 7, axis=2)
    result = resultant.resultants(states)
    assert_allclose(result.coherence, 1.0, **FLOAT64)
    assert result.coherence.max() <= 1.0
    energy = resultant.interaction_energy(states[0], result.norm[0], 0.0)
    assert_allclose(energy, 1.0, **EXACT)
