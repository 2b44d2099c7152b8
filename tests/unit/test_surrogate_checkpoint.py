"""A checkpoint keeps everything, is replaced whole, and is refused where it is of another fit or cannot be read."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest
import torch
from safetensors.torch import save_file

from depthflow.errors import SurrogateError
from depthflow.surrogate.checkpoint import FILE, Checkpoints, Progress

SETTINGS = {"steps": [3, 4], "batch_size": 5, "phases": [1, 1, 2], "teacher": "ab", "seed": 7}
CPU = torch.device("cpu")


def progress() -> Progress:
    torch.manual_seed(0)
    return Progress(
        stage=2,
        step=3,
        weights={"0.block.weight": torch.randn(3, 5), "0.count": torch.tensor(4)},
        optimizer={"0.block.weight/exp_avg": torch.randn(3, 5).double(), "0.block.weight/step": torch.tensor(3.0)},
        best={"0.block.weight": torch.randn(5, 3).T},  # not contiguous
        best_loss=0.1 + 0.2,
        waited=2,
        history={"loss": [0.5, 1 / 3], "validation_loss": [2.0]},
    )


def test_everything_is_kept_bit_for_bit(tmp_path):
    Checkpoints(tmp_path / "made" / "here", SETTINGS).save(progress())
    got, wanted = Checkpoints(tmp_path / "made" / "here", SETTINGS).load(CPU), progress()
    for one in fields(Progress):
        kept, given = getattr(got, one.name), getattr(wanted, one.name)
        if one.name in ("weights", "optimizer", "best"):
            assert kept.keys() == given.keys()
            assert all(torch.equal(kept[name], given[name]) for name in given)
            assert all(kept[name].dtype == given[name].dtype for name in given)
        else:
            assert kept == given, one.name


def test_nothing_there_is_a_fresh_start(tmp_path):
    assert Checkpoints(tmp_path, SETTINGS).load(CPU) is None


def test_a_process_that_does_not_write_leaves_nothing(tmp_path):
    Checkpoints(tmp_path / "folder", SETTINGS, writes=False).save(progress())
    assert not (tmp_path / "folder").exists()


def test_a_failed_write_leaves_the_one_before_and_no_litter(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, SETTINGS)
    checkpoints.save(progress())

    def fails(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("depthflow.surrogate.checkpoint.save_file", fails)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(Progress(step=99))
    assert checkpoints.load(CPU).step == 3
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"phases": (1, 2, 2)}, "phases was [1, 1, 2] and is [1, 2, 2]"),
        ({"teacher": "cd"}, "teacher was 'ab' and is 'cd'"),
        ({"seed": 8}, "seed was 7 and is 8"),
        ({"processes": 2}, "processes was None and is 2"),
        ({"seed": 8, "teacher": "cd"}, "seed was 7 and is 8; teacher was 'ab' and is 'cd'"),
        ({"steps": (3, 5)}, "steps was [3, 4] and is [3, 5]"),
    ],
)
def test_another_fit_s_is_refused_and_the_difference_named(tmp_path, changed, text):
    Checkpoints(tmp_path, SETTINGS).save(progress())
    with pytest.raises(SurrogateError, match=re.escape(text) + r".*Use these, another folder, or resume=False"):
        Checkpoints(tmp_path, {**SETTINGS, **changed}).load(CPU)


def test_only_the_settings_that_differ_are_named(tmp_path):
    Checkpoints(tmp_path, SETTINGS).save(progress())
    with pytest.raises(SurrogateError) as caught:
        Checkpoints(tmp_path, {**SETTINGS, "steps": (3, 5)}).load(CPU)
    assert "batch_size" not in str(caught.value)


def test_tuples_are_the_lists_that_json_makes_of_them(tmp_path):
    Checkpoints(tmp_path, SETTINGS).save(progress())
    assert Checkpoints(tmp_path, {**SETTINGS, "phases": (1, 1, 2)}).load(CPU).stage == 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_a_clear_error(tmp_path, share):
    checkpoints = Checkpoints(tmp_path, SETTINGS)
    checkpoints.save(progress())
    whole = checkpoints.path.read_bytes()
    checkpoints.path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SurrogateError, match=r"cannot be read as a checkpoint: .*Remove it, or pass resume=False"):
        checkpoints.load(CPU)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"settings": "{"},
        {"settings": json.dumps(SETTINGS), "progress": json.dumps({"epoch": 3})},
        {"settings": json.dumps(SETTINGS), "progress": "[]"},
    ],
    ids=["none", "no JSON", "another's progress", "no mapping"],
)
def test_a_foreign_file_is_a_clear_error(tmp_path, metadata):
    save_file({"weights/a": torch.zeros(2)}, tmp_path / FILE, metadata)
    with pytest.raises(SurrogateError, match="cannot be read as a checkpoint"):
        Checkpoints(tmp_path, SETTINGS).load(CPU)


def test_foreign_tensors_are_a_clear_error(tmp_path):
    numbers = {"stage": 1, "step": 0, "best_loss": None, "waited": 0, "history": {}}
    metadata = {"settings": json.dumps(SETTINGS), "progress": json.dumps(numbers)}
    save_file({"blocks.0.weight": torch.zeros(2)}, tmp_path / FILE, metadata)
    with pytest.raises(SurrogateError, match="cannot be read as a checkpoint"):
        Checkpoints(tmp_path, SETTINGS).load(CPU)
