"""``inspect`` says in a table what ``record`` will do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import depthflow
from depthflow.errors import RecordError
from depthflow.models.base import TokenLayout
from tests.threads import one_thread  # noqa: F401


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return depthflow.datasets.digits_vit()


def test_without_inputs_the_structure_speaks(model) -> None:
    info = depthflow.inspect(model)
    assert info.blocks == tuple(f"blocks.{index}" for index in range(12))
    assert (info.grid, info.final_norm, info.width, info.observed) == ((4, 4), "norm", None, False)
    assert "the model's structure alone" in str(info)


def test_with_inputs_a_forward_pass_confirms_it(model) -> None:
    info = depthflow.inspect(model, depthflow.datasets.digits("test").images)
    assert (info.width, info.observed) == (64, True)
    assert "tokens      1 cls, 16 patch (4×4)" in str(info)
    assert "0 … 12 (0 is the input of block 1)" in str(info)


def test_it_runs_one_sample_and_restores_the_mode(model) -> None:
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    model.train()
    depthflow.inspect(model, (torch.zeros(4, 1, 8, 8) for _ in range(3)))
    handle.remove()
    assert sizes == [1]
    assert all(module.training for module in model.modules())
    model.eval()


def test_a_refused_model_says_why_and_what_to_do() -> None:
    info = depthflow.inspect(nn.Linear(2, 2))
    assert not info.supported
    assert "no family that depthflow knows" in info.reason
    assert info.remedy.startswith("Pass blocks=")
    assert str(info).splitlines()[2].split() == ["supported", "no"]


def test_a_failing_forward_pass_is_an_error(model) -> None:
    with pytest.raises(RecordError, match=r"failed on a batch of shape \(1, 1, 12, 12\)"):
        depthflow.inspect(model, np.zeros((2, 1, 12, 12), dtype=np.float32))
    with pytest.raises(RecordError, match="at least one sample"):
        depthflow.inspect(model, [])


def test_layout_places_and_text() -> None:
    layout = TokenLayout.image(["cls", "reg"], (2, 3))
    assert str(layout) == "1 cls, 1 reg, 6 patch (2×3)"
    assert layout.places() == ([-1, -1, 0, 0, 0, 1, 1, 1], [-1, -1, 0, 1, 2, 0, 1, 2])


def test_padding_that_differs_between_samples_is_ragged() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    layout = TokenLayout.padded(["cls", "patch", "patch", "patch"], mask)
    assert layout.types == ("cls", "patch", "patch", "pad")
    assert layout.ragged == {2}
