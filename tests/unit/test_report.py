"""The report's file: its structure, what it escapes, what it leaves out and where it is written."""

from __future__ import annotations

import base64
import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import depthflow
from depthflow.errors import DepthflowError, ParameterError, StoreError, TrajectoryError
from depthflow.reporting import measured, still
from tests.report_pages import HOSTILE, Reader, directed, read, table
from tests.tolerances import FLOAT64

LINK_ATTRIBUTES = ("src", "href", "action", "poster", "data", "srcset")


@pytest.fixture(scope="module")
def model_page(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    data = depthflow.datasets.digits("test")
    chosen = ["convergence", "phases", "perturb", "swap_blocks"]
    path = tmp_path_factory.mktemp("model") / "report.html"
    model = depthflow.datasets.digits_vit()
    made = depthflow.report(
        model, data.images[:10], path=path, labels=data.labels[:10], measures=chosen, progress=False
    )
    assert made == path
    assert list(path.parent.iterdir()) == [path], "nothing else is left in the folder"
    return read(path)


def test_a_model_stands_beside_its_untrained_twin(model_page):
    assert "Do directions converge?" in model_page.text
    assert "Do pushed paths come back?" in model_page.text
    assert "untrained twin" in model_page.text
    twin = depthflow.datasets.digits_vit(trained=False, seed=1)
    data = depthflow.datasets.digits("test")
    expected = depthflow.convergence(depthflow.record(twin, data.images[:10], progress=False))
    rows = table(model_page, "convergence.csv")
    got = [
        float(row["value"])
        for row in rows
        if (row["of"], row["variable"], row["token_type"]) == ("untrained twin", "speed", "cls")
    ]
    np.testing.assert_allclose(got, expected.speed.sel(token=0).mean("sample"), **FLOAT64)


def test_the_page_is_whole_and_well_built(model_page):
    page = model_page
    for _, attrs in page.tags:
        for name in LINK_ATTRIBUTES:
            assert (attrs.get(name) or "#").startswith(("#", "data:")), "nothing is loaded"
    assert "default-src 'none'" in next(one["content"] for one in page.all("meta") if "http-equiv" in one)
    assert page.all("html") == [{"lang": "en-GB"}]
    assert all(image.get("alt") for image in page.all("img"))
    named = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(named) == len(set(named))
    links = [link["href"][1:] for link in page.all("a") if link["href"].startswith("#")]
    assert set(links) <= set(named)
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    labelled = {label["for"] for label in page.all("label")}
    assert {field["id"] for field in page.all("input")} <= labelled


def test_settings_name_weights_inputs_and_seed(model_page):
    text = model_page.text
    for part in ("weights, BLAKE2b", "inputs, BLAKE2b", "null: weights, BLAKE2b", "seed 0", "VisionTransformer"):
        assert part in text
    assert f"depthflow {depthflow.__version__}, schema 1" in text


def test_the_inputs_are_shown_beside_the_samples(model_page):
    from PIL import Image

    sheet = model_page.view["sheet"]
    picture = Image.open(io.BytesIO(base64.b64decode(sheet["data"].partition(",")[2])))
    assert (sheet["side"], sheet["columns"], picture.size) == (8, 4, (32, 24))
    expected = np.round(depthflow.datasets.digits("test").images[5, 0] * 255)
    np.testing.assert_array_equal(np.asarray(picture)[8:16, 8:16], expected)


def test_labels_names_and_titles_are_escaped(tmp_path):
    traj = directed(label=[HOSTILE[place % 4] for place in range(12)], attrs={"model": HOSTILE[0]})
    names = [f"{HOSTILE[place % 4]}{place}" for place in range(12)]
    path = tmp_path / "r.html"
    depthflow.report(traj, path=path, sample_ids=names, title="".join(HOSTILE), measures=["basins"], progress=False)
    page = read(path)
    assert len(page.scripts) == 3
    assert not [image for image in page.all("img") if image["src"] == "x"]
    assert "".join(HOSTILE) in page.text
    assert sorted(page.view["classes"]["names"]) == sorted(HOSTILE)
    assert page.view["ids"] == names
    assert [row["label"] for row in table(page, "samples.csv")] == [HOSTILE[place % 4] for place in range(12)]


def test_names_in_every_script_stand_in_the_pictures(tmp_path, recwarn):
    labels = ["日本", "עברית", "plain"]
    page = read(
        depthflow.report(
            directed(label=labels * 4), path=tmp_path / "r.html", measures=["basins", "phases"], progress=False
        )
    )
    by_class, agreement = (
        base64.b64decode(image["src"].partition(",")[2]).decode()
        for image in page.all("img")
        if image["alt"].startswith(("Final directions on the sphere, by class", "Agreement"))
    )
    assert all(f">{label}</text>" in by_class for label in labels)
    assert "</text>" not in agreement, "letters that the font has are drawn"
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_letters_are_of_one_size_in_all_pictures(model_page):
    for image in model_page.all("img")[:-1]:
        file = base64.b64decode(image["src"].partition(",")[2]).decode()
        points = float(file.partition('width="')[2].partition("pt")[0])
        assert int(image["width"]) == pytest.approx(points * 96 / 72, abs=0.5)


def test_a_trajectory_stands_beside_the_null_that_is_given(tmp_path):
    depthflow.save_trajectory(depthflow.shuffle_depth(directed()), tmp_path / "shuffled.zarr")
    path = depthflow.report(
        directed(),
        null=tmp_path / "shuffled.zarr",
        path=tmp_path / "r.html",
        measures=["convergence"],
        progress=False,
    )
    assert "shuffled.zarr" in read(path).text


@pytest.mark.parametrize(
    ("traj", "absent", "reason"),
    [
        (directed().isel(sample=0, drop=True), "Into which basins", "sample"),
        (directed().isel(depth=[0, 2, 5]), "Do directions converge?", "consecutive depths"),
        (directed().isel(sample=[0]), "Into which basins", "sample"),
    ],
    ids=["no sample", "gaps", "one sample"],
)
def test_what_cannot_be_measured_is_left_out_with_its_reason(tmp_path, traj, absent, reason):
    page = read(depthflow.report(traj, path=tmp_path / "r.html", progress=False))
    answered, _, left_out = page.text.partition("Left without an answer")
    assert absent in left_out
    assert absent not in answered
    assert reason in left_out
    assert "It needs the model itself" in left_out
    assert "nan" not in page.text.split()


@pytest.mark.parametrize(
    "traj",
    [
        directed().isel(token=0, drop=True),
        directed().isel(token=slice(1, None)),
        directed(token_type="token"),
        directed(label=["same"] * 12),
        directed().drop_vars(["label", "token_type"]),
        directed().isel(feature=slice(0, 2)),
        directed().isel(depth=[0, 1]),
    ],
    ids=["no token", "no cls", "unknown tokens", "one class", "no labels", "two features", "two depths"],
)
def test_trajectories_of_every_kind_are_reported(tmp_path, traj):
    chosen = ["convergence", "phases", "basins"]
    page = read(depthflow.report(traj, path=tmp_path / "r.html", measures=chosen, progress=False))
    assert "Do directions converge?" in page.text
    assert len(page.view["cases"]) == 2


def test_states_that_never_move_are_undefined_where_a_direction_of_motion_is_asked(tmp_path):
    traj = directed()
    still_states = traj.copy(data=np.broadcast_to(traj.values[:, -1:], traj.shape).copy())
    page = read(depthflow.report(still_states, path=tmp_path / "r.html", measures=["convergence"], progress=False))
    assert "speed 0.00 [0.00, 0.00] rad/block" in page.text
    assert "straightness undefined" in page.text


class Words(nn.Module):
    """A model of text whose blocks keep the shape of their states, and that no library knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 6)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True) for _ in range(4))

    def forward(self, input_ids):
        state = self.embedding(input_ids)
        for block in self.blocks:
            state = block(state)
        return state


def test_a_model_of_text_without_a_twin(tmp_path):
    inputs = {"input_ids": torch.randint(0, 9, (8, 5), generator=torch.Generator().manual_seed(0))}
    page = read(
        depthflow.report(
            Words().eval(), inputs, path=tmp_path / "r.html", measures=["phases", "perturb"], progress=False
        )
    )
    assert "random directions" in page.text
    assert "no untrained twin could be built" in page.text
    assert "the inputs are not images" in page.text
    assert page.view["sheet"] is None


def test_a_model_of_text_beside_another(tmp_path):
    inputs = {"input_ids": torch.randint(0, 9, (8, 5), generator=torch.Generator().manual_seed(0))}
    chosen = ["phases", "perturb", "swap_blocks"]
    made = depthflow.report(
        Words().eval(), inputs, null=Words().eval(), path=tmp_path / "r.html", measures=chosen, progress=False
    )
    assert "Can one block stand in for another?" in read(made).text


def test_batches_of_a_loader_are_what_an_array_is(tmp_path):
    data = depthflow.datasets.digits("test")
    images, labels = torch.from_numpy(data.images[:9]), torch.from_numpy(data.labels[:9])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
    model, chosen = depthflow.datasets.digits_vit(), ["convergence", "basins", "perturb", "basin_stability"]
    pages = [
        read(depthflow.report(model, *given, path=tmp_path / f"{place}.html", measures=chosen, progress=False, **more))
        for place, (given, more) in enumerate([((images,), {"labels": labels}), ((loader,), {})])
    ]
    assert pages[0].view["classes"] == pages[1].view["classes"]
    assert pages[0].view["sheet"] == pages[1].view["sheet"]
    for one, other in zip(table(pages[0], "perturb.csv"), table(pages[1], "perturb.csv"), strict=True):
        assert one["variable"] == other["variable"]
        assert float(one["value"] or 0) == pytest.approx(float(other["value"] or 0), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "more", "error", "message"),
    [
        ((depthflow.datasets.digits_vit,), {}, ParameterError, "needs the model's inputs"),
        ((directed,), {"measures": ["entropy"]}, ParameterError, "got 'entropy'"),
        ((directed,), {"measures": ["jacobian"]}, ParameterError, "needs the model itself"),
        ((directed,), {"labels": [1, 2]}, ParameterError, "one label for each of 12 samples; got 2"),
        ((directed,), {"blocks": "blocks"}, ParameterError, "no use for blocks="),
        ((lambda: "nothing.zarr",), {}, StoreError, "not a zarr v3 store"),
        ((lambda: np.ones((3, 2)),), {}, TrajectoryError, "needs a trajectory"),
    ],
)
def test_mistakes_are_told(tmp_path, arguments, more, error, message):
    with pytest.raises(error, match=message):
        depthflow.report(*(make() for make in arguments), path=tmp_path / "r.html", progress=False, **more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (iter([torch.ones(2, 1, 8, 8)]), "comes once"),
        (
            torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 1, 8, 8)), shuffle=True),
            "changes the order",
        ),
    ],
)
def test_inputs_must_come_again(tmp_path, inputs, message):
    with pytest.raises(ParameterError, match=message):
        depthflow.report(depthflow.datasets.digits_vit(), inputs, path=tmp_path / "r.html", progress=False)


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("mine")
    with pytest.raises(StoreError, match="exists already and is not overwritten"):
        depthflow.report(directed(), path=path, progress=False)
    assert path.read_text() == "mine"
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="exists already"):
        depthflow.report(directed(), path=link, progress=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent/r.html", "there is no folder"), (f"{'r' * 245}.html", "cannot be written"), ("r" * 300, "cannot be")],
)
def test_where_nothing_can_be_written_nothing_is_measured(tmp_path, monkeypatch, name, message):
    monkeypatch.setattr(measured, "measure", pytest.fail)
    with pytest.raises(StoreError, match=message):
        depthflow.report(directed(), path=tmp_path / name, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_report_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / ".r.html.unfinished"
    (left / "convergence.zarr").mkdir(parents=True)
    path = depthflow.report(directed(), path=tmp_path / "r.html", measures=["convergence"], progress=False)
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise DepthflowError("out of ink")

    monkeypatch.setattr(still, "sphere", fail)
    with pytest.raises(DepthflowError, match="out of ink"):
        depthflow.report(directed(), path=tmp_path / "r.html", measures=["convergence"], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(tmp_path, monkeypatch, capsys):
    from depthflow.cli import main

    path = tmp_path / "r.html"
    arguments = ["depthflow", "report", "digits", "digits", "-o", str(path), "--measures", "phases", "--quiet"]
    monkeypatch.setattr("sys.argv", arguments)
    for status in (0, 2):
        with pytest.raises(SystemExit) as left:
            main()
        assert int(left.value.code or 0) == status
    said = capsys.readouterr()
    assert f"Written to {path}" in said.out
    assert "exists already" in said.err
    page = read(path)
    assert "digits on digits" in page.text
    assert page.view["ids"][3] == "digits/3"
