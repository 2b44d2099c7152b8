"""What must hold of the spectra of any updates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import depthflow
from tests.tolerances import FLOAT64

RANKS = ("stable_rank", "effective_rank", "participation_ratio", "energy_rank")


def states(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 6, 7, 11))


def spectra(values: np.ndarray, **kwargs):
    return depthflow.update_spectra(depthflow.trajectory(values), **kwargs)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), pool=st.booleans(), center=st.booleans())
def test_a_rotation_a_shift_and_an_order_of_tokens_change_nothing(seed, pool, center):
    rng = np.random.default_rng(seed)
    plain = states(seed)
    rotation = np.linalg.qr(rng.normal(size=(11, 11)))[0]
    moved = plain[:, :, rng.permutation(7)] @ rotation + rng.normal(size=11)
    before, after = (spectra(values, pool=pool, center=center) for values in (plain, moved))
    for name in before.data_vars:
        np.testing.assert_allclose(after[name], before[name], **FLOAT64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), center=st.booleans())
def test_rescaling_scales_singular_values_and_no_rank(seed, scale, center):
    before, after = (spectra(values, center=center) for values in (states(seed), scale * states(seed)))
    np.testing.assert_allclose(after.singular_value / scale, before.singular_value, **FLOAT64)
    for name in RANKS:
        np.testing.assert_allclose(after[name], before[name], **FLOAT64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), energy=st.floats(0.01, 1.0), center=st.booleans())
def test_ranks_are_ordered_and_within_range(seed, energy, center):
    result = spectra(states(seed), energy=energy, center=center)
    assert (np.diff(result.singular_value) <= 0).all()
    for name in RANKS:
        assert (result[name] >= 1 - 1e-12).all()
        assert (result[name] <= 7 - center + 1e-12).all()
    assert (result.participation_ratio >= result.stable_rank - 1e-12).all()
    squares = (result.singular_value**2).cumsum("mode")
    reached = squares.isel(mode=(result.energy_rank - 1).astype(int))
    assert (reached >= energy * squares.isel(mode=-1) * (1 - 1e-11)).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 3), pool=st.booleans(), center=st.booleans())
def test_chunked_equals_whole(seed, rows, pool, center):
    traj = depthflow.trajectory(states(seed), token_type=["cls"] + ["patch"] * 6)
    whole = depthflow.update_spectra(traj, pool=pool, center=center, tokens="patch")
    chunked = depthflow.update_spectra(traj.chunk(sample=rows, depth=2), pool=pool, center=center, tokens="patch")
    assert (chunked.chunks == {}) == pool
    assert chunked.attrs == whole.attrs
    for name in whole.data_vars:
        np.testing.assert_allclose(chunked[name], whole[name], **FLOAT64)


@pytest.mark.parametrize("pool", [False, True])
def test_fewer_modes_are_the_first_and_ranks_stay(pool):
    every, first = spectra(states(0), pool=pool), spectra(states(0), pool=pool, n_modes=2)
    assert first.mode.values.tolist() == [1, 2]
    np.testing.assert_array_equal(first.singular_value, every.singular_value.isel(mode=slice(2)))
    for name in RANKS:
        np.testing.assert_array_equal(first[name], every[name])
