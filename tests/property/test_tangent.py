"""What must hold of the restricted Jacobians and exponents of any paths."""

from __future__ import annotations

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import depthflow
from tests.oracles.tangent import linear_flow
from tests.tolerances import EXACT, FLOAT64, ROUNDED_STATES, SINGULAR_VALUE

SAMPLES, DEPTHS, TOKENS, FEATURES, DRAWS = 3, 5, 2, 11, 4
DIMS = ("draw", "sample", "depth", "token", "feature")
SEEDS = st.integers(0, 10**6)


def paths(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a reference (sample, depth, token, feature) and perturbed states (draw, …) that no flow made."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES))
    return reference, reference + 0.1 * rng.normal(size=(DRAWS, *reference.shape))


def maps(reference: np.ndarray, perturbed: np.ndarray, **kwargs: float) -> xr.Dataset:
    return depthflow.finite_jacobian(depthflow.trajectory(reference), xr.DataArray(perturbed, dims=DIMS), **kwargs)


def assert_alike(got: xr.Dataset, expected: xr.Dataset, tolerance: dict[str, float]) -> None:
    for name in expected.data_vars:
        np.testing.assert_allclose(got[name], expected[name], **tolerance)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_rotations_a_shift_and_an_order_of_draws_change_nothing(seed):
    """Each depth may be turned by itself, as lengths are all that enter; a shift moves the reference too."""
    rng = np.random.default_rng(seed)
    reference, perturbed = paths(seed)
    turns = np.linalg.qr(rng.normal(size=(DEPTHS, FEATURES, FEATURES)))[0]
    shift = rng.normal(size=(DEPTHS, TOKENS, FEATURES))
    moved = [np.einsum("...dtf,dfg->...dtg", states, turns) + shift for states in (reference, perturbed)]
    assert_alike(maps(moved[0], moved[1][rng.permutation(DRAWS)]), maps(reference, perturbed), ROUNDED_STATES)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, scale=st.floats(1e-6, 1e6))
def test_rescaling_all_states_changes_nothing(seed, scale):
    reference, perturbed = paths(seed)
    assert_alike(maps(scale * reference, scale * perturbed), maps(reference, perturbed), ROUNDED_STATES)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_rescaling_a_depth_scales_gains_and_adds_to_exponents(seed):
    size = np.random.default_rng(seed).uniform(0.1, 10, DEPTHS)
    reference, perturbed = paths(seed)
    before = maps(reference, perturbed)
    after = maps(*(states * size[:, None, None] for states in (reference, perturbed)))
    step = xr.DataArray(size[1:] / size[:-1], dims="block")
    mean = xr.DataArray(np.log(size[1:] / size[0]) / np.arange(1, DEPTHS), dims="block")
    gain, exponent = before.singular_value * step, before.exponent + mean
    np.testing.assert_allclose(after.singular_value, gain.transpose(*after.singular_value.dims), **ROUNDED_STATES)
    np.testing.assert_allclose(after.exponent, exponent.transpose(*after.exponent.dims), **ROUNDED_STATES)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_volumes_grow_by_the_product_of_the_gains(seed):
    result = maps(*paths(seed))
    gained = np.log(result.singular_value).sum("mode", skipna=False).cumsum("block")
    grown = result.exponent.sum("mode", skipna=False) * result.block
    np.testing.assert_allclose(grown.transpose(*gained.dims), gained, **ROUNDED_STATES)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, size=st.floats(1e-3, 1e3))
def test_in_a_linear_flow_only_the_span_of_the_deviations_counts(seed, size):
    rng = np.random.default_rng(seed)
    flow = rng.normal(size=(DEPTHS - 1, FEATURES, FEATURES)) / np.sqrt(FEATURES)
    deviations = rng.normal(size=(DRAWS, SAMPLES, TOKENS, FEATURES))
    turn = np.linalg.qr(rng.normal(size=(DRAWS, DRAWS)))[0]
    mixed = size * np.einsum("rq,q...->r...", turn, deviations)
    before, after = (depthflow.finite_jacobian(*linear_flow(flow, pushed)) for pushed in (deviations, mixed))
    np.testing.assert_array_equal(after["rank"], DRAWS)
    np.testing.assert_allclose(after.singular_value, before.singular_value, **SINGULAR_VALUE)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, modes=st.integers(1, DRAWS), rcond=st.floats(0, 0.5))
def test_numbers_stand_where_rank_says_and_once_lost_a_mode_stays_lost(seed, modes, rcond):
    result = maps(*paths(seed), n_modes=modes, rcond=rcond)
    known = result.singular_value.notnull()
    np.testing.assert_array_equal(known.sum("mode"), np.minimum(result["rank"], modes))
    values = result.singular_value.values
    assert (np.diff(np.where(np.isnan(values), -1.0, values), axis=-1) <= 0).all()
    alive = result.exponent.notnull().transpose("sample", "token", "block", "mode").values
    for axis in (2, 3):
        assert (np.diff(alive.astype(int), axis=axis) <= 0).all()


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, chunk=st.integers(1, 2))
def test_chunked_equals_whole_and_samples_are_by_themselves(seed, chunk):
    reference, perturbed = paths(seed)
    whole = maps(reference, perturbed)
    pushed = xr.DataArray(perturbed, dims=DIMS)
    lazy = depthflow.finite_jacobian(depthflow.trajectory(reference).chunk(sample=chunk, depth=2), pushed)
    assert_alike(lazy, whole, EXACT)
    order = np.random.default_rng(seed).permutation(SAMPLES)
    assert_alike(maps(reference[order], perturbed[:, order]), whole.isel(sample=order), EXACT)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_one_draw_is_the_ratio_of_lengths(seed):
    reference, perturbed = paths(seed)
    length = np.linalg.norm(perturbed[0] - reference, axis=-1)
    result = maps(reference, perturbed[:1])
    np.testing.assert_allclose(result.singular_value[..., 0], length[:, 1:] / length[:, :-1], **FLOAT64)
    mean = np.log(length[:, 1:] / length[:, :1]) / np.arange(1, DEPTHS)[:, None]
    np.testing.assert_allclose(result.exponent[..., 0], mean, **FLOAT64)
