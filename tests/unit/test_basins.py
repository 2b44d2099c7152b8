"""What basins returns, which tokens and depth it takes, how its result is stored, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr

import depthflow
from depthflow.errors import ParameterError, TrajectoryError
from tests.oracles import sphere as oracle
from tests.tolerances import FLOAT64, STOCHASTIC

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES, DEPTHS, TOKENS, FEATURES = 9, 6, 7, 11
DIMS = {
    "basin": ("sample",),
    "direction": ("sample", "feature"),
    "center": ("basin", "feature"),
    "concentration": ("basin",),
    "occupancy": ("basin",),
    "silhouette": ("sample",),
    "basin_at_depth": ("sample", "depth"),
    "margin": ("sample", "depth"),
    "commitment_depth": ("sample",),
}
LABELLED = {name: ("depth",) for name in ("purity", "nmi", "ari", "within_angle", "between_angle")}
TYPES = ["cls", "reg", "patch", "patch", "patch", "patch", "pad"]


@pytest.fixture
def states() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES))


@pytest.fixture
def traj(states: np.ndarray) -> xr.DataArray:
    return depthflow.trajectory(states, token_type=TYPES, label=list("abcabcabc"))


def same(result: xr.Dataset, expected: xr.Dataset) -> None:
    for name in DIMS:
        np.testing.assert_array_equal(result[name], expected[name])


@pytest.mark.parametrize("method", ["kmeans", "vmf"])
def test_dims_units_and_coords(traj: xr.DataArray, method: str) -> None:
    result = depthflow.basins(traj, 2, method=method)
    for name, dims in {**DIMS, **LABELLED}.items():
        assert result[name].dims == dims, name
        assert result[name].attrs["long_name"], name
        assert result[name].attrs["units"] == ("rad" if "angle" in name or name == "margin" else "1"), name
    assert set(result.data_vars) == {*DIMS, *LABELLED} - {"basin"}
    np.testing.assert_array_equal(result.label, traj.label)
    np.testing.assert_array_equal(result.depth, traj.depth)
    for name in ("basin", "basin_at_depth", "commitment_depth"):
        assert np.issubdtype(result[name].dtype, np.integer)
    np.testing.assert_allclose(np.linalg.norm(result.center, axis=1), 1, **FLOAT64)
    assert result.attrs == {
        "tokens": "cls",
        "n_tokens": 1,
        "clustered_depth": 5,
        "method": method,
        "seed": 0,
        "pairwise_samples": SAMPLES,
    }


def test_without_labels_nothing_is_compared(traj: xr.DataArray) -> None:
    result = depthflow.basins(traj.drop_vars("label"), 2)
    assert set(result.variables) == {*DIMS, "sample", "depth"}
    same(result, depthflow.basins(traj, 2))


def test_labels_never_take_part(traj: xr.DataArray) -> None:
    same(depthflow.basins(traj.assign_coords(label=("sample", np.arange(9))), 2), depthflow.basins(traj, 2))


def test_integer_and_string_labels_are_the_same(traj: xr.DataArray) -> None:
    expected = depthflow.basins(traj, 3)
    numbers = traj.assign_coords(label=("sample", [7, -1, 5] * 3))
    objects = traj.assign_coords(label=("sample", np.array(list("xyz") * 3, dtype=object)))
    for other in (numbers, objects):
        xr.testing.assert_equal(
            depthflow.basins(other, 3)[list(LABELLED)].drop_vars("label", errors="ignore"),
            expected[list(LABELLED)].drop_vars("label", errors="ignore"),
        )


def test_labels_that_are_all_alike_or_all_different(traj: xr.DataArray) -> None:
    alike = depthflow.basins(traj.assign_coords(label=("sample", np.ones(9, dtype=int))), 2)
    assert alike.between_angle.isnull().all()
    assert alike.within_angle.notnull().all()
    different = depthflow.basins(traj.assign_coords(label=("sample", np.arange(9))), 2)
    assert different.within_angle.isnull().all()
    assert different.between_angle.notnull().all()


def test_basins_are_numbered_by_falling_occupancy_then_first_sample() -> None:
    rows = np.eye(4)[[3, 1, 1, 0, 2, 2, 0, 1]]
    traj = depthflow.trajectory(np.stack([rows, rows], axis=1), dims=("sample", "depth", "feature"))
    for seed in range(5):
        result = depthflow.basins(traj, 4, seed=seed)
        np.testing.assert_array_equal(result.basin, [3, 0, 0, 1, 2, 2, 1, 0])
        np.testing.assert_allclose(result.occupancy, np.array([3, 2, 2, 1]) / 8, **FLOAT64)
    assert result.silhouette[0] == 0


def test_one_basin_has_no_second(traj: xr.DataArray) -> None:
    result = depthflow.basins(traj, 1)
    assert result.silhouette.isnull().all()
    assert result.margin.isnull().all()
    assert not result.basin_at_depth.any()
    assert not result.commitment_depth.any()


@pytest.mark.parametrize(
    ("types", "used", "said"),
    [
        (TYPES, [0], "cls"),
        (["reg", "patch", "patch", "dist", "patch", "patch", "pad"], [1, 2, 4, 5], "patch"),
        (["mean", "reg", "reg", "reg", "reg", "reg", "pad"], [0], "mean"),
        (["token"] * 5 + ["pad"] * 2, [0, 1, 2, 3, 4], "all tokens"),
    ],
)
def test_what_stands_in_for_cls(states: np.ndarray, types: list[str], used: list[int], said: str) -> None:
    result = depthflow.basins(depthflow.trajectory(states, token_type=types), 2)
    assert (result.attrs["tokens"], result.attrs["n_tokens"]) == (said, len(used))
    means = [[oracle.mean_direction(states[s, d, used]) for d in range(DEPTHS)] for s in range(SAMPLES)]
    expected = depthflow.basins(depthflow.trajectory(np.array(means), dims=("sample", "depth", "feature")), 2)
    np.testing.assert_array_equal(result.basin_at_depth, expected.basin_at_depth)
    np.testing.assert_allclose(result.margin, expected.margin, **FLOAT64)


def test_other_tokens(traj: xr.DataArray, states: np.ndarray) -> None:
    for tokens, used in ((["cls", "reg"], [0, 1]), (-2, [5]), (None, list(range(7)))):
        result = depthflow.basins(traj, 2, tokens=tokens)
        assert result.attrs["n_tokens"] == len(used)
        center = oracle.mean_direction(
            np.array([oracle.mean_direction(states[s, -1, used]) for s in np.flatnonzero(result.basin == 0)])
        )
        np.testing.assert_allclose(result.center[0], center, **FLOAT64)


def test_depth_is_a_label_or_counts_from_the_end(traj: xr.DataArray) -> None:
    later = traj.assign_coords(depth=[0, 2, 3, 5, 8, 13])
    for depth, place in ((-1, 5), (13, 5), (0, 0), (8, 4), (-6, 0), (np.int64(3), 2)):
        result = depthflow.basins(later, 2, depth=depth)
        assert result.attrs["clustered_depth"] == later.depth[place]
        np.testing.assert_array_equal(result.basin, result.basin_at_depth[:, place])


def test_half_precision_and_transposed_input(traj: xr.DataArray) -> None:
    half = traj.astype(np.float16)
    same(depthflow.basins(half, 2), depthflow.basins(half.astype(np.float32), 2))
    same(depthflow.basins(traj.transpose("feature", "token", "sample", "depth"), 2), depthflow.basins(traj, 2))


def test_large_samples_are_drawn_for_the_angles(rng_labels: xr.DataArray) -> None:
    whole = depthflow.basins(rng_labels, 2)
    part = depthflow.basins(rng_labels, 2, max_pairwise=40)
    again = depthflow.basins(rng_labels, 2, max_pairwise=40)
    assert (whole.attrs["pairwise_samples"], part.attrs["pairwise_samples"]) == (60, 40)
    assert not np.array_equal(whole.within_angle, part.within_angle)
    np.testing.assert_array_equal(part.within_angle, again.within_angle)
    np.testing.assert_allclose(part.within_angle, whole.within_angle, **STOCHASTIC)
    same(part, whole)


@pytest.fixture
def rng_labels() -> xr.DataArray:
    states = np.random.default_rng(0).normal(size=(60, 2, 11))
    return depthflow.trajectory(states, dims=("sample", "depth", "feature"), label=np.arange(60) % 3)


@pytest.mark.parametrize("n_basins", [2, None])
def test_results_are_stored_and_read_again(traj: xr.DataArray, n_basins: int | None, tmp_path: Path) -> None:
    result = depthflow.basins(traj, n_basins)
    result.to_zarr(tmp_path / "result.zarr", zarr_format=3, consolidated=False)
    again = xr.open_zarr(tmp_path / "result.zarr", consolidated=False).load()
    xr.testing.assert_identical(again, result)
    assert again["basin"].dims == ("sample",)
    plain = result.assign_coords(label=result.label.astype(object))
    plain.to_netcdf(tmp_path / "result.nc", engine="scipy")
    again = xr.load_dataset(tmp_path / "result.nc", engine="scipy")
    for name in {**DIMS, **LABELLED}:
        np.testing.assert_array_equal(again[name], result[name])
    assert again["basin"].dims == ("sample",)


def test_no_more_than_half_as_many_basins_as_samples_are_tried(traj: xr.DataArray) -> None:
    assert depthflow.basins(traj).n_basins.values.tolist() == [1, 2, 3, 4]
    assert depthflow.basins(traj, max_basins=3).n_basins.values.tolist() == [1, 2, 3]
    pair = depthflow.basins(traj.isel(sample=[0, 1]))
    assert pair.n_basins.values.tolist() == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_basins": 0}, "needs n_basins as a whole number from 1; got 0"),
        ({"n_basins": 2.0}, "needs n_basins as a whole number from 1; got 2.0"),
        ({"n_basins": 10}, "needs n_basins up to the number of samples, 9; got 10"),
        ({"max_basins": 0}, "needs max_basins as a whole number from 1; got 0"),
        ({"n_init": 0}, "needs n_init as a whole number from 1; got 0"),
        ({"max_pairwise": 1}, "needs max_pairwise as a whole number from 2; got 1"),
        ({"seed": -1}, "needs seed as a whole number from 0 to 4294967295; got -1"),
        ({"method": "spectral"}, r"knows the methods \('kmeans', 'vmf'\); got 'spectral'"),
        ({"depth": 6}, r"needs depth as one of \[0, 1, 2, 3, 4, 5\], or from the end, -6 to -1; got 6"),
        ({"depth": -7}, "from the end, -6 to -1; got -7"),
        ({"depth": 1.0}, "got 1.0"),
        ({"tokens": "dist"}, "asked for tokens of type 'dist', which this trajectory lacks"),
        ({"tokens": 7}, "asked for token 7, but the trajectory has 7 tokens"),
    ],
)
def test_bad_arguments(traj: xr.DataArray, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        depthflow.basins(traj, **arguments)


def test_all_bad_arguments_are_listed(traj: xr.DataArray) -> None:
    with pytest.raises(ParameterError, match="basins: 3 faults") as caught:
        depthflow.basins(traj, -1, method="x", depth=99)
    assert all(word in str(caught.value) for word in ("n_basins", "methods", "99"))


def test_too_few_samples_or_features(traj: xr.DataArray) -> None:
    with pytest.raises(
        TrajectoryError, match=r"at least two samples, on the dim 'sample'.*got the dims \('depth', 'token'"
    ):
        depthflow.basins(traj.isel(sample=0), 1)
    with pytest.raises(TrajectoryError, match=r"at least two samples, on the dim 'sample'.*got 1"):
        depthflow.basins(traj.isel(sample=[0]), 1)
    with pytest.raises(TrajectoryError, match="at least two features"):
        depthflow.basins(traj.isel(feature=[0]), 1)
    with pytest.raises(TrajectoryError, match=r"an xarray.DataArray; got ndarray"):
        depthflow.basins(traj.values)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize(("value", "said"), [(0.0, "a zero-norm state"), (np.nan, "a state of norm nan")])
def test_states_without_direction_are_named(traj: xr.DataArray, chunk: int | None, value: float, said: str) -> None:
    traj.values[4, 3, 0] = value
    traj = traj.assign_coords(sample=np.arange(9) + 100)
    if chunk:
        traj = traj.chunk(sample=chunk)
    with pytest.raises(TrajectoryError, match=f"basins found {said}.*first at sample 104, depth 3, token 0") as caught:
        depthflow.basins(traj, 2)
    assert "allow_nan" not in str(caught.value)
    depthflow.basins(traj, 2, tokens="patch")


def test_tokens_that_cancel_are_named(traj: xr.DataArray) -> None:
    traj.values[4, 3, 1] = -traj.values[4, 3, 0]
    with pytest.raises(TrajectoryError, match=r"tokens whose directions cancel.*first at sample 4, depth 3"):
        depthflow.basins(traj, 2, tokens=[0, 1])


@pytest.mark.parametrize("method", ["kmeans", "vmf"])
def test_fewer_directions_than_basins(traj: xr.DataArray, method: str) -> None:
    traj.values[:, -1, 0] = traj.values[0, -1, 0] * np.arange(1, 10)[:, None]
    with pytest.raises(
        ParameterError, match=r"asked for n_basins=2, but no more than 1 hold samples.*Ask for at most 1"
    ):
        depthflow.basins(traj, 2, method=method)
    assert depthflow.basins(traj, method=method).sizes["basin"] == 1


def test_a_missing_label_is_named(traj: xr.DataArray) -> None:
    label = np.arange(9.0)
    label[3] = np.nan
    with pytest.raises(TrajectoryError, match=r"a missing one, first at sample 3 \(1 in all\).*drop_vars\('label'\)"):
        depthflow.basins(traj.assign_coords(label=("sample", label)), 2)
