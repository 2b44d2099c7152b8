"""Convergence's door: labels, units, inputs of every form, and what each mistake is answered with."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import depthflow
from depthflow.errors import ParameterError, TrajectoryError
from tests.tolerances import EXACT, FLOAT32

PER_DEPTH = ("norm", "alignment", "angle")
PER_BLOCK = ("speed", "turning", "update_norm", "radial_fraction")
PER_PATH = ("path_length", "straightness", "settling_depth")


def test_variables_dims_units_and_coords(traj: xr.DataArray) -> None:
    result = depthflow.convergence(traj)
    assert set(result.data_vars) == {*PER_DEPTH, *PER_BLOCK, *PER_PATH}
    for names, dims in (
        (PER_DEPTH, ("sample", "depth", "token")),
        (PER_BLOCK, ("sample", "block", "token")),
        (PER_PATH, ("sample", "token")),
    ):
        for name in names:
            assert result[name].dims == dims, name
            assert result[name].dtype == np.float64
            assert result[name].attrs["long_name"]
    units = {
        name: result[name].attrs["units"] for name in ("angle", "speed", "alignment", "update_norm", "path_length")
    }
    assert units == {
        "angle": "rad",
        "speed": "rad/block",
        "alignment": "1",
        "update_norm": "state unit",
        "path_length": "rad",
    }
    assert result.depth.values.tolist() == [0, 1, 2, 3, 4, 5]
    assert result.block.values.tolist() == [1, 2, 3, 4, 5]
    assert result.module.values.tolist() == [f"blocks.{index}" for index in range(5)]
    assert result.label.values.tolist() == [4, 5, 4]
    assert {"token_type", "row", "col"} <= set(result.coords)
    assert result.attrs["reference"] == "final"
    assert result.attrs["tolerance"] == 0.1


def test_only_the_first_block_has_no_turning(traj: xr.DataArray) -> None:
    result = depthflow.convergence(traj)
    assert result.turning.sel(block=1).isnull().all()
    assert result.turning.sel(block=slice(2, None)).notnull().all()
    assert result.drop_vars("turning").notnull().all().to_array().all()


def test_dask_is_lazy_and_gives_the_same(traj: xr.DataArray) -> None:
    whole = depthflow.convergence(traj)
    lazy = depthflow.convergence(traj.chunk(sample=2, depth=4, token=3, feature=5))
    assert isinstance(lazy.angle.data, da.Array)
    assert lazy.angle.chunksizes["sample"] == (2, 1)
    xr.testing.assert_identical(lazy.compute(), whole)


def test_the_result_goes_to_a_store_and_back(traj: xr.DataArray, tmp_path) -> None:
    result = depthflow.convergence(traj).drop_vars(["token_type", "module"])
    result.to_zarr(tmp_path / "result.zarr", consolidated=False)
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "result.zarr", consolidated=False).compute(), result)


@pytest.mark.parametrize("absent", [["sample"], ["token"], ["sample", "token"]])
def test_a_trajectory_without_samples_or_tokens(traj: xr.DataArray, absent: list[str]) -> None:
    chosen = dict.fromkeys(absent, 1)
    part = depthflow.convergence(traj.isel(chosen, drop=True))
    whole = depthflow.convergence(traj).isel(chosen, drop=True)
    assert part.angle.dims == whole.angle.dims
    for name in whole.data_vars:
        assert_allclose(part[name], whole[name], **EXACT, err_msg=name)


def test_swapped_dims_are_read_by_name(traj: xr.DataArray) -> None:
    swapped = depthflow.convergence(traj.transpose("feature", "token", "depth", "sample"))
    xr.testing.assert_identical(swapped, depthflow.convergence(traj))


def test_half_precision_is_read_as_it_is(traj: xr.DataArray) -> None:
    half = traj.astype(np.float16)
    xr.testing.assert_identical(depthflow.convergence(half), depthflow.convergence(half.astype(np.float32)))
    assert_allclose(depthflow.convergence(half).angle, depthflow.convergence(half.astype(np.float64)).angle, **FLOAT32)


def test_strided_states(traj: xr.DataArray) -> None:
    part = traj.isel(sample=slice(None, None, 2), token=slice(None, None, -2), feature=slice(1, None, 3))
    copy = part.copy(data=np.ascontiguousarray(part.values))
    xr.testing.assert_identical(depthflow.convergence(part), depthflow.convergence(copy))


def test_tokens_are_chosen_before_anything_is_measured(traj: xr.DataArray) -> None:
    whole = depthflow.convergence(traj)
    patches = depthflow.convergence(traj, tokens="patch")
    xr.testing.assert_identical(patches, whole.isel(token=slice(1, None)))
    assert depthflow.convergence(traj, tokens=[5, 0]).token.values.tolist() == [5, 0]


def test_a_reference_depth_is_a_label(traj: xr.DataArray) -> None:
    later = traj.isel(depth=slice(2, None))
    result = depthflow.convergence(later, reference=3)
    assert_allclose(result.angle.sel(depth=3), 0.0, **EXACT)
    assert result.attrs["reference"] == 3
    xr.testing.assert_equal(depthflow.convergence(later, reference=np.int64(5)), depthflow.convergence(later))


def test_a_given_direction_in_every_form(traj: xr.DataArray) -> None:
    direction = np.random.default_rng(1).normal(size=11)
    plain = depthflow.convergence(traj, reference=direction)
    assert plain.attrs["reference"] == "given"
    labelled = xr.DataArray(direction, dims="feature")
    for form in (direction.tolist(), direction.astype(np.float32), 7 * direction, labelled, labelled.chunk()):
        assert_allclose(depthflow.convergence(traj, reference=form).angle, plain.angle, **FLOAT32)
    each = labelled.expand_dims(token=traj.sizes["token"], sample=traj.sizes["sample"]).transpose("feature", ...)
    for form in (each, each.isel(sample=0), each.isel(token=0)):
        assert_allclose(depthflow.convergence(traj, reference=form).angle, plain.angle, **EXACT)


def test_directions_of_tokens_follow_the_choice_of_tokens(traj: xr.DataArray) -> None:
    directions = traj.isel(depth=2, drop=True)
    whole = depthflow.convergence(traj, reference=directions)
    part = depthflow.convergence(traj, reference=directions, tokens=[6, 2])
    xr.testing.assert_identical(part, whole.isel(token=[6, 2]))


def test_a_float64_direction_is_not_rounded_to_the_states(traj: xr.DataArray) -> None:
    states = traj.astype(np.float32)
    direction = states.isel(sample=0, depth=0, token=0).values.astype(np.float64)
    direction[0] += 1e-12
    angle = depthflow.convergence(states, reference=direction).angle[0, 0, 0]
    assert 0 < angle < 1e-11


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("last", ["'final', a depth, or a direction", "'last'"]),
        (6, ["reference depth 6", "0 to 5", "'final'"]),
        (-1, ["reference depth -1", "0 to 5"]),
        (True, ["bool", "one direction (feature,)"]),
        (None, ["NoneType", "one direction (feature,)"]),
        (2.0, ["float", "one direction (feature,)"]),
        (np.ones(5), ["'feature'", "got 5", "has 11"]),
        (np.ones((3, 11)), ["shape (3, 11)", "DataArray with the dim 'feature'"]),
        (np.zeros(11), ["finite and not zero"]),
        (np.full(11, np.nan), ["finite and not zero"]),
        (xr.DataArray(np.ones((3, 11)), dims=("label", "feature")), ["('label', 'feature')", "Select or rename"]),
        (xr.DataArray(np.ones((3, 7)), dims=("sample", "token")), ["dim 'feature'", "('sample', 'token')"]),
        (xr.DataArray(np.ones((4, 11)), dims=("sample", "feature")), ["'sample'", "got 4", "has 3"]),
        (
            xr.DataArray(np.ones((3, 11)), dims=("sample", "feature"), coords={"sample": [5, 6, 7]}),
            ["labels", "'sample'"],
        ),
    ],
)
def test_references_that_cannot_be(traj: xr.DataArray, reference: object, words: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        depthflow.convergence(traj, reference=reference)
    assert str(caught.value).startswith("convergence")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("tolerance", [0, -0.1, np.nan, np.inf, "0.1", None])
def test_tolerances_that_cannot_be(traj: xr.DataArray, tolerance: object) -> None:
    with pytest.raises(ParameterError, match=f"positive angle in rad; got {tolerance!r}"):
        depthflow.convergence(traj, tolerance=tolerance)


def test_faults_are_told_together(traj: xr.DataArray) -> None:
    with pytest.raises(ParameterError, match="2 faults") as caught:
        depthflow.convergence(traj, tolerance=-1, reference=9)
    assert "tolerance" in str(caught.value)
    assert "depth 9" in str(caught.value)


def test_states_that_are_no_trajectory(traj: xr.DataArray) -> None:
    with pytest.raises(TrajectoryError, match=r"needs the dims \('depth', 'feature'\).*rename\(layer='depth'\)"):
        depthflow.convergence(traj.rename(depth="layer"))
    with pytest.raises(TrajectoryError, match="depth 1 followed by 3"):
        depthflow.convergence(traj.isel(depth=[0, 1, 3]))
    with pytest.raises(TrajectoryError, match=r"depthflow\.trajectory"):
        depthflow.convergence(traj.values)
    with pytest.raises(ParameterError, match=r"type 'reg'.*\['cls', 'patch'\]"):
        depthflow.convergence(traj, tokens="reg")


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("value", "words"), [(0.0, "zero-norm"), (np.nan, "norm nan"), (np.inf, "norm inf")])
def test_a_state_without_a_direction_is_named(traj: xr.DataArray, value: float, words: str, *, lazy: bool) -> None:
    broken = traj.assign_coords(sample=[10, 20, 30]).copy()
    broken[1, 4, 2] = value
    if lazy:
        broken = broken.chunk(sample=1)
    with pytest.raises(TrajectoryError, match=f"{words}.*sample 20, depth 4, token 2.*allow_nan=True"):
        depthflow.convergence(broken).compute()
    result = depthflow.convergence(broken, allow_nan=True).compute()
    assert np.argwhere(np.isnan(result.angle.values)).tolist() == [[1, 4, 2]]
    assert np.argwhere(np.isnan(result.path_length.values)).tolist() == [[1, 2]]
