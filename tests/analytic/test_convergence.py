"""Convergence where its answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import depthflow
from tests.tolerances import EXACT, FLOAT32, FLOAT64, SMALL_ANGLE

BLOCKS = 6
FEATURES = 11


def rotation(step: float, dtype: type = np.float64) -> xr.DataArray:
    """Return one path that turns by ``step`` (rad) a block, in a plane of the feature space."""
    first, second = np.linalg.qr(np.random.default_rng(0).normal(size=(FEATURES, 2)))[0].T
    turn = step * np.arange(BLOCKS + 1)[:, np.newaxis]
    return depthflow.trajectory((3 * (np.cos(turn) * first + np.sin(turn) * second)).astype(dtype))


@pytest.mark.parametrize("step", [0.01, 0.1, 0.5])
def test_rotation_in_a_plane(step: float) -> None:
    result = depthflow.convergence(rotation(step))
    assert_allclose(result.speed, step, **FLOAT64)
    assert_allclose(result.turning[1:], step, **FLOAT64)
    assert_allclose(result.angle, step * np.arange(BLOCKS, -1, -1), **FLOAT64)
    assert_allclose(result.alignment, np.cos(result.angle), **FLOAT64)
    assert_allclose(result.norm, 3.0, **FLOAT64)
    assert_allclose(result.update_norm, 6 * np.sin(step / 2), **FLOAT64)
    assert_allclose(result.radial_fraction, -np.sin(step / 2), **FLOAT64)
    assert_allclose(result.path_length, BLOCKS * step, **FLOAT64)
    assert_allclose(result.straightness, 1.0, **FLOAT64)


@pytest.mark.parametrize("step", [1e-7, 1e-5, 1e-3])
def test_slow_rotation(step: float) -> None:
    result = depthflow.convergence(rotation(step))
    assert_allclose(result.speed, step, **SMALL_ANGLE)
    assert_allclose(result.angle, step * np.arange(BLOCKS, -1, -1), **SMALL_ANGLE)


def test_rotation_beyond_half_a_turn_is_not_straight() -> None:
    result = depthflow.convergence(rotation(0.8))
    assert_allclose(result.straightness, (2 * np.pi - BLOCKS * 0.8) / (BLOCKS * 0.8), **FLOAT64)


def test_rotation_in_float32() -> None:
    result = depthflow.convergence(rotation(0.01, np.float32))
    assert_allclose(result.speed, 0.01, **FLOAT32)
    assert_allclose(result.path_length, 0.01 * BLOCKS, **FLOAT32)


@pytest.mark.parametrize(("factor", "radial"), [(2.0, 1.0), (0.5, -1.0), (1.7, 1.0), (0.3, -1.0)])
def test_rescaling_only(factor: float, radial: float) -> None:
    direction = np.random.default_rng(1).normal(size=FEATURES)
    result = depthflow.convergence(depthflow.trajectory(factor ** np.arange(BLOCKS + 1)[:, np.newaxis] * direction))
    assert_allclose(result.speed, 0.0, **FLOAT64)
    assert_allclose(result.radial_fraction, radial, **FLOAT64)
    assert_allclose(result.turning[1:], 0.0, **FLOAT64)
    assert np.isnan(result.straightness)


def test_reversal_turns_by_half_a_turn() -> None:
    start, step = np.random.default_rng(2).normal(size=(2, FEATURES))
    result = depthflow.convergence(depthflow.trajectory(np.stack([start, start + step, start])))
    assert_allclose(result.turning[1], np.pi, **FLOAT64)
    assert_allclose(result.straightness, 0.0, **EXACT)


def test_states_that_stand_still() -> None:
    state = np.random.default_rng(3).normal(size=FEATURES)
    result = depthflow.convergence(depthflow.trajectory(np.stack([state] * 4)))
    for name in ("angle", "speed", "path_length", "update_norm"):
        assert_allclose(result[name], 0.0, **EXACT, err_msg=name)
    for name in ("turning", "radial_fraction", "straightness"):
        assert np.isnan(result[name]).all(), name
    assert_allclose(result.settling_depth, 0.0, **EXACT)


def test_opposite_states() -> None:
    state = np.random.default_rng(4).normal(size=FEATURES)
    result = depthflow.convergence(depthflow.trajectory(np.stack([-2 * state, state])))
    assert_allclose(result.speed, np.pi, **FLOAT64)
    assert_allclose(result.alignment, [-1.0, 1.0], **FLOAT64)
    assert_allclose(result.radial_fraction, -1.0, **FLOAT64)


def test_settling_depth_is_the_first_that_stays() -> None:
    """The path comes within tolerance at depth 1, leaves, and is within for good from depth 4."""
    turn = np.array([1.0, 0.05, 0.6, 0.3, 0.1, 0.02, 0.0])
    traj = depthflow.trajectory(np.stack([np.cos(turn), np.sin(turn)], axis=1))
    assert depthflow.convergence(traj, tolerance=0.11).settling_depth == 4
    assert depthflow.convergence(traj, tolerance=0.01).settling_depth == 6
    assert depthflow.convergence(traj, tolerance=2.0).settling_depth == 0


def test_settling_depth_is_a_label_of_the_trajectory() -> None:
    turn = np.array([1.0, 0.05, 0.6, 0.3, 0.1, 0.02, 0.0])
    traj = depthflow.trajectory(np.stack([np.cos(turn), np.sin(turn)], axis=1)).isel(depth=slice(2, None))
    result = depthflow.convergence(traj, tolerance=0.11)
    assert result.settling_depth == 4
    assert result.block.values.tolist() == [3, 4, 5, 6]


def test_a_path_that_leaves_an_earlier_reference_never_settles() -> None:
    result = depthflow.convergence(rotation(0.1), reference=2, tolerance=0.15)
    assert_allclose(result.angle, 0.1 * np.abs(np.arange(BLOCKS + 1) - 2), **FLOAT64)
    assert result.angle[2] == 0.0
    assert np.isnan(result.settling_depth)


@pytest.mark.parametrize("labels", [[4, 5, 4], ["cat", "dog", "cat"]])
def test_a_direction_for_each_class(labels: list[int] | list[str]) -> None:
    """Samples of one class end at right angles to the other class's direction."""
    directions = xr.DataArray(np.eye(2, 5), dims=("label", "feature"), coords={"label": labels[:2]})
    states = np.zeros((3, 2, 1, 5))
    states[:, 0, 0, 4] = 1.0
    states[[0, 2], 1, 0, 0] = 2.0
    states[1, 1, 0, 1] = 3.0
    traj = depthflow.trajectory(states, label=labels)
    own = directions.sel(label=traj.label)
    assert_allclose(depthflow.convergence(traj, reference=own).angle[:, 1], 0.0, **EXACT)
    lazy = depthflow.convergence(traj.chunk(sample=2), reference=own)
    assert_allclose(lazy.angle[:, 1], 0.0, **EXACT)
    other = own.roll(feature=1)
    assert_allclose(depthflow.convergence(traj, reference=other).angle[1:, 1], np.pi / 2, **FLOAT64)
