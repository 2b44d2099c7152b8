"""dmd against the stacked least-squares problem, its errors path by path, and NumPy's eigenvectors."""

from __future__ import annotations

import numpy as np
import pytest

import depthflow
from depthflow.measures import _linear_maps
from tests.oracles import dmd as oracle
from tests.tolerances import EXACT, FLOAT32, FLOAT64

TYPES = ["cls"] + ["patch"] * 6
SETTINGS = [{}, {"ridge": 0.03}, {"rank": 4}, {"rank": 4, "ridge": 0.03}, {"rank": 11}]


def smooth(seed: int, samples: int = 9) -> np.ndarray:
    """Return states (sample, depth, token, feature) that drift, on features of unlike size."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(samples, 6, 7, 11)) * np.geomspace(1, 0.1, 11)
    return np.cumsum(steps, axis=1)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_operator_is_that_of_stacked_least_squares(settings):
    states = smooth(0)
    result = depthflow.dmd(depthflow.trajectory(states), **settings)
    expected = oracle.least_squares(*oracle.pairs(states, 1, range(5)), **settings)
    np.testing.assert_allclose(result.operator, expected, **FLOAT64)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("held_out", [False, True])
def test_errors_are_those_of_each_path_by_itself(settings, held_out):
    states, others = smooth(1), smooth(2, samples=3)
    traj = depthflow.trajectory(states, token_type=TYPES)
    judged = others if held_out else states
    test = depthflow.trajectory(others, token_type=TYPES) if held_out else None
    result = depthflow.dmd(traj, test=test, **settings)
    assert result.attrs["held_out"] == held_out
    expected = oracle.errors(judged, states, TYPES, **settings)
    assert len(expected) == 4 * 5 * 2
    for (name, horizon, kind), value in expected.items():
        np.testing.assert_allclose(result[name].sel(horizon=horizon, token_type=kind), value, **FLOAT64)
    np.testing.assert_allclose(result.skill, 1 - (result.error / result.error_identity) ** 2, **FLOAT64)


@pytest.mark.parametrize("span", [(0, 5), (1, 4), (4, 5)])
def test_eigenvalues_modes_and_amplitudes(span):
    states = smooth(3, samples=20)
    result = depthflow.dmd(depthflow.trajectory(states), span=span)
    inside = states[:, span[0] : span[1] + 1]
    operator = oracle.least_squares(*oracle.pairs(inside, 1, range(span[1] - span[0])))
    values, amplitude = oracle.amplitudes(operator, inside[:, 0].reshape(-1, 11))
    order = oracle.in_order_of(result.eigenvalue.values, values)
    np.testing.assert_allclose(result.eigenvalue, values[order], **FLOAT64)
    np.testing.assert_allclose(result.amplitude, amplitude[order], **FLOAT64)
    np.testing.assert_allclose(result.growth, np.log(np.abs(values[order])), **FLOAT64)
    np.testing.assert_allclose(np.abs(result.frequency), np.abs(np.angle(values[order])), **FLOAT64)


@pytest.mark.parametrize("settings", SETTINGS)
def test_modes_are_unit_eigenvectors_whose_sum_is_the_prediction(settings):
    states = smooth(4)
    result = depthflow.dmd(depthflow.trajectory(states), **settings)
    operator, vector = result.operator.values, result.mode_vector.values
    assert len(vector) == settings.get("rank", 11)
    np.testing.assert_allclose(vector @ operator.T, result.eigenvalue.values[:, None] * vector, **FLOAT64)
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), 1.0, **FLOAT64)
    largest = vector[np.arange(len(vector)), np.abs(vector).argmax(1)]
    np.testing.assert_allclose(largest, np.abs(largest), **FLOAT64)
    first = states[:, 0].reshape(-1, 11)
    # K x lies in the span of the modes: its coordinates are λ b.
    coordinate = np.linalg.lstsq(vector.T, (first @ operator.T).T.astype(complex), rcond=None)[0]
    amplitude = np.sqrt((np.abs(coordinate / result.eigenvalue.values[:, None]) ** 2).mean(1))
    np.testing.assert_allclose(result.amplitude, amplitude, **FLOAT64)


def test_float32_states_are_taken_as_the_numbers_they_are():
    states = smooth(5).astype(np.float32)
    single, double = (depthflow.dmd(depthflow.trajectory(states.astype(dtype))) for dtype in (np.float32, np.float64))
    for name in single.data_vars:
        np.testing.assert_allclose(single[name], double[name], **EXACT)
    half = depthflow.dmd(depthflow.trajectory(smooth(5)).astype(np.float16))
    expected = oracle.least_squares(*oracle.pairs(smooth(5).astype(np.float16), 1, range(5)))
    np.testing.assert_allclose(half.operator, expected, **FLOAT32)


def test_pieces_smaller_than_a_part_change_nothing(monkeypatch):
    traj = depthflow.trajectory(smooth(6), token_type=TYPES)
    whole = depthflow.dmd(traj)
    monkeypatch.setattr(_linear_maps, "PIECE_BYTES", 2 * 8 * 6 * 7 * 11)
    pieces = [states.shape for states in _linear_maps.pieces(traj, "dmd")]
    assert pieces == [(6, 14, 11)] * 4 + [(6, 7, 11)]
    small = depthflow.dmd(traj)
    for name in whole.data_vars:
        np.testing.assert_allclose(small[name], whole[name], **FLOAT64)


@pytest.mark.parametrize("least", [1e-3, 1e-5])
@pytest.mark.parametrize("ridge", [0.0, 1e-12])
def test_ill_conditioned_inputs_are_corrected_to_what_an_svd_gives(least, ridge):
    """Normal equations alone would lose the square of the condition number."""
    rng = np.random.default_rng(7)
    turn = np.linalg.qr(rng.normal(size=(11, 11)))[0]
    block = turn @ np.diag(np.linspace(0.5, 1.1, 11)) @ turn.T
    states = [rng.normal(size=(30, 7, 11)) * np.geomspace(1, least, 11) @ turn.T]
    for _ in range(5):
        states.append(states[-1] @ block.T)
    stacked = np.stack(states, axis=1)
    result = depthflow.dmd(depthflow.trajectory(stacked), ridge=ridge)
    assert result.attrs["condition"] > 100
    expected = oracle.least_squares(*oracle.pairs(stacked, 1, range(5)), ridge=ridge)
    np.testing.assert_allclose(result.operator, expected, **FLOAT64)
