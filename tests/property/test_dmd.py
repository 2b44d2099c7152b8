"""What must hold of the operator of any states."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import depthflow
from tests.oracles.dmd import in_order_of
from tests.tolerances import FLOAT64, ROUNDED_STATES

ERRORS = ("error", "error_identity", "error_endpoint", "error_per_step", "skill")
SETTINGS = st.sampled_from([{}, {"ridge": 0.1}, {"rank": 4}, {"rank": 4, "ridge": 0.1}])
SEEDS = st.integers(0, 10**6)


def states(seed: int) -> np.ndarray:
    """Return drifting states whose features are of unlike size, so that leading directions are well apart."""
    steps = np.random.default_rng(seed).normal(size=(9, 6, 7, 11)) * np.geomspace(1, 0.05, 11)
    return np.cumsum(steps, axis=1)


def of(values: np.ndarray, **kwargs):
    return depthflow.dmd(depthflow.trajectory(values, token_type=["cls"] + ["patch"] * 6), **kwargs)


def same_modes(after, before, scale: float = 1.0) -> None:
    order = in_order_of(before.eigenvalue.values, after.eigenvalue.values)
    np.testing.assert_allclose(after.eigenvalue.values[order], before.eigenvalue, **ROUNDED_STATES)
    np.testing.assert_allclose(after.amplitude.values[order] / scale, before.amplitude, **ROUNDED_STATES)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, kwargs=SETTINGS)
def test_a_rotation_turns_the_operator_and_leaves_eigenvalues_and_errors(seed, kwargs):
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(11, 11)))[0]
    before, after = of(states(seed), **kwargs), of(states(seed) @ turn.T, **kwargs)
    np.testing.assert_allclose(after.operator, turn @ before.operator.values @ turn.T, **ROUNDED_STATES)
    same_modes(after, before)
    order = in_order_of(before.eigenvalue.values, after.eigenvalue.values)
    overlap = np.einsum("mf,mf->m", (before.mode_vector.values @ turn.T).conj(), after.mode_vector.values[order])
    np.testing.assert_allclose(np.abs(overlap), 1.0, **ROUNDED_STATES)
    for name in ERRORS:
        np.testing.assert_allclose(after[name], before[name], **ROUNDED_STATES)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, kwargs=SETTINGS, scale=st.floats(1e-6, 1e6))
def test_rescaling_changes_amplitudes_only(seed, kwargs, scale):
    before, after = of(states(seed), **kwargs), of(scale * states(seed), **kwargs)
    np.testing.assert_allclose(after.operator, before.operator, **ROUNDED_STATES)
    same_modes(after, before, scale)
    for name in ERRORS:
        np.testing.assert_allclose(after[name], before[name], **ROUNDED_STATES)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, kwargs=SETTINGS, copies=st.integers(1, 3))
def test_the_order_and_the_number_of_copies_of_samples_and_tokens_do_not_matter(seed, kwargs, copies):
    rng = np.random.default_rng(seed)
    plain = states(seed)
    moved = np.concatenate([plain[rng.permutation(9)]] * copies)
    moved = moved[:, :, np.r_[0, 1 + rng.permutation(6)]]
    before, after = of(plain, **kwargs), of(moved, **kwargs)
    assert after.attrs["n_pairs"] == copies * before.attrs["n_pairs"] == copies * 9 * 7 * 5
    np.testing.assert_allclose(after.operator, before.operator, **ROUNDED_STATES)
    for name in ERRORS:
        np.testing.assert_allclose(after[name], before[name], **ROUNDED_STATES)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, kwargs=SETTINGS, rows=st.integers(1, 5))
def test_chunked_equals_whole(seed, kwargs, rows):
    traj = depthflow.trajectory(states(seed), token_type=["cls"] + ["patch"] * 6)
    whole = depthflow.dmd(traj, test=traj[:4], **kwargs)
    chunks = {"sample": rows, "depth": 2, "feature": 4}
    chunked = depthflow.dmd(traj.chunk(chunks), test=traj[:4].chunk(chunks), **kwargs)
    assert chunked.chunks == {}
    np.testing.assert_allclose(chunked.operator, whole.operator, **ROUNDED_STATES)
    same_modes(chunked, whole)
    for name in ERRORS:
        np.testing.assert_allclose(chunked[name], whole[name], **FLOAT64)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, samples=st.integers(3, 9))
def test_in_sample_the_map_of_a_horizon_beats_every_other_single_map(seed, samples):
    """Least squares is the least; and one map a block is at least as good over one block as one map for all."""
    result = depthflow.dmd(depthflow.trajectory(states(seed)[:samples]))
    slack = 1 + FLOAT64["rtol"]
    assert (result.error_endpoint <= slack * result.error).all()
    assert (result.error_endpoint <= slack * result.error_identity).all()
    assert (result.error_per_step[0] <= slack * result.error_endpoint[0]).all()
    assert (result.error_endpoint[-1] <= slack * result.error_per_step[-1]).all()
    np.testing.assert_allclose(result.error[0], result.error_endpoint[0], **FLOAT64)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, chosen=st.lists(st.integers(1, 5), min_size=1, unique=True))
def test_fewer_horizons_are_the_same_numbers(seed, chosen):
    every, some = of(states(seed)), of(states(seed), horizons=chosen)
    assert some.horizon.values.tolist() == sorted(chosen)
    for name in ERRORS:
        np.testing.assert_allclose(some[name], every[name].sel(horizon=sorted(chosen)), **FLOAT64)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, kwargs=SETTINGS)
def test_modes_are_in_order_and_come_in_conjugate_pairs(seed, kwargs):
    values = of(states(seed), **kwargs).eigenvalue.values
    assert (np.diff(np.abs(values)) <= FLOAT64["rtol"] * np.abs(values).max()).all()
    for index in np.flatnonzero(values.imag > 0):
        assert values[index + 1] == values[index].conj()
    assert (values.imag < 0).sum() == (values.imag > 0).sum()
