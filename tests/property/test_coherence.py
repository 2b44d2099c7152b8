"""What must hold of coherence for any states."""

from __future__ import annotations

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import depthflow
from tests.tolerances import FLOAT64

SAMPLES, DEPTHS, TOKENS, FEATURES = 3, 6, 7, 11
NAMES = ("coherence", "update_coherence", "angle_to_mean", "clusters_energy")

seeds = st.integers(0, 2**32 - 1)
light = settings(max_examples=20, deadline=None)


def draw(seed: int) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng, rng.normal(0.2, 1.0, size=(SAMPLES, DEPTHS, TOKENS, FEATURES))


def measure(states: np.ndarray, beta: float = 2.0) -> xr.Dataset:
    return depthflow.coherence(depthflow.trajectory(states), tokens=None, beta=beta)


@light
@given(seed=seeds)
def test_rotating_the_feature_space_changes_nothing(seed: int) -> None:
    rng, states = draw(seed)
    rotation = np.linalg.qr(rng.normal(size=(FEATURES, FEATURES)))[0]
    whole, rotated = measure(states), measure(states @ rotation)
    for name in NAMES:
        assert_allclose(rotated[name], whole[name], **FLOAT64, err_msg=name)


@light
@given(seed=seeds)
def test_rescaling_each_state_changes_nothing_of_the_states(seed: int) -> None:
    rng, states = draw(seed)
    scale = 10.0 ** rng.uniform(-3, 3, size=(SAMPLES, DEPTHS, TOKENS, 1))
    whole, scaled = measure(states), measure(states * scale)
    for name in ("coherence", "angle_to_mean", "clusters_energy"):
        assert_allclose(scaled[name], whole[name], **FLOAT64, err_msg=name)


@light
@given(seed=seeds, cut=st.integers(1, SAMPLES))
def test_order_and_chunks_do_not_matter(seed: int, cut: int) -> None:
    rng, states = draw(seed)
    traj = depthflow.trajectory(states)
    whole = depthflow.coherence(traj, tokens=None)
    samples, tokens = rng.permutation(SAMPLES), rng.permutation(TOKENS)
    shuffled = depthflow.coherence(traj.isel(sample=samples, token=tokens), tokens=None)
    xr.testing.assert_allclose(shuffled, whole.isel(sample=samples, token=tokens), **FLOAT64)
    chunked = depthflow.coherence(traj.chunk(sample=cut, token=2), tokens=None)
    xr.testing.assert_identical(chunked.compute(), whole)


@light
@given(seed=seeds, beta=st.floats(0.1, 20.0))
def test_bounds(seed: int, beta: float) -> None:
    """Jensen's inequality puts the energy above exp(β(R² − 1)), as R² is the mean cosine of all pairs."""
    _, states = draw(seed)
    result = measure(states, beta)
    for name in ("coherence", "update_coherence"):
        assert result[name].min() >= 0, name
        assert result[name].max() <= 1, name
    assert (result.clusters_energy <= 1).all()
    assert (result.clusters_energy >= np.exp(beta * (result.coherence**2 - 1)) - FLOAT64["atol"]).all()
