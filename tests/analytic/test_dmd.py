"""Flows whose operator is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

import depthflow
from tests.oracles.dmd import in_order_of
from tests.tolerances import EXACT, FLOAT32, FLOAT64

BASELINES = ("error", "error_identity", "error_endpoint", "error_per_step")
FITTED = ("error", "error_endpoint", "error_per_step")


def flow_of(blocks: list[np.ndarray], first: np.ndarray, **kwargs):
    """Return the trajectory of ``first`` (sample, token, feature) through linear ``blocks``."""
    states = [first]
    for block in blocks:
        states.append(states[-1] @ block.T)
    return depthflow.trajectory(np.stack(states, axis=1), **kwargs)


def starts(seed: int, samples: int = 9, features: int = 11) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(samples, 7, features))


def turn(features: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(features, features)))[0]


def block_of(eigenvalues: list[complex], basis: np.ndarray) -> np.ndarray:
    """Return a real matrix with these eigenvalues; one of a conjugate pair stands for both."""
    size = basis.shape[1]
    inner, at = np.zeros((size, size)), 0
    for value in eigenvalues:
        if np.imag(value):
            inner[at : at + 2, at : at + 2] = [[value.real, -value.imag], [value.imag, value.real]]
        else:
            inner[at, at] = np.real(value)
        at += 1 + bool(np.imag(value))
    assert at == size
    return basis @ inner @ np.linalg.pinv(basis)


KNOWN = [1.1, 0.9 + 0.3j, -0.8, 0.75 + 0.1j, 0.7, 0.65, 0.6j, 0.55, 0.5]


def test_a_linear_flow_is_recovered():
    basis = np.random.default_rng(1).normal(size=(12, 12))
    block = block_of(KNOWN, basis)
    result = depthflow.dmd(flow_of([block] * 5, starts(2, features=12)))
    np.testing.assert_allclose(result.operator, block, **FLOAT64)
    expected = [value for real in KNOWN for value in ([real, np.conj(real)] if np.imag(real) else [real])]
    np.testing.assert_allclose(result.eigenvalue, expected, **FLOAT64)
    for name in FITTED:
        np.testing.assert_allclose(result[name], 0.0, **FLOAT64)
    assert (result.error_identity > 0.1).all()
    np.testing.assert_allclose(result.skill, 1.0, **FLOAT64)


def test_float32_states_of_a_linear_flow_give_its_eigenvalues():
    block = block_of(KNOWN, turn(12))
    result = depthflow.dmd(flow_of([block] * 5, starts(3, features=12)).astype(np.float32))
    order = in_order_of(result.eigenvalue.values, np.linalg.eigvals(block))
    np.testing.assert_allclose(result.eigenvalue, np.linalg.eigvals(block)[order], **FLOAT32)


def test_a_rotation_has_eigenvalues_on_the_unit_circle_and_its_angles_as_frequencies():
    angles = [0.1, 0.5, 2.0]
    block = block_of([np.exp(1j * angle) for angle in angles], turn(6))
    result = depthflow.dmd(flow_of([block] * 4, starts(4, features=6)))
    np.testing.assert_allclose(np.abs(result.eigenvalue), 1.0, **FLOAT64)
    np.testing.assert_allclose(result.growth, 0.0, **FLOAT64)
    # Of equal modulus: by rising frequency, the positive one of each pair first.
    np.testing.assert_allclose(result.frequency, [0.1, -0.1, 0.5, -0.5, 2.0, -2.0], **FLOAT64)


def test_scaling_has_its_factor_as_every_eigenvalue():
    result = depthflow.dmd(flow_of([0.8 * np.eye(11)] * 5, starts(5)))
    np.testing.assert_allclose(result.eigenvalue, 0.8, **FLOAT64)
    np.testing.assert_allclose(result.growth, np.log(0.8), **FLOAT64)
    horizon = result.horizon.values[:, None]
    np.testing.assert_allclose(result.error_identity, 0.8 ** -horizon.astype(float) - 1, **FLOAT64)


def test_where_nothing_moves_the_operator_is_the_identity_and_there_is_no_skill():
    result = depthflow.dmd(flow_of([np.eye(11)] * 5, starts(6)))
    np.testing.assert_allclose(result.operator, np.eye(11), **FLOAT64)
    np.testing.assert_allclose(result.error_identity, 0.0, **EXACT)
    np.testing.assert_allclose(result.error, 0.0, **FLOAT64)
    assert np.isnan(result.skill).all()


def test_amplitudes_are_the_coordinates_of_the_first_states():
    """Sample i starts along mode i alone, of unit norm, at the size i + 1."""
    basis = np.random.default_rng(7).normal(size=(5, 5))
    basis /= np.linalg.norm(basis, axis=0)
    values = [1.0, 0.8, -0.6, 0.4, 0.2]
    first = (basis * np.arange(1, 6)).T[:, None]
    result = depthflow.dmd(flow_of([block_of(values, basis)] * 3, first))
    np.testing.assert_allclose(result.eigenvalue, values, **FLOAT64)
    np.testing.assert_allclose(result.amplitude, np.arange(1, 6) / np.sqrt(5), **FLOAT64)
    np.testing.assert_allclose(np.abs(np.sum(result.mode_vector.values * basis.T, axis=1)), 1.0, **FLOAT64)


def test_an_operator_of_low_rank_is_recovered_on_the_directions_that_it_uses():
    plane = turn(11)[:, :3]
    block = block_of([0.9 + 0.2j, 0.5], plane)
    traj = flow_of([block] * 5, starts(8, features=3) @ plane.T)
    result = depthflow.dmd(traj, rank=3)
    np.testing.assert_allclose(result.operator, block, **FLOAT64)
    np.testing.assert_allclose(result.eigenvalue, [0.9 + 0.2j, 0.9 - 0.2j, 0.5], **FLOAT64)
    assert result.attrs["rank"] == 3
    for name in FITTED:
        np.testing.assert_allclose(result[name], 0.0, **FLOAT64)


def test_a_mode_of_eigenvalue_zero_is_a_direction_that_vanishes():
    plane = turn(11)[:, :3]
    block = block_of([0.9, 0.5, 0.0], plane)
    result = depthflow.dmd(flow_of([block] * 5, starts(9, features=3) @ plane.T), rank=3)
    np.testing.assert_allclose(result.eigenvalue, [0.9, 0.5, 0.0], **FLOAT64)
    np.testing.assert_allclose(np.abs(result.mode_vector[2].values @ plane), [0, 0, 1], **FLOAT64)
    assert np.isfinite(result.amplitude).all()


def test_two_phases_are_seen_by_the_maps_of_each_block_only():
    one, other = (np.eye(11) + 0.2 * np.random.default_rng(seed).normal(size=(11, 11)) for seed in (10, 11))
    traj = flow_of([one, one, other, other, other], starts(12))
    result = depthflow.dmd(traj)
    np.testing.assert_allclose(result.error_per_step, 0.0, **FLOAT64)
    np.testing.assert_allclose(result.error_endpoint.sel(horizon=5), 0.0, **FLOAT64)
    assert (result.error_endpoint.sel(horizon=slice(1, 4)) > 0.05).all()
    assert (result.error > 0.05).all()
    for span, block in (((0, 2), one), ((2, 5), other)):
        within = depthflow.dmd(traj, span=span)
        np.testing.assert_allclose(within.operator, block, **FLOAT64)
        np.testing.assert_allclose(within.error, 0.0, **FLOAT64)
        assert within.attrs["span"] == list(span)


def test_a_ridge_shrinks_an_isotropic_flow_by_a_known_factor():
    """Orthonormal inputs, each as often: K = M / (1 + ridge)."""
    first = np.eye(11)[:, None]
    result = depthflow.dmd(flow_of([turn(11)] * 5, first), ridge=0.25)
    np.testing.assert_allclose(result.operator, turn(11) / 1.25, **FLOAT64)


@pytest.mark.parametrize("order", [0, 1])
def test_errors_keep_the_types_of_token_apart(order):
    """One type follows a rotation, the other another; the operator is fitted on the first type's twin."""
    one, other = turn(11, 13), turn(11, 14)
    linear, strange = flow_of([one] * 5, starts(15)), flow_of([other] * 5, starts(16))
    mixed = np.concatenate([linear.values[:, :, :2], strange.values[:, :, 2:]], axis=2)
    kinds = ["cls"] * 2 + ["patch"] * 5
    if order:
        mixed, kinds = mixed[:, :, ::-1], kinds[::-1]
    result = depthflow.dmd(linear, test=depthflow.trajectory(mixed, token_type=kinds))
    assert result.token_type.values.tolist() == ["cls", "patch"]
    for name in FITTED:
        np.testing.assert_allclose(result[name].sel(token_type="cls"), 0.0, **FLOAT64)
        assert (result[name].sel(token_type="patch") > 0.5).all()
