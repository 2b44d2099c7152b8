"""Updates whose spectra are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

import depthflow
from tests.oracles.lowrank import ranks, spectrum, with_spectrum
from tests.tolerances import EXACT, FLOAT32, FLOAT64, SINGULAR_VALUE

RANKS = ("stable_rank", "effective_rank", "participation_ratio", "energy_rank")


def flow_of(updates: np.ndarray, start: float = 0.0):
    """Return a trajectory (sample, depth, token, feature) whose updates (sample, block, token, feature) are given."""
    states = np.zeros((updates.shape[0], updates.shape[1] + 1, *updates.shape[2:]), dtype=updates.dtype)
    states[:, 1:] = np.cumsum(updates, axis=1)
    return depthflow.trajectory(states + np.asarray(start, updates.dtype))


@pytest.mark.parametrize("values", [[4.0, 3.0, 2.0, 1.0], [1.0] * 7, [5.0], list(0.5 ** np.arange(7))])
def test_known_singular_values_and_ranks(values):
    rng = np.random.default_rng(0)
    update = with_spectrum(np.array(values), 7, 11, rng)
    result = depthflow.update_spectra(flow_of(update[None, None]))
    full = np.append(values, np.zeros(7 - len(values)))
    np.testing.assert_allclose(result.singular_value[0, 0], full, **FLOAT64)
    for name, expected in zip(RANKS, ranks(full, 0.9), strict=True):
        np.testing.assert_allclose(result[name][0, 0], expected, **FLOAT64)


def test_a_flat_spectrum_has_every_rank_equal_to_its_number_of_modes():
    update = with_spectrum(np.full(5, 3.0), 7, 11, np.random.default_rng(1))
    result = depthflow.update_spectra(flow_of(update[None, None]), energy=1.0)
    for name in RANKS:
        np.testing.assert_allclose(result[name][0, 0], 5.0, **FLOAT64)


@pytest.mark.parametrize("shape", [(31, 59), (59, 31)])
@pytest.mark.parametrize("pool", [False, True])
def test_float32_spectra_are_right_down_to_a_millionth(shape, pool):
    """The reference is the SVD, in float64, of the very numbers that were given."""
    rng = np.random.default_rng(2)
    update = with_spectrum(np.geomspace(1, 1e-6, 31), *shape, rng).astype(np.float32)
    expected = spectrum(update)
    traj = flow_of(update[None, None])
    for exact in (False, True):
        result = depthflow.update_spectra(traj, exact=exact, pool=pool)
        got = result.singular_value.values.reshape(-1)
        np.testing.assert_allclose(got[:31], expected, **SINGULAR_VALUE)
        np.testing.assert_allclose(result.effective_rank.values.ravel(), ranks(expected, 0.9)[1], **FLOAT32)


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("pool", [False, True])
def test_rank_r_updates_have_at_most_r_modes(rank, pool):
    traj = depthflow.synthetic.low_rank_drift(rank=rank)
    if pool:
        traj = traj.isel(sample=[0])
    result = depthflow.update_spectra(traj, energy=0.999999, pool=pool)
    assert (result.energy_rank <= rank).all()
    for name in RANKS[:3]:
        assert (result[name] <= rank + 1e-6).all()
    relative = result.singular_value / result.singular_value.isel(mode=0)
    assert (relative.isel(mode=slice(rank, None)) < 1e-10).all()
    assert (relative.isel(mode=rank - 1) > 1e-3).all()


def test_centering_removes_a_shared_mean_which_otherwise_is_all_there_is():
    rng = np.random.default_rng(3)
    own = with_spectrum(np.full(6, 1.0), 7, 11, rng)
    own -= own.mean(0)
    shared = 100 * np.ones((7, 1)) * rng.normal(size=11)
    traj = flow_of((own + shared)[None, None])
    plain, centered = (depthflow.update_spectra(traj, center=center) for center in (False, True))
    assert abs(plain.stable_rank.item() - 1) < 0.01
    np.testing.assert_allclose(centered.singular_value[0, 0, :6], spectrum(own)[:6], **FLOAT64)
    np.testing.assert_allclose(centered.singular_value[0, 0, 6], 0.0, **EXACT)
    assert centered.stable_rank.item() > 4
    assert (plain.attrs["center"], centered.attrs["center"]) == (0, 1)


def test_a_zero_update_has_singular_values_zero_and_no_rank():
    updates = np.random.default_rng(4).normal(size=(3, 5, 7, 11))
    updates[1, 2] = 0.0
    result = depthflow.update_spectra(flow_of(updates))
    for name in RANKS:
        assert np.argwhere(np.isnan(result[name].values)).tolist() == [[1, 2]]
    np.testing.assert_allclose(result.singular_value[1, 2], 0.0, **EXACT)
    pooled = depthflow.update_spectra(flow_of(updates * 0), pool=True)
    assert np.isnan(pooled.stable_rank).all()
    np.testing.assert_allclose(pooled.singular_value, 0.0, **EXACT)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("samples", [1, 3, 9])
def test_pooled_is_the_spectrum_of_all_rows(center, samples):
    """Seven rows a sample of eleven features: one sample has fewer rows than features, more have more."""
    traj = depthflow.trajectory(np.random.default_rng(5).normal(size=(samples, 6, 7, 11)) + np.arange(6)[:, None, None])
    rows = np.diff(traj.values, axis=1).transpose(1, 0, 2, 3).reshape(5, -1, 11)
    if center:
        rows = rows - rows.mean(1, keepdims=True)
    expected = np.array([spectrum(matrix) for matrix in rows])
    result = depthflow.update_spectra(traj, pool=True, center=center)
    assert result.stable_rank.dims == ("block",)
    np.testing.assert_allclose(result.singular_value, expected, **FLOAT64)
    for block in range(5):
        for name, value in zip(RANKS, ranks(expected[block], 0.9), strict=True):
            np.testing.assert_allclose(result[name][block], value, **FLOAT64)
