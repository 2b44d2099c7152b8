"""The optimiser: who steps what, against a plain AdamW, and its state there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from depthflow import SurrogateSettings
from depthflow.surrogate.blocks import CopiedBlock
from depthflow.surrogate.optimizer import Optimizer
from tests.stacks import vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import FLOAT64

WIDTH = 12
KINDS = ("muon", "adamw")


def blocks() -> nn.ModuleList:
    torch.manual_seed(0)
    teacher = vit().blocks
    writers = ["attn.proj", "mlp.2"]
    return nn.ModuleList(CopiedBlock(teacher[n], WIDTH, writers, depth_scale=True) for n in (0, 2)).double()


def gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def run(optimizer: Optimizer, model: nn.Module, steps: range) -> None:
    for step in steps:
        gradients(model, step)
        optimizer.scale_rates(1 / (step + 1))
        optimizer.step()


def test_adamw_is_its_definition():
    """arXiv:1711.05101, its weight decay times the rate, written out in NumPy."""
    settings = SurrogateSettings(optimizer="adamw", learning_rate=0.01, weight_decay=0.1)
    model = blocks()
    wanted = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}
    first, second = ({name: np.zeros_like(weight) for name, weight in wanted.items()} for _ in range(2))
    optimizer = Optimizer(model, settings)
    for step in range(3):
        gradients(model, step)
        rate = 0.01 / (step + 1)
        for name, parameter in model.named_parameters():
            g = parameter.grad.numpy()
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            bias1, bias2 = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
            change = first[name] / bias1 / (np.sqrt(second[name] / bias2) + 1e-8)
            wanted[name] = wanted[name] * (1 - rate * 0.1) - rate * change
        optimizer.scale_rates(1 / (step + 1))
        optimizer.step()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach(), wanted[name], **FLOAT64)


def test_muon_orthogonalises_the_matrices_and_leaves_all_else_to_adamw():
    model, plain = blocks(), blocks()
    run(Optimizer(model, SurrogateSettings(optimizer="muon", matrix_rate=0.1)), model, range(1))
    run(Optimizer(plain, SurrogateSettings(optimizer="adamw")), plain, range(1))
    before = dict(blocks().named_parameters())
    others = dict(plain.named_parameters())
    matrices = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "depth_scale" not in name:
            change = (parameter - before[name]).detach()
            spread = torch.linalg.svdvals(change)
            assert spread[-1] > 0.5 * spread[0], name  # a random matrix of AdamW's signs has a far wider spread
            assert not torch.allclose(parameter, others[name])
            matrices += 1
        else:
            assert torch.equal(parameter, others[name]), name
    assert matrices == 2 * 4  # qkv, proj and the two of the MLP


def test_a_block_without_matrices_has_no_muon_and_one_of_them_alone_no_adamw():
    for model in (nn.LayerNorm(WIDTH), nn.Linear(3, 5, bias=False)):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        run(Optimizer(model, SurrogateSettings()), model, range(1))
        assert not any(map(torch.equal, before, model.parameters()))


def test_a_step_forgets_the_gradients():
    model = blocks()
    run(Optimizer(model, SurrogateSettings()), model, range(1))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_shares_of_the_largest_not_of_the_last(kind):
    optimizer = Optimizer(blocks(), SurrogateSettings(optimizer=kind, learning_rate=0.5, matrix_rate=0.25))
    for share in (0.1, 1.0, 0.3):
        optimizer.scale_rates(share)
        rates = [part.param_groups[0]["lr"] for part in optimizer._parts]
        assert rates == [share * 0.5, share * 0.25][: len(rates)]
    assert len(rates) == {"muon": 2, "adamw": 1}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_taken_over_goes_on_bit_for_bit(kind):
    settings = SurrogateSettings(optimizer=kind)
    model = blocks()
    run(Optimizer(model, settings), model, range(5))
    half = blocks()
    before = Optimizer(half, settings)
    run(before, half, range(3))
    state = {name: tensor.clone() for name, tensor in before.state().items()}
    after = Optimizer(half, settings)
    after.load(state)
    run(after, half, range(3, 5))
    assert all(map(torch.equal, half.parameters(), model.parameters()))
    without = Optimizer(half, settings)
    without.load({})
    run(without, half, range(5, 6))
    run(after, model, range(5, 6))  # the gradients are the model's: half has stepped by itself
    assert not all(map(torch.equal, half.parameters(), model.parameters()))


def test_names_that_begin_alike_are_kept_apart():
    """Of ten blocks the second's names begin as the eleventh's do."""
    torch.manual_seed(0)
    model = nn.ModuleList(nn.Linear(2, 2) for _ in range(12))
    settings = SurrogateSettings(optimizer="adamw")
    optimizer = Optimizer(model, settings)
    run(optimizer, model, range(2))
    state = optimizer.state()
    assert len(state) == 24 * 3
    again = Optimizer(model, settings)
    again.load(state)
    for weight, kept in optimizer._parts[0].state.items():
        assert all(torch.equal(kept[key], again._parts[0].state[weight][key]) for key in kept)


def test_zero_decay_leaves_what_has_no_gradient():
    settings = SurrogateSettings(optimizer="adamw", weight_decay=0, learning_rate=math.pi)
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    model.weight.grad, model.bias.grad = torch.zeros(2, 3), torch.ones(2)
    Optimizer(model, settings).step()
    assert torch.equal(model.weight, before)
