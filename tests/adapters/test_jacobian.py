"""The Jacobian of every family against autograd through the whole model, by hooks that share nothing with ours."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import depthflow
from tests.adapters.families import CASES, SAMPLES, WIDTH, Case
from tests.adapters.runs import call, given, passed_on, state_given, with_state
from tests.tolerances import FLOAT32

TOKEN, START, STOP = 1, 1, 3


def jacobian_by_plain_hooks(case: Case, model: nn.Module, batch: Any) -> np.ndarray:
    """Return ∂x_STOP/∂x_START of one token (sample, feature out, feature in)."""
    model = copy.deepcopy(model).eval()
    held: dict[str, torch.Tensor] = {}
    calls = {"in": 0, "out": 0}

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls["in"] += 1
        state = state_given(args, kwargs).clone()  # some blocks write into their input
        if calls["in"] == START + 1:
            state = state.detach()
            held["free"] = state[:, TOKEN].clone().requires_grad_()
            state = torch.cat([state[:, :TOKEN], held["free"][:, None], state[:, TOKEN + 1 :]], dim=1)
        return with_state(args, kwargs, state)

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls["out"] += 1
        if calls["out"] == STOP:
            held["end"] = passed_on(output)[:, TOKEN].clone()

    for block in dict.fromkeys(case.blocks(model)):
        block.register_forward_pre_hook(enter, with_kwargs=True)
        block.register_forward_hook(leave)
    with saved_tensors_hooks(torch.clone, lambda saved: saved):  # the test's own blocks write over their input
        call(model, batch)
        rows = []
        for feature in range(WIDTH):
            (row,) = torch.autograd.grad(held["end"][:, feature].sum(), held["free"], retain_graph=True)
            rows.append(row)
    return torch.stack(rows, dim=1).numpy()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family(case: Case) -> None:
    model, batch = case.model(), case.batch()
    expected = jacobian_by_plain_hooks(case, model, batch)
    required = [parameter.requires_grad for parameter in model.parameters()]
    options = {"span": (START, STOP), "tokens": TOKEN, "directional": False, "progress": False}
    options["blocks"] = given(case, model)
    formed = depthflow.jacobian(model, batch, dense=True, n_modes=4, vectors=True, **options).isel(span=0)
    products = depthflow.jacobian(model, batch, dense=False, n_modes=4, **options).isel(span=0)
    values = np.linalg.svd(expected.astype(np.float64), compute_uv=False)
    assert formed.sizes["sample"] == SAMPLES
    assert_allclose(formed.singular_value, values[:, :4], **FLOAT32)
    assert_allclose(products.singular_value, values[:, :4], rtol=1e-3)
    for sample in range(SAMPLES):
        into, out = (formed[name].isel(sample=sample, mode=0, token=0).values for name in ("right", "left"))
        assert_allclose(expected[sample] @ into, values[sample, 0] * out, atol=1e-4 * values[sample, 0])
    assert [parameter.requires_grad for parameter in model.parameters()] == required
