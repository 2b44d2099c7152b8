"""What may become a trajectory, what may not, and what each fault is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import depthflow
from depthflow.errors import ParameterError, TrajectoryError


def test_all_forms_of_the_same_states_agree(states):
    expected = depthflow.trajectory(states)
    layers = [states[:, depth] for depth in range(states.shape[1])]
    renamed = xr.DataArray(states.transpose(1, 0, 2, 3), dims=("layer", "image", "token", "feature"))
    forms = {
        "torch": depthflow.trajectory(torch.from_numpy(states)),
        "list": depthflow.trajectory(layers),
        "tuple of tensors": depthflow.trajectory(tuple(map(torch.from_numpy, layers))),
        "other dims": depthflow.trajectory(renamed, dims={"layer": "depth", "image": "sample"}),
        "named axes": depthflow.trajectory(
            np.ascontiguousarray(states.transpose(2, 1, 3, 0)), dims=("token", "depth", "feature", "sample")
        ),
    }
    for form in forms.values():
        xr.testing.assert_identical(form, expected)


def test_optional_dims_may_be_missing(states):
    path = depthflow.trajectory(states[0, :, 0])
    assert path.dims == ("depth", "feature")
    assert depthflow.trajectory(states[:, :, 0], dims=("sample", "depth", "feature")).dims == (
        "sample",
        "depth",
        "feature",
    )
    assert depthflow.trajectory([*states[:, :, 0].swapaxes(0, 1)], dims=("sample", "feature")).dims == (
        "sample",
        "depth",
        "feature",
    )


def test_half_precision_becomes_float32_exactly(states):
    half = states.astype(np.float16)
    traj = depthflow.trajectory(half)
    assert traj.dtype == np.float32
    np.testing.assert_array_equal(traj.values, half)
    brain = torch.from_numpy(states).bfloat16()
    np.testing.assert_array_equal(depthflow.trajectory(brain).values, brain.float().numpy())


def test_a_fitting_array_is_not_copied(states):
    assert np.shares_memory(depthflow.trajectory(states).values, states)


def test_coords(traj):
    assert traj.depth.values.tolist() == [0, 1, 2, 3, 4, 5]
    assert traj.token_type.values.tolist() == ["cls"] + ["patch"] * 6
    assert traj.row.values.tolist() == [-1, 0, 0, 0, 1, 1, 1]
    assert traj.col.values.tolist() == [-1, 0, 1, 2, 0, 1, 2]
    assert traj.label.dims == ("sample",)
    assert traj.attrs["units"] == "state unit"
    assert traj.attrs["final_norm"] == "not applied"


def test_updates_are_differences_labelled_by_the_later_depth(traj):
    update = depthflow.updates(traj)
    assert update.dims == ("sample", "block", "token", "feature")
    assert update.block.values.tolist() == [1, 2, 3, 4, 5]
    assert update.module.values.tolist() == [f"blocks.{index}" for index in range(5)]
    np.testing.assert_array_equal(update.sel(block=3).values, traj.sel(depth=3).values - traj.sel(depth=2).values)
    assert depthflow.updates(traj.isel(depth=slice(2, None))).module.values.tolist() == [
        "blocks.2",
        "blocks.3",
        "blocks.4",
    ]


def test_updates_need_consecutive_depths(traj):
    with pytest.raises(TrajectoryError, match=r"consecutive depths.*depth 1 followed by 3"):
        depthflow.updates(traj.sel(depth=[0, 1, 3]))


def test_select_tokens(traj):
    assert depthflow.select_tokens(traj, "patch").token.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert depthflow.select_tokens(traj, ["cls", "patch"]).sizes["token"] == 7
    assert depthflow.select_tokens(traj, -1).token.values.tolist() == [6]
    assert depthflow.select_tokens(traj, [5, 0]).token.values.tolist() == [5, 0]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("reg", r"type 'reg', which this trajectory lacks; it has \['cls', 'patch'\]"),
        (7, r"token 7, but the trajectory has 7 tokens: 0 to 6"),
        ([0, -8], r"token -8, but the trajectory has 7 tokens"),
        ([], r"at least one token"),
        ([0, "cls"], r"a type, types, or indices"),
        ([1.5], r"a type, types, or indices"),
        ([True], r"a type, types, or indices"),
    ],
)
def test_tokens_that_are_not_there(traj, tokens, message):
    with pytest.raises(ParameterError, match=message):
        depthflow.select_tokens(traj, tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:, :1], r"at least two depths.*; got 1"),
        (lambda s: s[:0], r"dim 'sample' is empty"),
        (lambda s: s.astype(complex), r"real floating-point states; got dtype complex128. Take the real part"),
        (lambda s: s.astype(int), r"got dtype int64. Convert with `.astype\('float32'\)`"),
        (lambda s: s[0], r"3 axes, shape \(6, 7, 11\), can be read in several ways. Name them"),
        (lambda s: xr.DataArray(s, dims=("sample", "layer", "token", "feature")), r"Rename, perhaps.*layer='depth'"),
        (lambda s: xr.DataArray(s, dims=("head", "depth", "token", "feature")), r"got 'head' too"),
        (lambda s: [], r"empty sequence"),
        (lambda s: [s[:, 0], s[:2, 1]], r"depth 0 has \(3, 7, 11\), depth 1 has \(2, 7, 11\)"),
    ],
)
def test_what_is_not_a_trajectory(states, change, message):
    with pytest.raises(TrajectoryError, match=message):
        depthflow.trajectory(change(states))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_states_that_are_not_finite_say_where(states, value):
    states[1, 2, 3, 4] = value
    with pytest.raises(
        TrajectoryError, match=rf"got {value} first at sample 1, depth 2, token 3, feature 4 \(1 in all\)"
    ):
        depthflow.trajectory(states)


def test_all_faults_are_gathered(states):
    states[0, 0, 0, 0] = np.nan
    with pytest.raises(TrajectoryError) as caught:
        depthflow.trajectory(states, token_type=["cls", "blob"], label=[1, 2])
    text = str(caught.value)
    assert "4 faults" in text
    assert "one token_type for each of 7 tokens; got 2" in text
    assert "['blob']" in text
    assert "one label for each of 3 samples; got shape (2,)" in text
    assert "finite states" in text


def test_other_faults_of_coords(states):
    with pytest.raises(TrajectoryError, match=r"grid \(2, 2\) needs 4 tokens of type 'patch'; got 7"):
        depthflow.trajectory(states, token_type="patch", grid=(2, 2))
    with pytest.raises(TrajectoryError, match="no dim 'sample', so labels cannot apply"):
        depthflow.trajectory(states[0, :, 0], label=[1])
    with pytest.raises(TrajectoryError, match="values that JSON can hold"):
        depthflow.trajectory(states, attrs={"model": object()})
    reversed_depths = xr.DataArray(
        states, dims=("sample", "depth", "token", "feature"), coords={"depth": np.arange(6)[::-1]}
    )
    with pytest.raises(TrajectoryError, match="increasing integers"):
        depthflow.trajectory(reversed_depths)


def test_a_measure_given_no_trajectory_says_how_to_build_one(states):
    with pytest.raises(TrajectoryError, match=r"xarray.DataArray; got ndarray. Build one with `depthflow.trajectory"):
        depthflow.updates(states)
