"""Coherence's door: labels, units, inputs of every form, and what each mistake is answered with."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import depthflow
from depthflow.errors import ParameterError, TrajectoryError
from tests.tolerances import EXACT, FLOAT64


def test_variables_dims_units_and_coords(traj: xr.DataArray) -> None:
    result = depthflow.coherence(traj, beta=3)
    dims = {name: result[name].dims for name in result.data_vars}
    assert dims == {
        "coherence": ("sample", "depth"),
        "update_coherence": ("sample", "block"),
        "angle_to_mean": ("sample", "depth", "token"),
        "clusters_energy": ("sample", "depth"),
    }
    assert result.angle_to_mean.attrs["units"] == "rad"
    assert result.clusters_energy.attrs["long_name"] == "interaction energy of the tokens"
    assert result.token.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert result.block.values.tolist() == [1, 2, 3, 4, 5]
    assert result.label.values.tolist() == [4, 5, 4]
    assert result.attrs["beta"] == 3.0
    assert all(result[name].notnull().all() for name in result.data_vars)


def test_patches_by_default_and_any_tokens_by_choice(traj: xr.DataArray) -> None:
    patches = depthflow.coherence(traj)
    xr.testing.assert_identical(patches, depthflow.coherence(traj.isel(token=slice(1, None)), tokens=None))
    everything = depthflow.coherence(traj, tokens=None)
    assert everything.sizes["token"] == 7
    assert not np.allclose(everything.coherence, patches.coherence)
    assert_allclose(depthflow.coherence(traj, tokens="cls").coherence, 1.0, **FLOAT64)


def test_dask_is_lazy_and_gives_the_same(traj: xr.DataArray) -> None:
    lazy = depthflow.coherence(traj.chunk(sample=2, token=3, feature=5))
    assert isinstance(lazy.clusters_energy.data, da.Array)
    xr.testing.assert_identical(lazy.compute(), depthflow.coherence(traj))


def test_many_clouds_of_tokens_keep_their_places() -> None:
    """More samples and depths than one thread takes at a time."""
    states = np.random.default_rng(1).normal(size=(9, 5, 4, 3))
    whole = depthflow.coherence(depthflow.trajectory(states), tokens=None)
    alone = depthflow.coherence(depthflow.trajectory(states[7:8]), tokens=None)
    assert_allclose(whole.clusters_energy[7], alone.clusters_energy[0], **EXACT)


def test_a_trajectory_of_one_sample(traj: xr.DataArray) -> None:
    part = depthflow.coherence(traj.isel(sample=1, drop=True))
    assert part.coherence.dims == ("depth",)
    assert_allclose(part.clusters_energy, depthflow.coherence(traj).clusters_energy[1], **EXACT)


def test_half_precision_is_read_as_it_is(traj: xr.DataArray) -> None:
    half = traj.astype(np.float16)
    xr.testing.assert_identical(depthflow.coherence(half), depthflow.coherence(half.astype(np.float32)))


def test_tokens_that_cannot_be(traj: xr.DataArray) -> None:
    with pytest.raises(TrajectoryError, match=r"needs the dim 'token'; got \('sample', 'depth', 'feature'\)"):
        depthflow.coherence(traj.isel(token=0, drop=True))
    with pytest.raises(ParameterError, match=r"type 'patch'.*it has \['token'\].*indices"):
        depthflow.coherence(depthflow.trajectory(traj.values))


@pytest.mark.parametrize("beta", [np.nan, np.inf, "1", None])
def test_betas_that_cannot_be(traj: xr.DataArray, beta: object) -> None:
    with pytest.raises(ParameterError, match=f"finite number as beta; got {beta!r}"):
        depthflow.coherence(traj, beta=beta)


def test_skipped_depths(traj: xr.DataArray) -> None:
    with pytest.raises(TrajectoryError, match="depth 1 followed by 3"):
        depthflow.coherence(traj.isel(depth=[0, 1, 3]))


@pytest.mark.parametrize(("value", "words"), [(0.0, "zero-norm"), (np.nan, "norm nan"), (np.inf, "norm inf")])
def test_a_state_without_a_direction_is_named(traj: xr.DataArray, value: float, words: str) -> None:
    broken = traj.copy()
    broken[1, 4, 2] = value
    with pytest.raises(TrajectoryError, match=f"{words}.*sample 1, depth 4, token 2.*allow_nan=True"):
        depthflow.coherence(broken)
    result = depthflow.coherence(broken, allow_nan=True)
    for name in ("coherence", "clusters_energy"):
        assert np.argwhere(np.isnan(result[name].values)).tolist() == [[1, 4]], name
    assert result.angle_to_mean[1, 4].isnull().all()
    xr.testing.assert_identical(
        depthflow.coherence(broken, tokens=[1, 3, 4]), depthflow.coherence(traj, tokens=[1, 3, 4])
    )
