"""What must hold of convergence for any states."""

from __future__ import annotations

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import depthflow
from tests.tolerances import EXACT, FLOAT64, ROUNDED_STATES

SAMPLES, DEPTHS, TOKENS, FEATURES = 3, 6, 7, 11
ANGULAR = ("alignment", "angle", "speed", "path_length", "straightness")
BOUNDS = {
    "alignment": (-1, 1),
    "angle": (0, np.pi),
    "speed": (0, np.pi),
    "turning": (0, np.pi),
    "radial_fraction": (-1, 1),
    "straightness": (0, 1),
}

seeds = st.integers(0, 2**32 - 1)
light = settings(max_examples=25, deadline=None)


def draw(seed: int) -> tuple[np.random.Generator, np.ndarray]:
    """Return states whose norms and steps differ by orders of magnitude."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES)) * 10.0 ** rng.uniform(-4, 1, size=(1, DEPTHS, 1, 1))
    return rng, rng.normal(size=(SAMPLES, 1, TOKENS, FEATURES)) + np.cumsum(steps, axis=1)


def measure(states: np.ndarray, **kwargs: object) -> xr.Dataset:
    return depthflow.convergence(depthflow.trajectory(states), **kwargs)


@light
@given(seed=seeds)
def test_rotating_the_feature_space_changes_nothing(seed: int) -> None:
    rng, states = draw(seed)
    rotation = np.linalg.qr(rng.normal(size=(FEATURES, FEATURES)))[0]
    whole, rotated = measure(states), measure(states @ rotation)
    for name in (*ANGULAR, "norm", "update_norm"):
        assert_allclose(rotated[name], whole[name], **ROUNDED_STATES, err_msg=name)


@light
@given(seed=seeds)
def test_rescaling_each_state_changes_no_angle_between_states(seed: int) -> None:
    rng, states = draw(seed)
    scale = 10.0 ** rng.uniform(-3, 3, size=(SAMPLES, DEPTHS, TOKENS, 1))
    whole, scaled = measure(states), measure(states * scale)
    for name in ANGULAR:
        assert_allclose(scaled[name], whole[name], **ROUNDED_STATES, err_msg=name)


@light
@given(seed=seeds, exponent=st.integers(-8, 8))
def test_rescaling_the_whole_trajectory_changes_lengths_only(seed: int, exponent: int) -> None:
    _, states = draw(seed)
    whole, scaled = measure(states), measure(states * 2.0**exponent)
    for name in (*ANGULAR, "turning", "radial_fraction", "settling_depth"):
        assert_allclose(scaled[name], whole[name], **EXACT, err_msg=name)
    for name in ("norm", "update_norm"):
        assert_allclose(scaled[name], whole[name] * 2.0**exponent, **FLOAT64, err_msg=name)


@light
@given(seed=seeds, cut=st.integers(1, SAMPLES))
def test_order_and_chunks_of_samples_and_tokens_do_not_matter(seed: int, cut: int) -> None:
    rng, states = draw(seed)
    whole = depthflow.convergence(depthflow.trajectory(states))
    samples, tokens = rng.permutation(SAMPLES), rng.permutation(TOKENS)
    shuffled = depthflow.trajectory(states).isel(sample=samples, token=tokens)
    xr.testing.assert_identical(depthflow.convergence(shuffled), whole.isel(sample=samples, token=tokens))
    chunked = depthflow.trajectory(states).chunk(sample=cut, depth=2, feature=5)
    xr.testing.assert_identical(depthflow.convergence(chunked).compute(), whole)


@light
@given(seed=seeds)
def test_reversing_depth_reverses_the_path(seed: int) -> None:
    _, states = draw(seed)
    whole, back = measure(states, reference=0), measure(states[:, ::-1])
    assert_allclose(back.angle[:, ::-1], whole.angle, **FLOAT64)
    assert_allclose(back.speed[:, ::-1], whole.speed, **FLOAT64)
    assert_allclose(back.straightness, whole.straightness, **FLOAT64)
    assert_allclose(back.turning[:, :0:-1], whole.turning[:, 1:], **ROUNDED_STATES)


@light
@given(seed=seeds, tolerance=st.floats(0.01, 3.0))
def test_bounds_and_the_triangle_inequality(seed: int, tolerance: float) -> None:
    _, states = draw(seed)
    result = measure(states.astype(np.float32), tolerance=tolerance)
    for name, (low, high) in BOUNDS.items():
        values = result[name].values[~np.isnan(result[name].values)]
        assert values.min() >= low, name
        assert values.max() <= high, name
    assert (result.angle.isel(depth=0) <= result.path_length + FLOAT64["atol"]).all()
    settled = result.angle.where(result.depth >= result.settling_depth, 0.0)
    assert (settled <= tolerance).all()


@light
@given(seed=seeds, position=st.integers(0, DEPTHS - 1))
def test_a_depth_and_its_states_as_directions_are_the_same_reference(seed: int, position: int) -> None:
    _, states = draw(seed)
    traj = depthflow.trajectory(states)
    by_depth = depthflow.convergence(traj, reference=position)
    by_states = depthflow.convergence(traj, reference=traj.isel(depth=position, drop=True))
    assert_array_equal(by_states.angle.isel(depth=position), 0.0)
    assert_allclose(by_states.angle, by_depth.angle, **FLOAT64)
