"""A trajectory on disk is the trajectory that was saved, or an error that says what it is instead."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import xarray as xr

import depthflow
from depthflow.errors import StoreError


@pytest.mark.parametrize("label", [[1, 2, 1], ["cat", "dog", "cat"]])
def test_round_trip(tmp_path, states, label):
    traj = depthflow.trajectory(states, token_type="patch", label=label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        depthflow.save_trajectory(traj, tmp_path / "t.zarr")
    opened = depthflow.open_trajectory(tmp_path / "t.zarr")
    assert opened.chunks is not None
    xr.testing.assert_identical(opened.compute(), traj)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_chunks_of_one_value_are_not_taken_for_lost(tmp_path, traj, value):
    traj = traj.copy(data=np.full_like(traj.values, value))
    depthflow.save_trajectory(traj.chunk(sample=1), tmp_path / "t.zarr")
    xr.testing.assert_identical(depthflow.open_trajectory(tmp_path / "t.zarr").compute(), traj)


def test_a_lazy_trajectory_is_saved_in_whole_chunks(tmp_path, traj):
    depthflow.save_trajectory(traj.chunk(sample=1, depth=4), tmp_path / "t.zarr")
    xr.testing.assert_identical(depthflow.open_trajectory(tmp_path / "t.zarr").compute(), traj)


def test_a_selection_is_saved(tmp_path, traj):
    chosen = depthflow.select_tokens(traj, "cls").isel(sample=[2, 0])
    depthflow.save_trajectory(chosen, tmp_path / "t.zarr")
    xr.testing.assert_identical(depthflow.open_trajectory(tmp_path / "t.zarr").compute(), chosen)


def test_nothing_is_overwritten(tmp_path, traj):
    depthflow.save_trajectory(traj, tmp_path / "t.zarr")
    with pytest.raises(StoreError, match="exists already and is not overwritten"):
        depthflow.save_trajectory(traj * 2, tmp_path / "t.zarr")
    np.testing.assert_array_equal(depthflow.open_trajectory(tmp_path / "t.zarr").values, traj.values)


def test_a_folder_that_is_a_file_is_told(tmp_path, traj):
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(StoreError, match=r"t\.zarr could not be written: Not a directory\. .* choose a folder"):
        depthflow.save_trajectory(traj, tmp_path / "notes.txt" / "t.zarr")
    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_what_is_no_store(tmp_path, traj):
    with pytest.raises(StoreError, match="not a zarr v3 store"):
        depthflow.open_trajectory(tmp_path)
    traj.to_dataset(name="other").to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(StoreError, match=r"holds \['other'\], not the variable 'state'"):
        depthflow.open_trajectory(tmp_path / "other.zarr")


def test_a_newer_schema_is_refused(tmp_path, traj):
    depthflow.save_trajectory(traj, tmp_path / "t.zarr")
    meta = tmp_path / "t.zarr" / "state" / "zarr.json"
    content = json.loads(meta.read_text())
    content["attributes"]["schema_version"] = 99
    meta.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"schema version 99; this depthflow reads up to 1. Update depthflow"):
        depthflow.open_trajectory(tmp_path / "t.zarr")
