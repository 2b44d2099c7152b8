"""update_spectra: labels, laziness, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest

import depthflow
from depthflow.errors import ParameterError, TrajectoryError


def test_dims_coords_units(traj):
    result = depthflow.update_spectra(traj)
    assert dict(result.sizes) == {"sample": 3, "block": 5, "mode": 7}
    assert result.singular_value.dims == ("sample", "block", "mode")
    assert result.stable_rank.dims == ("sample", "block")
    assert result.block.values.tolist() == [1, 2, 3, 4, 5]
    assert result.mode.values.tolist() == list(range(1, 8))
    assert result.module.values.tolist() == [f"blocks.{index}" for index in range(5)]
    assert result.label.values.tolist() == [4, 5, 4]
    assert result.singular_value.attrs["units"] == "state unit"
    assert all(result[name].attrs["long_name"] for name in result.data_vars)
    assert result.attrs["energy"] == 0.9


def test_without_samples_and_pooled(traj):
    alone = depthflow.update_spectra(traj.isel(sample=0))
    assert dict(alone.sizes) == {"block": 5, "mode": 7}
    pooled = depthflow.update_spectra(traj, pool=True)
    assert dict(pooled.sizes) == {"block": 5, "mode": 11}
    assert pooled.module.dims == ("block",)
    assert depthflow.update_spectra(traj.isel(token=0, drop=True), pool=True).sizes["mode"] == 3


def test_dask_stays_lazy_unless_pooled(traj):
    lazy = depthflow.update_spectra(traj.chunk(sample=1))
    assert lazy.stable_rank.chunks == ((1, 1, 1), (5,))


def test_input_is_left_as_it_was(traj):
    before = traj.copy(deep=True)
    depthflow.update_spectra(traj, center=True)
    depthflow.update_spectra(traj, center=True, pool=True)
    assert traj.identical(before)


def test_results_can_be_stored(traj, tmp_path):
    depthflow.update_spectra(traj).to_zarr(tmp_path / "spectra.zarr", zarr_format=3, consolidated=False)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_named(traj, pool, value):
    broken = traj.copy(deep=True)
    broken[2, 4, 5, 9] = value
    expected = rf"finite states; got {value} first at sample 2, depth 4, token 5, feature 9 \(1 in this part\)"
    with pytest.raises(TrajectoryError, match=expected):
        depthflow.update_spectra(broken, pool=pool)
    with pytest.raises(TrajectoryError, match=expected):
        depthflow.update_spectra(broken.chunk(sample=1), pool=pool).compute()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"energy": 0}, r"energy is a share in \(0, 1\]; got 0"),
        ({"energy": 1.5}, r"energy is a share in \(0, 1\]; got 1.5"),
        ({"energy": np.nan}, "got nan"),
        ({"n_modes": 0}, "n_modes is a number of singular values, at least 1; got 0"),
        ({"n_modes": 2.5}, "got 2.5"),
        ({"n_modes": 8}, "n_modes=8, but a matrix of 7 rows and 11 features has 7. Ask for fewer"),
        ({"n_modes": 0, "energy": 2}, "2 faults"),
        ({"tokens": "reg"}, r"type 'reg', which this trajectory lacks; it has \['cls', 'patch'\]"),
    ],
)
def test_parameters_out_of_range(traj, kwargs, message):
    with pytest.raises(ParameterError, match=message):
        depthflow.update_spectra(traj, **kwargs)


def test_trajectories_that_cannot_be_used(traj):
    with pytest.raises(TrajectoryError, match=r"has no dim 'token'. Pass pool=True"):
        depthflow.update_spectra(traj.isel(token=0, drop=True))
    with pytest.raises(TrajectoryError, match="center=True needs at least two rows a matrix; got 1"):
        depthflow.update_spectra(traj, tokens="cls", center=True)
    with pytest.raises(TrajectoryError, match=r"consecutive depths.*got depth 0 followed by 2"):
        depthflow.update_spectra(traj.isel(depth=[0, 2, 3]))
    with pytest.raises(TrajectoryError, match="needs a trajectory"):
        depthflow.update_spectra(traj.values)
