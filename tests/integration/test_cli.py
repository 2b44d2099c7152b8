"""The command line as a user meets it: what it prints, what it writes, and one line for each mistake."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import depthflow
from depthflow.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object, cwd: Path | None = None) -> Done:
    """Call the command line in this process, which is what the installed script does."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["depthflow", *map(str, arguments)])
        if cwd is not None:
            patch.chdir(cwd)
        with pytest.raises(SystemExit) as left:
            main()
    return Done(int(left.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "digits.zarr"
    done = run("record", "digits", "digits", "--store", path, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "360 samples, 13 depths, 17 tokens, 64 features, float32" in done.stdout
    return path


def test_the_installed_script_inspects():
    script = Path(sys.executable).with_name("depthflow")
    done = subprocess.run([script, "inspect", "digits"], capture_output=True, text=True, check=True)
    assert "12: blocks.0 … blocks.11" in done.stdout
    assert "1 cls, 16 patch (4×4)" in done.stdout


def test_record_writes_what_python_records(store):
    data = depthflow.datasets.digits("test")
    expected = depthflow.record(depthflow.datasets.digits_vit(), data.images, labels=data.labels, progress=False)
    opened = depthflow.open_trajectory(store)
    np.testing.assert_array_equal(opened.values, expected.values)
    np.testing.assert_array_equal(opened.label, data.labels)
    np.testing.assert_array_equal(opened.token_type, expected.token_type)


def test_analyze(store, tmp_path):
    done = run("analyze", store, "-o", tmp_path / "out", "--measures", "convergence,basins", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "Do directions converge?" in done.stdout
    assert "random directions" in done.stdout
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["basins.png", "convergence.png", "results.zarr", "summary.txt"]
    tree = xr.open_datatree(tmp_path / "out" / "results.zarr", engine="zarr", consolidated=False)
    assert tree["results/basins"].ari.dims == ("depth",)
    assert tree["null/convergence"].angle.sizes["sample"] == 360
    again = run("analyze", store, "-o", tmp_path / "out", "--quiet")
    assert again.returncode == 2
    assert "holds results already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "resnet"), "resnet"),
        (("inspect", "timm:vit_smal_patch16_224"), "vit_small_patch16_224"),
        (("record", "digits", "/no/such/folder", "--store", "t.zarr"), "/no/such/folder"),
        (("record", "digits", "digits", "--store", "t.zarr", "--tokens", "reg"), "'reg'"),
        (("record", "digits", "digits", "--store", "t.zarr", "--tokens", "0,x"), "whole numbers separated by commas"),
        (("analyze", "nothing.zarr", "-o", "out"), "not a zarr v3 store"),
        (("fold",), "No such command"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path, arguments, message):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.zarr"))


def test_an_unknown_measure(store, tmp_path):
    done = run("analyze", store, "-o", tmp_path / "out", "--measures", "entropy", "--quiet")
    assert done.returncode == 2
    assert "knows the measures convergence, coherence, update_spectra, phases, basins, dmd, perturb" in done.stderr
    assert "got 'entropy'" in done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--measures", "perturb"), "perturb needs the model itself, not its states alone: depthflow analyze MODEL"),
        (("digits", "--null", "x.zarr"), "--null is the null of a store"),
        (("digits", "--measures", "perturb,basin_stability"), "made from basins and perturb; choose basins too"),
    ],
)
def test_measures_that_do_not_fit_the_source(store, tmp_path, more, message):
    source = store if more[0].startswith("--") else "digits"
    done = run("analyze", source, *more, "-o", tmp_path / "out", "--quiet")
    assert done.returncode == 2
    assert message in done.stderr


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 255, (170, 180, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def test_analyze_a_model_of_ones_own_on_a_folder(photos, tmp_path):
    chosen = "phases,basins,perturb,basin_stability,jacobian,swap_blocks"
    out = tmp_path / "out"
    done = run(
        *("analyze", "timm:test_vit", photos, "-o", out, "--random-weights", "--labels-from-folders"),
        *("--measures", chosen, "--batch-size", 3, "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    tree = xr.open_datatree(out / "results.zarr", engine="zarr", consolidated=False)
    for group in ("results", "null"):
        assert set(tree[group].children) == set(chosen.split(","))
        for measure in ("perturb", "jacobian"):
            assert tree[f"{group}/{measure}"].label.values.tolist() == ["cats", "cats", "dogs", "dogs"]
        assert "accuracy" not in tree[f"{group}/swap_blocks"], "the folders' names are not the model's classes"
    assert not np.array_equal(tree["results/perturb"].gain, tree["null/perturb"].gain)
    assert "Do pushed paths come back?" in done.stdout
    assert (out / "swap_blocks.png").exists()


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    done = run("record", "digits", tmp_path, "--store", tmp_path / "t.zarr")
    assert done.returncode == 2
    assert "no images" in done.stderr


def test_fit(tmp_path):
    folder = tmp_path / "surrogate"
    options = ["-o", folder, "--steps", "2,3", "--batch-size", "8", "--quiet"]
    done = run("fit", "digits", "digits", *options)
    assert done.returncode == 0, done.stderr
    assert "2 blocks in place of 12" in done.stdout
    assert "the best linear map of each phase" in done.stdout
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "scores.zarr", "surrogate.png", "checkpoint"}
    surrogate = depthflow.RecurrentSurrogate.from_pretrained(folder)
    scores = xr.open_zarr(folder / "scores.zarr", consolidated=False)
    assert surrogate.settings.steps == (2, 3)
    assert surrogate.scores["epsilon"] == pytest.approx(float(scores.epsilon), abs=1e-6)
    assert scores.attrs["samples"] == 360
    again = run("fit", "digits", "digits", *options)
    assert again.returncode == 2
    assert "holds a surrogate already" in again.stderr


def test_fit_to_a_folder_keeps_a_tenth_for_the_scores(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
    settings = tmp_path / "settings.json"
    settings.write_text('{"batch_size": 4, "optimizer": "adamw"}')
    options = ["-o", tmp_path / "out", "--steps", "1,1", "--settings", settings, "--labels-from-folders", "--quiet"]
    done = run("fit", "digits", tmp_path / "photos", *options)
    assert done.returncode == 0, done.stderr
    assert xr.open_zarr(tmp_path / "out" / "scores.zarr", consolidated=False).attrs["samples"] == 2
    surrogate = depthflow.RecurrentSurrogate.from_pretrained(tmp_path / "out")
    assert (surrogate.settings.optimizer, surrogate.settings.batch_size) == ("adamw", 4)
    assert surrogate.teacher["samples"] == 17, "a tenth of the other 18 is held out for the choice of the weights"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ('{"step": 3}', "needs an object with settings among init, depth_scale"),
        ("[3]", "needs an object with settings among"),
        ('{"batch_size": 0}', "needs batch_size as a whole number from 1; got 0"),
        ('{"steps": 3}', "needs steps as a pair"),
        ('{"forcing": "much"}', "needs forcing as a number"),
    ],
)
def test_settings_that_do_not_do(tmp_path, text, message):
    path = tmp_path / "settings.json"
    path.write_text(text)
    done = run("fit", "digits", "digits", "-o", tmp_path / "out", "--settings", path, "--quiet")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
