"""phases: labels, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import depthflow
from depthflow.errors import ParameterError, TrajectoryError
from tests.tolerances import FLOAT64

SIMILARITY = np.where(np.arange(6)[:, None] // 3 == np.arange(6)[None, :] // 3, 1.0, 0.25)


def test_dims_coords_units(traj):
    got = depthflow.phases(traj, 2, n_boot=4, n_null=6)
    assert dict(got.sizes) == {"block": 5, "block_other": 5, "phase": 2, "n_phases": 5, "null": 6}
    assert got.phase.dims == ("block",)
    assert got.boundary.dims == ("phase",)
    assert got.boundary.values[-1] == 5
    assert got.block.values.tolist() == [1, 2, 3, 4, 5]
    assert got.module.values.tolist() == [f"blocks.{index}" for index in range(5)]
    assert got.similarity.dims == ("block", "block_other")
    assert got.boundary_probability.dims == ("block",)
    assert got.boundary_probability.values[-1] == 1
    for name in ("contrast", "contrast_low", "contrast_high", "p_value"):
        assert got[name].dims == ()
    assert all(got[name].attrs["units"] == "1" for name in [*got.data_vars, "phase"])
    assert all(got[name].attrs["long_name"] for name in [*got.data_vars, "phase"])
    assert got.attrs == {"method": "optimal", "min_size": 1, "metric": "cosine"}


def test_results_can_be_stored(traj, tmp_path):
    got = depthflow.phases(traj, n_boot=4, n_null=6)
    got.to_zarr(tmp_path / "phases.zarr", zarr_format=3, consolidated=False)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "phases.zarr", consolidated=False).load(), got)


def test_boundaries_are_block_numbers(traj):
    got = depthflow.phases(traj.isel(depth=[2, 4, 5]), 2)
    assert got.block.values.tolist() == [2, 4, 5]
    assert set(got.boundary.values) <= {2, 4, 5}
    assert got.boundary.values[-1] == 5


@pytest.mark.parametrize(
    "given",
    [
        SIMILARITY,
        SIMILARITY.tolist(),
        SIMILARITY.astype(np.float32),
        xr.DataArray(SIMILARITY, dims=("a", "b")),
        SIMILARITY + 1e-8 * np.triu(np.ones((6, 6)), 1),
    ],
)
def test_similarities_of_any_kind(given):
    got = depthflow.phases(given)
    assert got.boundary.values.tolist() == [3, 6]
    assert got.attrs["metric"] == "given"
    np.testing.assert_allclose(got.similarity, got.similarity.values.T, **FLOAT64)


def test_a_given_similarity_keeps_its_labels_and_values():
    given = xr.DataArray(SIMILARITY, dims=("layer", "other"), coords={"layer": [2, 4, 6, 8, 10, 12]})
    before = given.copy(deep=True)
    got = depthflow.phases(given, 2)
    assert got.boundary.values.tolist() == [6, 12]
    assert got.block_other.values.tolist() == [2, 4, 6, 8, 10, 12]
    xr.testing.assert_identical(given, before)


def test_one_block():
    states = np.random.default_rng(0).normal(size=(4, 2, 3))
    got = depthflow.phases(depthflow.trajectory(states, dims=("sample", "depth", "feature")))
    assert got.boundary.values.tolist() == [1]


def asymmetric():
    broken = SIMILARITY.copy()
    broken[1, 4] = 0.5
    return broken


def not_finite():
    broken = SIMILARITY.copy()
    broken[3, 2] = broken[2, 3] = np.nan
    return broken


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SIMILARITY[:4], r"a square similarity of at least two blocks; got an array of shape \(4, 6\)"),
        (np.ones((1, 1)), r"got an array of shape \(1, 1\)"),
        (np.ones((3, 6, 7, 11)), r"shape \(3, 6, 7, 11\).*depthflow.trajectory\(states\)"),
        (asymmetric(), r"symmetric similarity; got 0.25 at \(4, 1\) and 0.5 at \(1, 4\)|got 0.5 at \(1, 4\)"),
        (not_finite(), r"needs a finite similarity; got nan first at \(2, 3\)"),
        (1 - SIMILARITY, r"got zeros, as a distance has. Pass 1 − distance"),
        (SIMILARITY.astype(str), "a similarity of real numbers; got ndarray"),
        ("digits", "a similarity of real numbers; got str"),
        (SIMILARITY * 1j, "a similarity of real numbers"),
    ],
)
def test_what_is_no_similarity(data, message):
    with pytest.raises(ParameterError, match=message):
        depthflow.phases(data)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_phases": 0}, "room for 1 to 6 phases of at least 1 of 6 blocks; got n_phases=0"),
        ({"n_phases": 7}, "got n_phases=7"),
        ({"n_phases": 2.0}, "got n_phases=2.0"),
        ({"n_phases": 4, "min_size": 2}, "room for 1 to 3 phases of at least 2 of 6 blocks; got n_phases=4"),
        ({"min_size": 7}, "min_size between 1 and the number of blocks, 6; got 7"),
        ({"min_size": 0}, "got 0"),
        ({"max_phases": 9}, "got max_phases=9"),
        ({"n_phases": 4, "max_phases": 2}, "needs n_phases up to max_phases; got 4 and 2"),
        ({"threshold": 1.0}, r"threshold as a share in \[0, 1\); got 1.0"),
        ({"method": "greedy"}, r"knows the methods \('optimal', 'bisection'\); got 'greedy'"),
        ({"n_null": -1}, "n_null as a number, 0 for none; got -1"),
        ({"n_phases": 3, "min_size": 2, "method": "bisection"}, "bisection finds room for 2.*Use method='optimal'"),
        ({"n_boot": 5}, "needs a trajectory for n_boot=…; got a similarity"),
        ({"tokens": "cls"}, "needs a trajectory for tokens"),
        ({"metric": "cka"}, "needs a trajectory for metric"),
        ({"method": "greedy", "threshold": 2, "n_phases": 9}, "3 faults"),
    ],
)
def test_parameters_that_do_not_fit(kwargs, message):
    with pytest.raises(ParameterError, match=message):
        depthflow.phases(SIMILARITY, **kwargs)


def test_trajectories_that_cannot_be_used(traj):
    with pytest.raises(TrajectoryError, match="resamples samples with n_boot and needs at least two; got 1"):
        depthflow.phases(traj.isel(sample=[0]), n_boot=3)
    with pytest.raises(ParameterError, match="phases knows the metrics"):
        depthflow.phases(traj, metric="angle")
    with pytest.raises(TrajectoryError, match="phases with metric='cka' compares samples"):
        depthflow.phases(traj, metric="cka")
    with pytest.raises(TrajectoryError, match=r"phases: needs the dims"):
        depthflow.phases(traj.rename(depth="layer"))
    with pytest.raises(ParameterError, match="n_boot as a number"):
        depthflow.phases(traj, n_boot=-2)
    broken = traj.copy(deep=True)
    broken[2, 3, 1] = 0.0
    with pytest.raises(TrajectoryError, match=r"phases found a zero-norm state.*sample 2, depth 3, token 1"):
        depthflow.phases(broken)
