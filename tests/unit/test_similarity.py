"""similarity: labels, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest

import depthflow
from depthflow.errors import ParameterError, TrajectoryError
from tests.tolerances import FLOAT64


def test_name_dims_coords_units(traj):
    got = depthflow.similarity(traj)
    assert (got.name, got.dims, got.shape) == ("similarity", ("block", "block_other"), (5, 5))
    assert got.block.values.tolist() == got.block_other.values.tolist() == [1, 2, 3, 4, 5]
    assert got.module.values.tolist() == [f"blocks.{index}" for index in range(5)]
    assert (got.attrs["units"], got.attrs["metric"]) == ("1", "cosine")


def test_the_input_takes_part_when_asked(traj):
    got = depthflow.similarity(traj, include_input=True)
    assert got.block.values.tolist() == [0, 1, 2, 3, 4, 5]
    assert got.module.values.tolist() == ["", *(f"blocks.{index}" for index in range(5))]
    np.testing.assert_allclose(got[1:, 1:], depthflow.similarity(traj), **FLOAT64)


def test_depths_keep_their_numbers(traj):
    got = depthflow.similarity(traj.isel(depth=[2, 4, 5]))
    assert got.block.values.tolist() == [2, 4, 5]
    assert got.module.values.tolist() == ["blocks.1", "blocks.3", "blocks.4"]
    np.testing.assert_allclose(got, depthflow.similarity(traj).sel(block=[2, 4, 5], block_other=[2, 4, 5]), **FLOAT64)


def test_tokens_and_missing_dims(traj):
    patches = depthflow.similarity(traj, tokens="patch")
    by_hand = depthflow.similarity(traj.isel(token=slice(1, None)))
    np.testing.assert_allclose(patches, by_hand, **FLOAT64)
    assert depthflow.similarity(traj.isel(sample=0, token=0)).shape == (5, 5)


def test_half_precision_and_any_order_of_dims(traj):
    plain = depthflow.similarity(traj)
    np.testing.assert_allclose(
        depthflow.similarity(traj.transpose("feature", "token", "depth", "sample")), plain, **FLOAT64
    )
    half = traj.astype(np.float16)
    np.testing.assert_allclose(depthflow.similarity(half), depthflow.similarity(half.astype(np.float64)), **FLOAT64)


def test_a_state_without_direction_is_named(traj):
    broken = traj.copy(deep=True)
    broken[1, 3, 2] = 0.0
    with pytest.raises(TrajectoryError, match="zero-norm state, which has no direction, first at sample 1, depth 3"):
        depthflow.similarity(broken)
    broken[1, 3, 2, 4] = np.nan
    with pytest.raises(TrajectoryError, match="a state of norm nan, first at sample 1, depth 3, token 2"):
        depthflow.similarity(broken.chunk(sample=1))
    broken[:, 0] = np.nan
    broken[1, 3, 2] = 1.0
    assert np.isfinite(depthflow.similarity(broken)).all()


@pytest.mark.parametrize("metric", ["cka", "procrustes"])
def test_depths_that_do_not_vary_or_are_not_finite(metric):
    states = np.random.default_rng(0).normal(size=(6, 4, 11))
    traj = depthflow.trajectory(states, dims=("sample", "depth", "feature"))
    still = traj.copy(deep=True)
    still[:, 2] = 0.3
    with pytest.raises(
        TrajectoryError, match="undefined at depth 2, where the states do not vary from sample to sample, or all are"
    ):
        depthflow.similarity(still, metric=metric)
    broken = traj.copy(deep=True)
    broken[4, 3, 7] = np.inf
    with pytest.raises(TrajectoryError, match="finite states; got inf first at sample 4, depth 3, token 0, feature 7"):
        depthflow.similarity(broken, metric=metric)


def test_too_few_samples(traj):
    with pytest.raises(TrajectoryError, match="metric='cka' compares samples and needs at least 4; got 3"):
        depthflow.similarity(traj, metric="cka")
    with pytest.raises(TrajectoryError, match="metric='procrustes' compares samples and needs at least 2; got 1"):
        depthflow.similarity(traj.isel(sample=0), metric="procrustes")


def test_parameters(traj):
    with pytest.raises(ParameterError, match=r"knows the metrics \('cosine', 'cka', 'procrustes'\); got 'cosin'"):
        depthflow.similarity(traj, metric="cosin")
    with pytest.raises(ParameterError, match="tokens of type 'reg'"):
        depthflow.similarity(traj, tokens="reg")
    with pytest.raises(TrajectoryError, match="needs a trajectory"):
        depthflow.similarity(np.eye(3))
