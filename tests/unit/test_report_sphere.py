"""The report's view of the sphere: its points, groups, names and pictures of the inputs."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch

import depthflow
from depthflow.errors import ParameterError
from depthflow.reporting import directions, sphere, thumbnails
from tests.report_pages import directed, read, reported
from tests.tolerances import FLOAT64

FAST = ["convergence"]


def test_the_axes_and_what_they_hold():
    traj = directed()
    view = directions.view(traj, "cls", np.arange(12))
    final = traj.sel(token=0).isel(depth=-1).values
    units = final / np.linalg.norm(final, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(units.T @ units)[::-1]
    assert view.kept[-1] == pytest.approx(values[:3].sum() / 12)
    lengths = np.linalg.norm(view.points / directions.WHOLE, axis=1)
    assert np.abs(lengths - 1).max() * directions.WHOLE < 1


def test_ten_thousand_samples_with_pictures_and_names_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    samples = 10_000
    label = np.arange(samples) % 10
    grown = np.linspace(0, 1, 13)[:, None, None] * 3 * rng.normal(size=(10, 5))[label][:, None, None]
    states = (grown + rng.normal(size=(samples, 13, 2, 5))).astype(np.float32)
    traj = depthflow.trajectory(states, token_type=["cls", "patch"], label=label)
    images = rng.random((samples, 3, 16, 16), dtype=np.float32)
    names = [f"validation/n{label[place]:08}/ILSVRC2012_val_{place:08}.JPEG" for place in range(samples)]
    path = tmp_path / "r.html"
    depthflow.report(traj, images, path=path, sample_ids=names, measures=["convergence", "basins"], progress=False)
    assert path.stat().st_size < 12_000_000
    view = read(path).view
    assert view["ids"] == names
    assert view["sheet"] is not None
    assert len(base64.b64decode(view["cases"][0]["views"][1]["points"])) == 2 * samples * 13 * 3


def test_what_does_not_grow_with_the_samples_is_small(tmp_path):
    path = depthflow.report(directed(), path=tmp_path / "r.html", measures=FAST, progress=False)
    assert path.stat().st_size < 3_000_000


def test_more_samples_than_there_is_room_for_are_thinned_evenly():
    traj = depthflow.trajectory(np.ones((1, 13, 1, 2), dtype=np.float32))
    many = traj.isel(sample=np.zeros(50_000, dtype=int))
    shown = directions.shown_samples(many, 2)
    assert len(shown) == directions.MOST_SAMPLES
    assert (shown[0], shown[-1]) == (0, 49_999)
    assert set(np.diff(shown)) <= {4, 5, 6}


def pictures(view):
    """Return the small pictures (sample, row, column[, channel]) of a view."""
    from PIL import Image

    sheet = view["sheet"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["data"].partition(",")[2]))))
    side, columns = sheet["side"], sheet["columns"]
    places = [divmod(number, columns) for number in range(len(view["ids"]))]
    return np.stack([pixels[row * side : (row + 1) * side, col * side : (col + 1) * side] for row, col in places])


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_each_sample_keeps_its_own_picture_and_name_when_not_all_are_shown(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(directions, "MOST_SAMPLES", 4)
    images = torch.arange(12)[:, None, None, None].expand(12, 1, 4, 4) / 12
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=batch)
    names = [f"sample-{place}" for place in range(12)]
    found = reported(tmp_path, directed(), loader, sample_ids=names, measures=["basins"])
    view, shown = found.view, [0, 4, 7, 11]
    assert view["positions"] == shown
    assert view["ids"] == [names[place] for place in shown]
    np.testing.assert_array_equal(pictures(view)[:, 0, 0], np.round(255 * images[shown, 0, 0, 0].numpy()))
    assert np.frombuffer(base64.b64decode(view["classes"]["of"]), "<u2").tolist() == [place % 3 for place in shown]
    basins = depthflow.basins(directed()).basin.values
    shown_basins = view["cases"][0]["basins"]
    numbers = np.frombuffer(base64.b64decode(shown_basins["of"]), "<u2")
    assert [shown_basins["names"][number] for number in numbers] == [str(one) for one in basins[shown]]
    assert "4 of 12 samples are shown" in found.text
    assert view["classes"]["counts"] == [4, 4, 4], "of all samples"
    assert shown_basins["counts"] == np.bincount(basins).tolist()


def test_pictures_in_another_order_are_refused(tmp_path):
    data = torch.utils.data.TensorDataset(torch.rand(12, 1, 8, 8))
    loader = torch.utils.data.DataLoader(data, shuffle=True)
    with pytest.raises(ParameterError, match="at the sample's own place"):
        reported(tmp_path, directed(), loader, measures=FAST)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.ones((13, 1, 8, 8)), "there are 13 images for 12 samples"),
        (np.ones((11, 1, 8, 8)), "there are 11 images for 12 samples"),
        (np.ones((12, 4, 8, 8)), "not images of 1 or 3 channels"),
        (np.ones((12, 8, 8, 3)), "not images of 1 or 3 channels"),
        ([np.ones((6, 1, 8, 8)), np.ones((6, 1, 9, 9))], "all of one size"),
    ],
    ids=["too many", "too few", "four channels", "channels last", "two sizes"],
)
def test_what_is_no_picture_of_each_sample_is_told(tmp_path, images, reason):
    found = reported(tmp_path, directed(), images, measures=FAST)
    assert found.view["sheet"] is None
    assert reason in found.text


def test_pixels_that_are_no_numbers_leave_the_others_as_they_are():
    images = np.linspace(0, 1, 12 * 16).reshape(12, 1, 4, 4)
    holes = images.copy()
    holes[3, 0, 1, 2], holes[5, 0, 0, 0] = np.nan, np.inf
    whole, _ = thumbnails.sheet(np.where(np.isfinite(holes), images, 0), np.arange(12), 12, {})
    assert thumbnails.sheet(holes, np.arange(12), 12, {})[0] == whole


def test_a_null_of_other_samples_is_not_shown_under_their_names(tmp_path):
    traj = directed().assign_coords(sample_id=("sample", [f"a{place}" for place in range(12)]))
    null = depthflow.shuffle_depth(traj).isel(sample=slice(None, None, -1))
    found = reported(tmp_path, traj, null=null, measures=FAST)
    assert [case["name"] for case in found.view["cases"]] == ["this trajectory"]
    assert "The null has other samples" in found.text


def test_a_kind_of_token_without_directions_leaves_the_others_shown(tmp_path):
    traj = directed().isel(token=[0, 1, 2]).copy()
    traj[3, 2, 2] = -traj[3, 2, 1]
    found = reported(tmp_path, traj, measures=FAST)
    for case in found.view["cases"]:
        assert [view["kind"] for view in case["views"]] == ["class token"]
    assert "the directions cannot be shown (patches, mean direction)" in found.text


def test_very_long_names_are_shortened_in_their_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(sphere, "LETTERS", 12 * 20)
    names = [f"{place:02}{'é' * 500}{place:02}.png" for place in range(12)]
    found = reported(tmp_path, directed(), sample_ids=names, measures=FAST)
    assert found.view["ids"] == [f"{name[:10]}…{name[-10:]}" for name in names]


def test_parts_of_the_samples_are_seen_as_the_whole(monkeypatch):
    traj, chosen = directed(), np.array([0, 2, 3, 7, 11])
    whole = directions.view(traj, "patch", chosen)
    monkeypatch.setattr(directions, "PART", 2)
    for one in (traj, traj.chunk(sample=3)):
        seen = directions.view(one, "patch", chosen)
        np.testing.assert_array_equal(seen.points, whole.points)
        np.testing.assert_allclose(seen.kept, whole.kept, **FLOAT64)


def test_the_still_picture_says_what_it_shows(tmp_path):
    assert "The same view of this trajectory (class token) at three depths, in the colours of the classes" in (
        reported(tmp_path, directed(), measures=FAST).text
    )
