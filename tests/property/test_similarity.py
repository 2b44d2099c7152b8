"""What must hold of the similarity of any states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import depthflow
from tests.tolerances import FLOAT32, FLOAT64

METRICS = ("cosine", "cka", "procrustes")


def states(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(9, 6, 7, 11)).cumsum(1)


def similarity(values: np.ndarray, metric: str, **kwargs):
    return depthflow.similarity(depthflow.trajectory(values), metric=metric, **kwargs)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), metric=st.sampled_from(METRICS))
def test_a_rotation_and_an_order_of_samples_and_tokens_change_nothing(seed, metric):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(11, 11)))[0]
    moved = states(seed)[rng.permutation(9)][:, :, rng.permutation(7)] @ rotation
    np.testing.assert_allclose(similarity(moved, metric), similarity(states(seed), metric), **FLOAT64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), metric=st.sampled_from(METRICS))
def test_a_positive_scale_a_depth_changes_nothing(seed, metric):
    scale = np.random.default_rng(seed).uniform(0.1, 10, size=(6, 1, 1))
    np.testing.assert_allclose(similarity(scale * states(seed), metric), similarity(states(seed), metric), **FLOAT64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_cosine_knows_a_scale_for_every_token(seed):
    scale = np.random.default_rng(seed).uniform(0.1, 10, size=(9, 6, 7, 1))
    np.testing.assert_allclose(
        similarity(scale * states(seed), "cosine"), similarity(states(seed), "cosine"), **FLOAT64
    )


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), metric=st.sampled_from(METRICS), rows=st.integers(1, 9))
def test_chunked_equals_whole_and_float32_equals_float64(seed, metric, rows):
    traj = depthflow.trajectory(states(seed), token_type=["cls"] + ["patch"] * 6)
    whole = depthflow.similarity(traj, metric=metric, tokens="patch")
    chunked = depthflow.similarity(traj.chunk(sample=rows, depth=4), metric=metric, tokens="patch")
    np.testing.assert_allclose(chunked, whole, **FLOAT64)
    single = depthflow.similarity(traj.astype(np.float32), metric=metric, tokens="patch")
    np.testing.assert_allclose(single, whole, **FLOAT32)


@pytest.mark.parametrize("metric", METRICS)
def test_more_samples_than_a_part_holds(metric, monkeypatch):
    whole = similarity(states(0), metric)
    monkeypatch.setattr("depthflow.measures._chunks.PART_BYTES", 2 * states(0)[0].nbytes)
    np.testing.assert_allclose(similarity(states(0), metric), whole, **FLOAT64)
