"""finite_jacobian: labels, laziness, and every refusal."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

import depthflow
from depthflow.errors import ParameterError, TrajectoryError

DRAWS = 4


@pytest.fixture
def perturbed(traj: xr.DataArray) -> xr.DataArray:
    """Draws last, as a user may hold them."""
    noise = np.random.default_rng(1).normal(size=(*traj.shape, DRAWS))
    return (traj + xr.DataArray(0.01 * noise, dims=(*traj.dims, "draw"))).assign_coords(draw=range(10, 10 + DRAWS))


def test_dims_coords_units(traj, perturbed):
    result = depthflow.finite_jacobian(traj, perturbed)
    assert dict(result.sizes) == {"sample": 3, "block": 5, "token": 7, "mode": 4}
    for name in ("singular_value", "exponent"):
        assert result[name].dims == ("sample", "block", "token", "mode")
    assert result["rank"].dims == ("sample", "block", "token")
    assert result.block.values.tolist() == [1, 2, 3, 4, 5]
    assert result.mode.values.tolist() == [1, 2, 3, 4]
    assert result.module.values.tolist() == [f"blocks.{index}" for index in range(5)]
    assert result.label.values.tolist() == [4, 5, 4]
    assert result.token_type.values.tolist() == ["cls"] + ["patch"] * 6
    assert result.singular_value.attrs == {"long_name": "singular value of the Jacobian", "units": "1"}
    assert result.exponent.attrs["units"] == "1/block"
    assert result["rank"].attrs["units"] == "1"
    assert (result.attrs["rcond"], result.attrs["draws"]) == (1e-6, 4)


def test_order_of_dims_and_a_sequence_of_draws_give_the_same(traj, perturbed):
    expected = depthflow.finite_jacobian(traj, perturbed)
    mixed = perturbed.transpose("token", "draw", "feature", "sample", "depth")
    assert depthflow.finite_jacobian(traj.transpose("token", ...), mixed).identical(expected)
    draws = [perturbed.isel(draw=draw, drop=True) for draw in range(DRAWS)]
    draws[1] = draws[1].transpose("feature", ...)
    assert depthflow.finite_jacobian(traj, draws).identical(expected)
    assert depthflow.finite_jacobian(traj, tuple(draws)).identical(expected)


def test_dims_that_lack(traj, perturbed):
    whole = depthflow.finite_jacobian(traj, perturbed)
    alone = depthflow.finite_jacobian(traj.isel(sample=1), perturbed.isel(sample=1))
    assert alone.singular_value.dims == ("block", "token", "mode")
    np.testing.assert_array_equal(alone.singular_value, whole.singular_value.isel(sample=1))
    bare = [array.isel(sample=1, token=2, drop=True) for array in (traj, perturbed)]
    path = depthflow.finite_jacobian(*bare)
    assert path.exponent.dims == ("block", "mode")
    assert path["rank"].dims == ("block",)
    np.testing.assert_array_equal(path.exponent, whole.exponent.isel(sample=1, token=2))
    listed = depthflow.finite_jacobian(bare[0], [bare[1].isel(draw=draw, drop=True) for draw in range(DRAWS)])
    assert listed.identical(path)


def test_labels_of_later_depths_are_kept(traj, perturbed):
    late = depthflow.finite_jacobian(traj.isel(depth=slice(2, None)), perturbed.isel(depth=slice(2, None)))
    assert late.block.values.tolist() == [3, 4, 5]
    whole = depthflow.finite_jacobian(traj, perturbed)
    np.testing.assert_array_equal(late.singular_value, whole.singular_value.sel(block=[3, 4, 5]))


def test_fewer_modes(traj, perturbed):
    whole, first = (depthflow.finite_jacobian(traj, perturbed, n_modes=modes) for modes in (None, np.int64(2)))
    assert first.mode.values.tolist() == [1, 2]
    assert first.identical(whole.isel(mode=slice(2)))


@pytest.mark.parametrize("lazy", ["both", "reference", "perturbed"])
def test_dask_stays_lazy_and_gives_the_same(traj, perturbed, lazy):
    expected = depthflow.finite_jacobian(traj, perturbed)
    reference = traj if lazy == "perturbed" else traj.chunk(sample=2, depth=3)
    pushed = perturbed if lazy == "reference" else perturbed.chunk(sample=1, draw=2, feature=5)
    result = depthflow.finite_jacobian(reference, pushed)
    assert result.singular_value.chunks[0] == ((1, 1, 1) if lazy == "perturbed" else (2, 1))
    assert result.compute().identical(expected)
    draws = [pushed.isel(draw=draw, drop=True) for draw in range(DRAWS)]
    assert depthflow.finite_jacobian(reference, draws).compute().identical(expected)


def test_half_precision_is_known_to_be_coarse(traj):
    """Three draws along one direction: in float16 the rounding of the states is what is left of two."""
    along = xr.DataArray(np.linspace(-1, 1, 11), dims="feature")
    share = xr.DataArray([0.1, 0.2, -0.15], dims="draw")
    rounded = [array.astype(np.float16) for array in (traj, traj + along * share)]
    assert (depthflow.finite_jacobian(*rounded)["rank"] == 1).all()
    widened = [array.astype(np.float32) for array in rounded]
    assert (depthflow.finite_jacobian(*widened)["rank"] > 1).all()


def test_input_is_left_as_it_was(traj, perturbed):
    before = traj.copy(deep=True), perturbed.copy(deep=True)
    depthflow.finite_jacobian(traj, perturbed)
    assert traj.identical(before[0])
    assert perturbed.identical(before[1])


def test_results_can_be_stored_and_resampled(traj, perturbed, tmp_path):
    depthflow.finite_jacobian(traj, perturbed).to_zarr(tmp_path / "gains.zarr", zarr_format=3, consolidated=False)
    interval = depthflow.bootstrap(depthflow.finite_jacobian, traj, n=20, perturbed=perturbed)
    assert (interval.singular_value_low <= interval.singular_value).all()
    assert interval.exponent_high.dims == ("block", "token", "mode")


def test_coords_that_one_of_them_lacks_do_not_contradict(traj, perturbed):
    bare = xr.DataArray(perturbed.variable)
    expected = depthflow.finite_jacobian(traj, perturbed)
    assert depthflow.finite_jacobian(traj, bare).identical(expected)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_state_that_is_not_finite_is_named(traj, perturbed, value, chunked):
    broken = perturbed.transpose("draw", *traj.dims).copy(deep=True)
    broken[3, 2, 4, 5, 9] = value
    bad = traj.copy(deep=True)
    bad[1, 0, 6, 10] = value
    if chunked:
        broken, bad = broken.chunk(sample=1), bad.chunk(sample=1)
    where = rf"in draw 13, needs finite states; got {value} first at sample 2, depth 4, token 5, feature 9"
    with pytest.raises(TrajectoryError, match=where):
        depthflow.finite_jacobian(traj, broken).compute()
    with pytest.raises(TrajectoryError, match=rf"^finite_jacobian needs finite states; got {value} first at sample 1"):
        depthflow.finite_jacobian(bad, perturbed).compute()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rcond": -1e-9}, r"rcond is a share in \[0, 1\); got -1e-09"),
        ({"rcond": 1.0}, "got 1.0"),
        ({"rcond": np.nan}, "got nan"),
        ({"rcond": "small"}, "got 'small'"),
        ({"n_modes": 0}, "needs n_modes as a whole number from 1; got 0"),
        ({"n_modes": 2.0}, "got 2.0"),
        ({"n_modes": True}, "got True"),
        ({"n_modes": 0, "rcond": 2}, "2 faults"),
        ({"n_modes": 5}, "n_modes=5, but 4 draws of 11 features have 4. Record 5 draws, or ask for fewer"),
        ({"n_modes": 12}, "n_modes=12, but 4 draws of 11 features have 4. There are no more than features, or ask"),
    ],
)
def test_parameters_out_of_range(traj, perturbed, kwargs, message):
    with pytest.raises(ParameterError, match=message):
        depthflow.finite_jacobian(traj, perturbed, **kwargs)


def relabelled(array: xr.DataArray, name: str, position: int, value: object) -> xr.DataArray:
    values = array[name].values.copy()
    values[position] = value
    return array.assign_coords({name: (array[name].dims, values)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.isel(draw=0, drop=True), r"the dims ('draw', 'sample', 'depth', 'token', 'feature'); got"),
        (lambda x: x.isel(draw=0, drop=True), 'Pass `depthflow.perturb(..., states=True)["state"]`, or a sequence'),
        (lambda x: x.isel(token=0), "Select or rename until they are the same."),
        (lambda x: x.rename(draw="push"), "('push'"),
        (lambda x: x.expand_dims("angle"), "'angle'"),
        (lambda x: x.isel(sample=[0, 1]), "along 'sample' as in the reference; got 2 against 3"),
        (lambda x: x.isel(feature=slice(9), token=[0, 1]), "2 faults"),
        (lambda x: x.isel(draw=[]), "at least one perturbed path; dim 'draw' is empty"),
        (lambda x: x.astype(np.float32), "in the reference's dtype, float64; got float32. Record both alike"),
        (lambda x: x.isel(sample=[0, 2, 1]), "own sample; they first differ at position 1: 2 against 1"),
        (lambda x: relabelled(x, "depth", 5, 7), "own depth; they first differ at position 5: 7 against 5"),
        (lambda x: relabelled(x, "token", 6, 8), "own token; they first differ at position 6: 8 against 6"),
        (lambda x: relabelled(x, "token_type", 3, "reg"), "token_type; they first differ at position 3: 'reg' against"),
        (lambda x: x.to_dataset(name="state"), "with the dim 'draw'; got Dataset"),
        (lambda x: x.values, "got ndarray"),
        (lambda x: [x.isel(draw=0), x.values], "got a sequence that holds ndarray"),
        (lambda x: [], "at least one perturbed path; got an empty sequence"),
        (lambda x: [x.isel(draw=0), x.isel(draw=1, token=0)], "draw 1 needs perturbed states with the dims ('sample',"),
        (
            lambda x: [x.isel(draw=0, depth=[0, 1]), x.isel(draw=1)],
            "draw 0 needs as many perturbed states along",
        ),
    ],
)
def test_perturbed_states_that_do_not_match(traj, perturbed, change, message):
    with pytest.raises(TrajectoryError, match=re.escape(message)):
        depthflow.finite_jacobian(traj, change(perturbed.transpose("draw", *traj.dims)))


def test_another_sample_s_perturbed_states_are_refused(traj, perturbed):
    with pytest.raises(TrajectoryError, match="own sample; they first differ at position 0: 2 against 1"):
        depthflow.finite_jacobian(traj.isel(sample=1), perturbed.isel(sample=2))


def test_references_that_cannot_be_used(traj, perturbed):
    with pytest.raises(TrajectoryError, match=r"consecutive depths.*got depth 0 followed by 2"):
        depthflow.finite_jacobian(traj.isel(depth=[0, 2, 3]), perturbed.isel(depth=[0, 2, 3]))
    with pytest.raises(TrajectoryError, match="needs a trajectory"):
        depthflow.finite_jacobian(traj.values, perturbed)
    with pytest.raises(TrajectoryError, match="got 'draw' too"):
        depthflow.finite_jacobian(perturbed, perturbed)
