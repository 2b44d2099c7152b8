"""Blocks swapped in every family: equal ones change nothing, and others what a model rebuilt by hand gives."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import depthflow
from tests.adapters.families import CASES, HF_IMAGE, Case
from tests.adapters.runs import answer, call, given, states_by_plain_hooks
from tests.snapshot import Snapshot
from tests.tolerances import FLOAT32

BY_NAME = {case.name: case for case in CASES}
FEW = "timm ViT", "hf ViT", "hf BERT", "bundled ViT", "timm DINOv3"


def swap(case: Case, model: nn.Module, **kwargs: Any) -> Any:
    return depthflow.swap_blocks(model, case.batch(), blocks=given(case, model), progress=False, **kwargs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_block_in_its_own_place_changes_nothing_and_the_model_is_left_as_it_was(case: Case) -> None:
    model = case.model()
    before = Snapshot(model.train())
    got = swap(case, model)
    before.require(model)
    assert got.effect.shape == (case.depth, case.depth)
    np.testing.assert_array_equal(np.diag(got.effect), 0.0)
    blocks = case.blocks(model)
    for i, block in enumerate(blocks):
        for j, other in enumerate(blocks):
            assert (got.effect.values[i, j] == 0) == (block is other), (i, j)
    stand_in = "cls" if "cls" in case.types else "patch" if "patch" in case.types else "token"
    assert (got.attrs["tokens"], got.attrs["n_tokens"]) == (stand_in, case.types.count(stand_in))
    assert got.module.values[0] == case.names


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The angle between vectors along the last axis by the definition, in extended precision."""
    a, b = a.astype(np.longdouble), b.astype(np.longdouble)
    cosine = (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.arccos(np.clip(cosine, -1, 1)).astype(np.float64)


def rebuilt(case: Case, model: nn.Module, i: int, j: int) -> nn.Module:
    """Return the model with a copy of block j's module in the place of block i."""
    new = copy.deepcopy(model)
    blocks = case.blocks(new)
    parent, _, key = next(name for name, module in new.named_modules() if module is blocks[i]).rpartition(".")
    setattr(new.get_submodule(parent), key, copy.deepcopy(blocks[j]))
    return new


@pytest.mark.parametrize("name", FEW)
def test_effects_are_those_of_a_model_rebuilt_with_the_block(name: str) -> None:
    case = BY_NAME[name]
    model, batch = case.model().eval(), case.batch()
    got = swap(case, model, tokens=[0, 2])
    own = states_by_plain_hooks(case, model, batch)[:, -1]
    for i, j in [(0, 4), (3, 1), (4, 2)]:
        final = states_by_plain_hooks(case, rebuilt(case, model, i, j), batch)[:, -1]
        expected = np.sqrt((angle(final, own)[:, [0, 2]] ** 2).mean(axis=1)).mean()
        np.testing.assert_allclose(got.effect.values[i, j], expected, **FLOAT32)


@pytest.mark.parametrize("name", ["timm ViT", "timm BeiT", "timm CaiT", "torchvision ViT", "bundled ViT"])
def test_accuracies_are_those_of_a_model_rebuilt_with_the_block(name: str) -> None:
    case = BY_NAME[name]
    model, batch = case.model().eval(), case.batch()
    with torch.no_grad():
        logits = {pair: call(rebuilt(case, model, *pair), batch) for pair in [(0, 4), (3, 1), (4, 2)]}
    # Half of the labels are the model's own answers, others those of swapped models, so that both outcomes occur.
    labels = answer(model, batch).argmax(1)
    labels[1:] = logits[0, 4].argmax(1)[1:]
    got = swap(case, model, labels=labels)
    own = (answer(model, batch).argmax(1) == labels).double().mean().item()
    assert got.accuracy_unswapped == own
    np.testing.assert_array_equal(np.diag(got.accuracy), own)
    for (i, j), swapped in logits.items():
        assert got.accuracy.values[i, j] == (swapped.argmax(1) == labels).double().mean().item()


def test_the_logits_of_a_transformers_classifier_are_read() -> None:
    def build() -> nn.Module:
        return transformers.ViTForImageClassification(transformers.ViTConfig(**HF_IMAGE, num_labels=5))

    case = replace(BY_NAME["hf ViT"], build=build, blocks=lambda m: list(m.vit.layers))
    model, batch = case.model().eval(), case.batch()
    with torch.no_grad():
        own, swapped = (call(m, batch).logits.argmax(1) for m in (model, rebuilt(case, model, 0, 3)))
    labels = torch.stack([own[0], own[1], swapped[2]])
    got = depthflow.swap_blocks(model, {**batch, "labels": labels}, progress=False)
    assert got.accuracy_unswapped == (own == labels).double().mean().item()
    assert got.accuracy.values[0, 3] == (swapped == labels).double().mean().item()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_features_are_never_taken_for_logits(case: Case) -> None:
    """Which of the families' outputs are logits, read from their code: those that end in a classifier."""
    classifies = case.name.startswith(("timm", "torchvision", "bundled"))
    model = case.model()
    if classifies:
        assert "accuracy" in swap(case, model, labels=[0, 1, 1])
    else:
        with pytest.raises(depthflow.errors.ParameterError, match=r"got labels without a head: .* Give the model with"):
            swap(case, model, labels=[0, 1, 1])
