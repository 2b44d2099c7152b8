"""Flows whose Jacobians and exponents are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import depthflow
from tests.oracles.lowrank import with_spectrum
from tests.oracles.tangent import linear_flow
from tests.tolerances import EXACT, FINITE_DIFFERENCE, FLOAT64, SINGULAR_VALUE

SAMPLES, TOKENS, FEATURES, BLOCKS = 3, 2, 11, 5
FLOWS = {
    "normal": np.diag(np.linspace(1.5, 0.5, FEATURES)),
    "random": np.random.default_rng(0).normal(size=(FEATURES, FEATURES)) / np.sqrt(FEATURES),
    "far from normal": np.eye(FEATURES) + 3 * np.eye(FEATURES, k=1),
    "ill-conditioned": with_spectrum(np.geomspace(1, 1e-4, FEATURES), FEATURES, FEATURES, np.random.default_rng(1)),
}


def pushes(draws: int, size: float = 1e-2, seed: int = 2) -> np.ndarray:
    """Return random deviations (draw, sample, token, feature)."""
    return size * np.random.default_rng(seed).normal(size=(draws, SAMPLES, TOKENS, FEATURES))


def restricted(maps: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return the singular values (sample, block, token, mode) of each known map on the span that it is given."""
    found = np.empty((SAMPLES, len(maps), TOKENS, min(len(deviations), FEATURES)))
    for sample in range(SAMPLES):
        for token in range(TOKENS):
            basis = np.linalg.qr(deviations[:, sample, token].T)[0]
            for block, one in enumerate(maps):
                basis, factor = np.linalg.qr(one @ basis)
                found[sample, block, token] = np.linalg.svd(factor, compute_uv=False)
    return found


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("draws", [1, 4, FEATURES])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_a_linear_flow_gives_its_restricted_singular_values(flow, draws, offset):
    """Down to gains of 1e-4, where the deviations themselves are rounded at 1e-14 of their size."""
    maps, deviations = FLOWS[flow][None], pushes(draws)
    result = depthflow.finite_jacobian(*linear_flow(maps, deviations, offset=offset))
    assert (result["rank"] == draws).all()
    np.testing.assert_allclose(result.singular_value, restricted(maps, deviations), **SINGULAR_VALUE)
    if draws == FEATURES:
        every = np.linalg.svd(maps[0], compute_uv=False)
        np.testing.assert_allclose(result.singular_value - every, 0 * result.singular_value, **FLOAT64)


def test_a_different_map_a_block():
    maps = np.array([FLOWS["random"], FLOWS["far from normal"], FLOWS["normal"], FLOWS["random"].T])
    deviations = pushes(4)
    result = depthflow.finite_jacobian(*linear_flow(maps, deviations, offset=1.0))
    assert (result["rank"] == 4).all()
    np.testing.assert_allclose(result.singular_value, restricted(maps, deviations), **SINGULAR_VALUE)
    grown = np.log(restricted(maps, deviations)).sum(-1).cumsum(1)
    total = result.exponent.sum("mode", skipna=False) * result.block
    np.testing.assert_allclose(total.transpose("sample", "block", "token"), grown, **SINGULAR_VALUE)


def test_float32_states_a_hundredth_apart():
    maps, deviations = np.array([FLOWS["random"], FLOWS["normal"], FLOWS["random"].T]), pushes(4)
    reference, perturbed = linear_flow(maps, deviations, dtype=np.float32)
    result = depthflow.finite_jacobian(reference, perturbed)
    assert (result["rank"] == 4).all()
    np.testing.assert_allclose(result.singular_value, restricted(maps, deviations), **FINITE_DIFFERENCE)
    wider = depthflow.finite_jacobian(reference.astype(np.float64), perturbed.astype(np.float64))
    np.testing.assert_allclose(wider.singular_value, result.singular_value, **FLOAT64)


@pytest.mark.parametrize("draws", [1, 4, FEATURES])
def test_a_rotation_keeps_every_length(draws):
    turns = np.linalg.qr(np.random.default_rng(3).normal(size=(BLOCKS, FEATURES, FEATURES)))[0]
    result = depthflow.finite_jacobian(*linear_flow(turns, pushes(draws)))
    np.testing.assert_allclose(result.singular_value, 1 + 0 * result.singular_value, **FLOAT64)
    np.testing.assert_allclose(result.exponent, 0 * result.exponent, **FLOAT64)


@pytest.mark.parametrize("factor", [3.0, 0.2, -0.5])
def test_scaling(factor):
    result = depthflow.finite_jacobian(*linear_flow(np.array([factor * np.eye(FEATURES)] * BLOCKS), pushes(4)))
    np.testing.assert_allclose(result.singular_value, abs(factor) + 0 * result.singular_value, **FLOAT64)
    np.testing.assert_allclose(result.exponent, np.log(abs(factor)) + 0 * result.exponent, **FLOAT64)


def test_a_diagonal_flow_along_its_axes_has_its_logarithms_as_exponents_at_every_block():
    """The deviations shrink in size, so that pivoting keeps their order, which is not that of the exponents."""
    diagonal = np.array([0.5, 2.0, 0.9, 1.3])
    deviations = np.zeros((4, SAMPLES, TOKENS, FEATURES))
    for axis, size in enumerate([0.8, 0.4, 0.2, 0.1]):
        deviations[axis, :, :, axis] = size
    flow = np.diag(np.append(diagonal, np.ones(FEATURES - 4)))
    result = depthflow.finite_jacobian(*linear_flow(np.array([flow] * BLOCKS), deviations))
    np.testing.assert_allclose(result.exponent, np.log(diagonal) + 0 * result.exponent, **FLOAT64)
    np.testing.assert_allclose(result.singular_value, np.sort(diagonal)[::-1] + 0 * result.exponent, **FLOAT64)


def test_exponents_of_a_triangular_flow_approach_the_logarithms_of_its_eigenvalues():
    """Random deviations line up with the slowest subspaces at a rate of 1/depth."""
    values = np.array([1.4, 1.1, 0.8, 0.5])
    flow = np.diag(values) + np.triu(np.random.default_rng(4).normal(size=(4, 4)), 1)
    deviations = np.random.default_rng(5).normal(size=(4, SAMPLES, TOKENS, 4))
    result = depthflow.finite_jacobian(*linear_flow(np.array([flow] * 25), deviations), rcond=0.0)
    error = np.abs(result.exponent - np.log(values)).max(("sample", "token"))
    # The volume of all four grows by the determinant at every block.
    total = result.exponent.sum("mode", skipna=False)
    np.testing.assert_allclose(total, np.log(values).sum() + 0 * total, **SINGULAR_VALUE)
    assert ((error * result.block).max("block") < 8.0).all()
    assert (error.sel(block=25) < 0.3).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rcond", [1e-6, 0.0])
def test_collinear_deviations_lower_the_rank_and_leave_the_rest_right(dtype, rcond):
    """The fourth to sixth draw are combinations of the first three; what is left of them is rounding."""
    deviations = pushes(3)
    deviations = np.concatenate([deviations, [deviations[0] * 2, deviations[0] - deviations[1], deviations.sum(0)]])
    maps = np.array([FLOWS["random"], FLOWS["normal"]])
    result = depthflow.finite_jacobian(*linear_flow(maps, deviations, dtype=dtype), rcond=rcond)
    assert (result["rank"] == 3).all()
    for name in ("singular_value", "exponent"):
        assert result[name].isel(mode=slice(3)).notnull().all()
        assert result[name].isel(mode=slice(3, None)).isnull().all()
    expected = restricted(maps, deviations[:3])
    tolerance = FINITE_DIFFERENCE if dtype is np.float32 else SINGULAR_VALUE
    np.testing.assert_allclose(result.singular_value[..., :3], expected, **tolerance)


def test_rcond_is_the_least_deviation_that_counts_relative_to_the_largest():
    deviations = np.zeros((3, SAMPLES, TOKENS, FEATURES))
    for axis, size in enumerate([1.0, 1e-2, 1e-4]):
        deviations[axis, :, :, axis] = size
    flow = linear_flow(np.eye(FEATURES)[None] * 2.0, deviations)
    for rcond, rank in [(1e-6, 3), (1e-3, 2), (0.1, 1), (0.0, 3)]:
        result = depthflow.finite_jacobian(*flow, rcond=rcond)
        assert (result["rank"] == rank).all()
        assert (result.singular_value.notnull().sum("mode") == rank).all()
        np.testing.assert_allclose(result.singular_value[..., 0], 2 + 0 * result["rank"], **FLOAT64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_direction_that_is_lost_has_gain_zero_and_no_exponent_from_then_on(dtype):
    """The second block removes a mixture of the three directions; the third would double what rounding makes of it."""
    rng = np.random.default_rng(6)
    span = rng.normal(size=(3, FEATURES))
    gone = span.sum(0) / np.linalg.norm(span.sum(0))
    turn = np.linalg.qr(rng.normal(size=(FEATURES, FEATURES)))[0]
    maps = np.array([np.eye(FEATURES), turn @ (np.eye(FEATURES) - np.outer(gone, gone)), 2 * turn, 2 * turn])
    deviations = np.broadcast_to(0.1 * span[:, None, None], (3, SAMPLES, TOKENS, FEATURES))
    result = depthflow.finite_jacobian(*linear_flow(maps, deviations, dtype=dtype))
    np.testing.assert_array_equal(result["rank"], np.array([3, 3, 2, 2])[:, None] + 0 * result["rank"])
    gains = np.array([[1, 1, 1], [1, 1, 0], [2, 2, np.nan], [2, 2, np.nan]])[:, None]
    tolerance = FINITE_DIFFERENCE if dtype is np.float32 else FLOAT64
    np.testing.assert_allclose(result.singular_value, gains + np.zeros((SAMPLES, 4, TOKENS, 3)), **tolerance)
    np.testing.assert_array_equal(result.singular_value.sel(block=2, mode=3), np.zeros((SAMPLES, TOKENS)))
    lost = np.array([[False] * 3] + [[False, False, True]] * 3)[:, None]
    np.testing.assert_array_equal(result.exponent.isnull(), np.broadcast_to(lost, result.exponent.shape))


def test_modes_after_a_lost_one_are_lost_too():
    """Their R is the distance to a span that is no longer known; the gains, which need no order, are all there."""
    flow = np.diag([1.0, 0.0, 1.0] + [1.0] * (FEATURES - 3))
    deviations = np.zeros((3, SAMPLES, TOKENS, FEATURES))
    for axis, size in enumerate([0.4, 0.2, 0.1]):
        deviations[axis, :, :, axis] = size
    result = depthflow.finite_jacobian(*linear_flow(flow[None], deviations))
    gains = np.broadcast_to([1.0, 1.0, 0.0], result.singular_value.shape)
    np.testing.assert_allclose(result.singular_value, gains, **FLOAT64)
    np.testing.assert_array_equal(result.exponent.isnull(), np.broadcast_to([False, True, True], result.exponent.shape))


def test_everything_lost_is_a_gain_of_zero_and_then_nothing():
    maps = np.array([np.eye(FEATURES), np.zeros((FEATURES, FEATURES)), np.eye(FEATURES)])
    result = depthflow.finite_jacobian(*linear_flow(maps, pushes(4), offset=1.0))
    assert result["rank"].isel(sample=0, token=0).values.tolist() == [4, 4, 0]
    np.testing.assert_allclose(result.singular_value.sel(block=2), np.zeros((SAMPLES, TOKENS, 4)), **EXACT)
    assert result.singular_value.sel(block=3).isnull().all()
    assert result.exponent.sel(block=[2, 3]).isnull().all()


def test_no_deviation_is_no_number():
    reference, perturbed = linear_flow(np.array([FLOWS["random"]] * 2), np.zeros((4, SAMPLES, TOKENS, FEATURES)))
    result = depthflow.finite_jacobian(reference, perturbed)
    assert (result["rank"] == 0).all()
    assert result.singular_value.isnull().all()
    assert result.exponent.isnull().all()


def test_a_curved_flow_gives_its_jacobian_up_to_the_size_of_the_push():
    """x ↦ x + tanh(x)/2 has the diagonal Jacobian 1 + sech²(x)/2; the error falls in proportion to the push."""
    start = np.random.default_rng(7).normal(size=(SAMPLES, TOKENS, FEATURES))
    exact = np.sort(1 + 0.5 / np.cosh(start) ** 2, axis=-1)[..., ::-1]
    errors = []
    for size in (1e-2, 1e-4):
        paths = [start, *(start + size * np.eye(FEATURES)[draw] for draw in range(FEATURES))]
        states = np.stack([np.stack([x, x + np.tanh(x) / 2], axis=1) for x in paths])
        reference, *perturbed = (depthflow.trajectory(path) for path in states)
        result = depthflow.finite_jacobian(reference, perturbed)
        errors.append(float(np.abs(result.singular_value.sel(block=1) - exact).max()))
    assert 0 < errors[0] < 1e-2
    assert errors[1] < 0.02 * errors[0]


def test_draws_may_outnumber_features():
    maps, deviations = FLOWS["random"][None], pushes(FEATURES + 6)
    result = depthflow.finite_jacobian(*linear_flow(maps, deviations))
    assert result.sizes["mode"] == FEATURES
    every = np.linalg.svd(maps[0], compute_uv=False)
    np.testing.assert_allclose(result.singular_value, every + xr.zeros_like(result.singular_value), **SINGULAR_VALUE)
