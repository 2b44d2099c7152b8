"""The report's files to download: every number, its interval and coords, and no cell that runs."""

from __future__ import annotations

import numpy as np
import torch

import depthflow
from depthflow.reporting import page
from tests.report_pages import directed, read, reported, table
from tests.tolerances import FLOAT64

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "＝1"]


def test_every_number_can_be_downloaded(tmp_path):
    traj = directed()
    path = depthflow.report(
        traj, path=tmp_path / "r.html", measures=["convergence", "phases", "basins"], progress=False
    )
    page = read(path)
    rows = table(page, "convergence.csv")
    interval = depthflow.bootstrap(depthflow.convergence, traj.isel(token=[0]))
    angle = [row for row in rows if (row["of"], row["variable"], row["token_type"]) == ("trajectory", "angle", "cls")]
    assert [row["depth"] for row in angle] == [str(depth) for depth in range(6)]
    assert {row["units"] for row in angle} == {"rad"}
    for column, name in (("value", "angle"), ("low", "angle_low"), ("high", "angle_high")):
        np.testing.assert_allclose([float(row[column]) for row in angle], interval[name].sel(token=0), **FLOAT64)
    phases = depthflow.phases(traj)
    similarity = [
        float(row["value"])
        for row in table(page, "phases.csv")
        if (row["of"], row["variable"]) == ("trajectory", "similarity")
    ]
    np.testing.assert_allclose(similarity, phases.similarity.values.ravel(), **FLOAT64)
    basins = depthflow.basins(traj)
    assert [int(row["basin"]) for row in table(page, "samples.csv")] == basins.basin.values.tolist()


def test_a_store_gives_the_numbers_of_memory(tmp_path):
    traj = directed()
    depthflow.save_trajectory(traj, tmp_path / "t.zarr")
    pages = [
        read(depthflow.report(one, path=tmp_path / f"{place}.html", measures=["convergence"], progress=False))
        for place, one in enumerate((traj, tmp_path / "t.zarr", depthflow.open_trajectory(tmp_path / "t.zarr")))
    ]
    for one in pages[1:]:
        assert table(one, "convergence.csv") == table(pages[0], "convergence.csv")
        assert one.view == pages[0].view
    assert "store t.zarr" in pages[1].text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.html", "1.html", "2.html", "t.zarr"]


def numbers(rows, column="value", **wanted):
    chosen = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return [float(row[column]) for row in chosen]


def test_complex_numbers_are_there_by_their_parts(tmp_path):
    traj = directed()
    rows = table(reported(tmp_path, traj, measures=["dmd"]), "dmd.csv")
    expected = depthflow.dmd(traj[::2], ridge=1e-6, test=traj[1::2]).eigenvalue.values
    for part in ("real", "imag"):
        got = numbers(rows, of="trajectory", variable=f"eigenvalue_{part}")
        np.testing.assert_allclose(got, getattr(expected, part), **FLOAT64)
    assert {row["units"] for row in rows if row["variable"] == "eigenvalue_real"} == {"1"}


def test_intervals_and_blocks_of_the_interventions_stand_beside_the_values(tmp_path):
    data, model = depthflow.datasets.digits("test"), depthflow.datasets.digits_vit()
    images = torch.from_numpy(data.images[:8])
    chosen = ["basins", "perturb", "basin_stability", "jacobian"]
    found = reported(tmp_path, model, images, measures=chosen)
    rows = table(found, "basin_stability.csv")
    stable = {"of": "trajectory", "variable": "basin_stability"}
    basins = depthflow.basins(depthflow.record(model, images, progress=False))
    pushed = depthflow.perturb(
        model, images, depth=4, angle=0.05, tokens="cls", n_draws=8, batch_size=288, progress=False
    )
    stability = depthflow.basin_stability(pushed, basins)
    for column, name in (("value", "basin_stability"), ("low", "low"), ("high", "high")):
        np.testing.assert_allclose(numbers(rows, column, **stable), stability[name], **FLOAT64)
    assert not {"low", "high"} & {row["variable"] for row in rows}
    spans = [row for row in table(found, "jacobian.csv") if row["variable"] == "rms_gain"]
    assert [(row["start"], row["stop"]) for row in spans[:12]] == [
        (str(block - 1), str(block)) for block in range(1, 13)
    ]


def test_text_that_a_spreadsheet_would_run_is_quoted_and_numbers_are_not(tmp_path):
    labels = [FORMULAS[place % 7] for place in range(12)]
    names = [f"{label}{place}" for place, label in enumerate(labels)]
    depthflow.save_trajectory(depthflow.shuffle_depth(directed()), tmp_path / "=null.zarr")
    options = {"null": tmp_path / "=null.zarr", "labels": labels, "sample_ids": names}
    found = reported(tmp_path, directed(), measures=["basins"], **options)
    rows = table(found, "samples.csv")
    assert [row["sample"] for row in rows] == [f"'{name}" for name in names]
    assert [row["label"] for row in rows] == [f"'{label}" for label in labels]
    assert {row["of"] for row in table(found, "basins.csv")} == {"trajectory", "'=null.zarr"}
    assert any(row["value"].startswith("-") for row in table(found, "basins.csv"))
    assert found.view["ids"] == names


def test_whole_labels_stay_numbers(tmp_path):
    labels = [-5, 7, 100] * 4
    rows = table(reported(tmp_path, directed(), labels=labels, measures=["basins"]), "samples.csv")
    assert [row["label"] for row in rows] == [str(label) for label in labels]


def test_a_file_of_too_many_samples_is_named_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 100)
    found = reported(tmp_path, directed(), measures=["basins"])
    assert [link["download"] for link in found.all("a") if "download" in link] == ["basins.csv"]
    assert "samples.csv (each sample's basin, 1 kB: too much for this page" in found.text


def test_labels_that_are_given_hold_of_the_null_too(tmp_path):
    traj, labels = directed(label=[0] * 12), [0, 1, 2] * 4
    null = depthflow.shuffle_depth(traj)
    rows = table(reported(tmp_path, traj, null=null, labels=labels, measures=["basins"]), "basins.csv")
    expected = depthflow.basins(null.assign_coords(label=("sample", labels))).ari
    np.testing.assert_allclose(numbers(rows, of="null", variable="ari"), expected, **FLOAT64)
