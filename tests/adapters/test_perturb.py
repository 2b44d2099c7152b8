"""Every family: pushed paths are those of a model into whose states independent hooks put the same push."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

import depthflow
from tests.adapters.families import CASES, SAMPLES, Case
from tests.adapters.runs import call, given, passed_on, state_given, take, with_state
from tests.snapshot import Snapshot
from tests.tolerances import FLOAT64

DEPTHS = (0, 2)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def in_double(case: Case) -> tuple[nn.Module, Any]:
    """Return the model and its batch in float64, where nothing but a mistake is larger than rounding."""
    batch = case.batch()
    if isinstance(batch, dict):
        return case.model().double(), {
            name: value.double() if value.is_floating_point() else value for name, value in batch.items()
        }
    return case.model().double(), batch.double()


def push(case: Case, model: nn.Module, batch: Any, **options: Any) -> Any:
    kind = next(kind for kind in ("cls", "patch", "token") if kind in case.types)
    settings = {"tokens": kind, "n_draws": 2, "angle": 0.1, "states": True, "batch_size": 9, **options}
    return depthflow.perturb(model, batch, blocks=given(case, model), progress=False, **settings)


def last_state_by_plain_hooks(case: Case, model: nn.Module, batch: Any, depth: int, change: Tensor) -> np.ndarray:
    """Return the last block's output where ``change`` is added to the state of ``depth`` as the model runs."""
    model = copy.deepcopy(model).eval()
    blocks, seen = case.blocks(model), []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if seen or depth:
            return None
        return with_state(args, kwargs, state_given(args, kwargs) + change)

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        state = passed_on(output)
        seen.append(state + change if len(seen) + 1 == depth else state.clone())
        return (seen[-1], *output[1:]) if isinstance(output, tuple) else seen[-1].clone()

    blocks[0].register_forward_pre_hook(enter, with_kwargs=True)
    for block in dict.fromkeys(blocks):
        block.register_forward_hook(leave)
    with torch.no_grad():
        call(model, batch)
    assert len(seen) == case.depth
    return seen[-1].numpy()


@pytest.mark.parametrize("depth", DEPTHS)
def test_pushed_paths_are_those_of_independent_hooks(case: Case, depth: int) -> None:
    model, batch = in_double(case)
    result = push(case, model, batch, depth=depth)
    assert dict(result.angle.sizes) == {
        "draw": 2,
        "sample": SAMPLES,
        "depth": case.depth + 1,
        "token": len(case.types),
    }
    for draw in range(2):
        change = torch.as_tensor((result.state[draw, :, depth] - result.reference[:, depth]).values)
        assert change.abs().amax() > 0
        expected = last_state_by_plain_hooks(case, model, batch, depth, change)
        assert_allclose(result.state[draw, :, -1], expected, **FLOAT64)
        assert np.abs(expected - result.reference[:, -1].values).max() > 1e-3, "the push must be seen at the end"


def test_the_unpushed_path_is_the_recording(case: Case) -> None:
    model, batch = in_double(case)
    traj = take(case, model, batch, dtype="float64")
    result = push(case, model, batch, depth=2)
    assert_allclose(result.reference, traj, **FLOAT64)
    assert result.token_type.values.tolist() == case.types
    assert result.module.values.tolist() == traj.attrs["modules"]
    is_pushed = result.pushed.values
    assert_allclose(result.angle[:, :, 2].values[..., is_pushed], 0.1, **FLOAT64)
    assert (result.angle[:, :, 2].values[..., ~is_pushed] == 0).all()
    assert np.isfinite(result.gain).all()
    ends = depthflow.basins(traj, 1).direction
    assert_allclose(result.reference_direction, ends, **FLOAT64)


def test_the_model_is_left_as_it_was(case: Case) -> None:
    model, batch = case.model().train(), case.batch()
    before = Snapshot(model)
    push(case, model, batch, depth=case.depth - 1)
    before.require(model)
