"""Intervals and nulls: what they keep, what they destroy, and that a seed fixes them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import depthflow
from depthflow import resample
from depthflow.errors import ParameterError, TrajectoryError
from tests.tolerances import FLOAT64, STOCHASTIC


def mean_norm(traj: xr.DataArray) -> xr.Dataset:
    return xr.Dataset({"norm": np.sqrt((traj**2).sum("feature"))})


def test_bootstrap_interval_is_that_of_the_mean(traj):
    many = depthflow.trajectory(np.random.default_rng(1).normal(size=(400, 2, 3, 5)))
    result = depthflow.bootstrap(mean_norm, many, n=300, seed=3)
    norm = mean_norm(many).norm
    np.testing.assert_allclose(result.norm, norm.mean("sample"), **FLOAT64)
    width = 2 * 1.96 * norm.std("sample") / np.sqrt(400)
    np.testing.assert_allclose((result.norm_high - result.norm_low) / width, 1.0, **STOCHASTIC)
    xr.testing.assert_identical(result, depthflow.bootstrap(mean_norm, many, n=300, seed=3))
    assert not result.identical(depthflow.bootstrap(mean_norm, many, n=300, seed=4))


def test_bootstrap_of_a_matrix_measure():
    flow = depthflow.synthetic.phased_depth(lengths=(3, 2))
    result = depthflow.bootstrap(depthflow.similarity, flow, n=20)
    assert result.similarity_low.dims == ("block", "block_other")
    assert bool((result.similarity_low <= result.similarity_high).all())


@pytest.mark.parametrize("chunk", [1, 2])
def test_bootstrap_of_a_lazy_measure_is_that_of_memory(traj, chunk, monkeypatch):
    read = []

    def note(states: np.ndarray) -> np.ndarray:
        read.append(states.size)
        return states

    expected = depthflow.bootstrap(depthflow.convergence, traj, n=20)
    states = traj.chunk(sample=chunk).data.map_blocks(note, dtype=traj.dtype, meta=np.empty((0, 0, 0, 0)))
    monkeypatch.setattr(resample, "PART_BYTES", 1)
    found = depthflow.bootstrap(depthflow.convergence, traj.copy(data=states), n=20)
    xr.testing.assert_allclose(found, expected, **FLOAT64)
    assert sum(read) == 2 * traj.size, "once for the estimate, and once for all variables' draws"


def test_mean_interval_is_that_of_one_table_of_draws():
    values = np.random.default_rng(2).normal(size=57)
    rows = np.random.default_rng(7).integers(57, size=(90, 57))
    expected = (values.mean(), *np.percentile(values[rows].mean(axis=1), [2.5, 97.5]))
    assert resample.mean_interval(np.append(values, np.nan), n=90, seed=7) == expected
    assert np.isnan(resample.mean_interval(np.array([np.nan]))).all()


def test_bootstrap_leaves_labels_out():
    flow = depthflow.synthetic.spherical_sink(n_samples=30)
    result = depthflow.bootstrap(depthflow.basins, flow, n=5, n_basins=3, tokens=[0])
    assert "basin" not in result
    assert not {"center", "occupancy", "concentration"} & set(result)  # every resample numbers its clusters anew
    assert "silhouette_low" in result
    assert "ari_low" in result


def test_bootstrap_needs_samples_and_fixed_sizes(traj):
    with pytest.raises(TrajectoryError, match="at least two; got 1"):
        depthflow.bootstrap(mean_norm, traj.isel(sample=[0]))
    with pytest.raises(ParameterError, match="at least 2 resamples; got 1"):
        depthflow.bootstrap(mean_norm, traj, n=1)

    def grows(part: xr.DataArray) -> xr.Dataset:
        return xr.Dataset({"found": ("mode", np.arange(float(len(set(part.sample.values.tolist())))))})

    with pytest.raises(ParameterError, match=r"'found' changed its shape .*n_basins or n_phases"):
        depthflow.bootstrap(grows, traj, n=50)


def test_shuffle_depth_permutes_whole_states(traj):
    shuffled = depthflow.shuffle_depth(traj, seed=1)
    order = shuffled.attrs["shuffled_depth"]
    assert sorted(order) == list(range(6))
    assert order != list(range(6))
    np.testing.assert_array_equal(shuffled.values, traj.values[:, order])
    np.testing.assert_array_equal(shuffled.depth, traj.depth)


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_random_directions_keep_norms_and_nothing_else(traj, chunk):
    given = traj if chunk is None else traj.chunk(sample=chunk, depth=2)
    null = depthflow.random_directions(given, seed=5).compute()
    xr.testing.assert_identical(null, depthflow.random_directions(traj, seed=5))
    np.testing.assert_allclose(mean_norm(null).norm, mean_norm(traj).norm, **FLOAT64)
    assert null.dims == traj.dims
    cosine = (null * traj).sum("feature") / (mean_norm(traj).norm ** 2)
    assert float(np.abs(cosine).mean()) < 0.5


def test_random_directions_of_labelled_chunks_can_be_chunked_on(traj):
    chunked = traj.copy(data=traj.chunk(sample=1).data)
    null = depthflow.random_directions(chunked)
    assert null.chunksizes["sample"] == (1, 1, 1)
    xr.testing.assert_identical(null.compute(), depthflow.random_directions(traj))


def test_random_directions_without_optional_dims(traj):
    path = traj.isel(sample=0, token=0, drop=True)
    null = depthflow.random_directions(path)
    assert null.dims == ("depth", "feature")
    np.testing.assert_allclose(mean_norm(null).norm, mean_norm(path).norm, **FLOAT64)


def test_random_directions_are_uniform():
    flow = depthflow.synthetic.rotation(n_samples=500, n_depths=2, n_tokens=3, n_features=4)
    null = depthflow.random_directions(flow)
    second_moment = np.einsum("sdti,sdtj->ij", null, null) / null.isel(feature=0).size
    np.testing.assert_allclose(second_moment, np.eye(4) / 4, **STOCHASTIC)
