"""One contract that every family keeps: the right states, the right layout, and the model left as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import depthflow
from depthflow.errors import RecordError
from tests.adapters.families import CASES, DEPTH, SAMPLES, WIDTH, Case


def call(model: nn.Module, batch: Any) -> Any:
    return model(**batch) if isinstance(batch, dict) else model(batch)


def answer(model: nn.Module, batch: Any) -> torch.Tensor:
    """Return the model's first output tensor."""
    with torch.no_grad():
        output = call(model, batch)
    return output if isinstance(output, torch.Tensor) else output[0]


def states_by_plain_hooks(case: Case, model: nn.Module, batch: Any) -> np.ndarray:
    """Return (sample, depth, token, feature) by hooks that share nothing with depthflow's."""
    model = copy.deepcopy(model).eval()
    seen: list[torch.Tensor] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).clone())

    blocks = case.blocks(model)
    blocks[0].register_forward_pre_hook(enter, with_kwargs=True)
    for block in dict.fromkeys(blocks):
        block.register_forward_hook(leave)
    with torch.no_grad():
        call(model, batch)
    return torch.stack(seen, dim=1).numpy()


def given(case: Case, model: nn.Module) -> Any:
    return case.given(model) if callable(case.given) else case.given


def take(case: Case, model: nn.Module, batch: Any, **kwargs: Any) -> Any:
    return depthflow.record(model, batch, blocks=given(case, model), progress=False, **kwargs)


class Snapshot:
    """Everything of a model that a recording must not change."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.storage = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
        self.now = self.flags(model)

    @staticmethod
    def flags(model: nn.Module) -> Any:
        return (
            [module.training for module in model.modules()],
            [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
            [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
            torch.is_grad_enabled(),
        )

    def require(self, model: nn.Module) -> None:
        assert self.flags(model) == self.now
        assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == self.storage
        state = model.state_dict()
        assert state.keys() == self.state.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in self.state.items())


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_states_are_those_of_independent_hooks_bit_for_bit(case: Case) -> None:
    model, batch = case.model(), case.batch()
    expected = states_by_plain_hooks(case, model, batch)
    traj = take(case, model, batch)
    assert traj.dims == ("sample", "depth", "token", "feature")
    assert traj.shape == (SAMPLES, case.depth + 1, len(case.types), WIDTH)
    assert traj.depth.values.tolist() == list(range(case.depth + 1))
    np.testing.assert_array_equal(traj.values, expected)
    assert not np.array_equal(expected[:, 0], expected[:, 1]), "a block must move its states"


def test_layout_is_exact(case: Case) -> None:
    traj = take(case, case.model(), case.batch())
    assert traj.token_type.values.tolist() == case.types
    assert traj.attrs["modules"][0] == case.names
    assert len(traj.attrs["modules"]) == case.depth
    assert traj.attrs["final_norm"] == "not applied"
    assert traj.attrs.get("final_norm_module") == case.final_norm
    if case.grid is None:
        assert "row" not in traj.coords
    else:
        patches = np.array(case.types) == "patch"
        rows, cols = np.indices(case.grid)
        np.testing.assert_array_equal(traj.row.values[patches], rows.ravel())
        np.testing.assert_array_equal(traj.col.values[patches], cols.ravel())
        assert set(traj.row.values[~patches].tolist()) <= {-1}


def test_inspect_agrees_with_record(case: Case) -> None:
    model, batch = case.model(), case.batch()
    traj = take(case, model, batch)
    info = depthflow.inspect(model, batch, blocks=given(case, model))
    assert info.supported
    assert info.observed
    assert list(info.blocks) == traj.attrs["modules"]
    assert list(info.layout.types) == case.types
    assert (info.grid, info.width, info.final_norm) == (case.grid, WIDTH, case.final_norm)
    unseen = depthflow.inspect(model, blocks=given(case, model))
    assert unseen.layout is None or unseen.layout == info.layout
    assert unseen.width in (None, WIDTH)
    assert case.names in str(unseen)


def test_model_is_left_as_it_was(case: Case) -> None:
    model, batch = case.model(), case.batch()
    model.train()
    next(iter(case.blocks(model))).eval()  # flags that differ between modules must come back as they were
    next(model.parameters()).requires_grad_(False)
    before = Snapshot(model)
    take(case, model, batch)
    before.require(model)
    twin = case.model().eval()
    assert torch.equal(answer(model.eval(), batch), answer(twin, batch))


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()])
def test_model_is_left_as_it_was_after_a_failure_in_mid_batch(case: Case, failure: BaseException) -> None:
    model, batch = case.model(), case.batch()
    blocks, armed = case.blocks(model), []
    plain = blocks[-1].forward

    def fail(*args: Any, **kwargs: Any) -> Any:
        if armed:
            raise failure
        return plain(*args, **kwargs)

    blocks[-1].forward = fail
    model.train()
    before = Snapshot(model)
    armed.append(True)
    with pytest.raises(RecordError if isinstance(failure, ValueError) else KeyboardInterrupt):
        take(case, model, batch)
    armed.clear()
    before.require(model)
    assert take(case, model, batch).sizes["sample"] == SAMPLES


def test_two_halves_equal_one(case: Case) -> None:
    model, batch = case.model(), case.batch()
    whole = take(case, model, batch, batch_size=1)
    split = [
        {k: v[i : i + 1] for k, v in batch.items()} if isinstance(batch, dict) else batch[i : i + 1]
        for i in range(SAMPLES)
    ]
    np.testing.assert_array_equal(take(case, model, iter(split)).values, whole.values)


COMPILED = [case for case in CASES if case.name in {"timm ViT", "hf ViT", "bundled ViT", "plain, dotted path"}]


@pytest.mark.parametrize("case", COMPILED, ids=lambda case: case.name)
@pytest.mark.parametrize("way", ["whole", "in place", "each block"])
def test_compiled_model_called_before_is_recorded_right(case: Case, way: str) -> None:
    model, batch = case.model().eval(), case.batch()
    expected = states_by_plain_hooks(case, model, batch)
    compiled = model
    if way == "whole":
        compiled = torch.compile(model, backend="eager")
    elif way == "in place":
        model.compile(backend="eager")
    else:
        for block in case.blocks(model):
            block.compile(backend="eager")
    with torch.no_grad():
        call(compiled, batch)
    traj = depthflow.record(compiled, batch, blocks=case.given, progress=False)
    np.testing.assert_array_equal(traj.values, expected)
    assert traj.attrs["modules"][0] == case.names
    torch.compiler.reset()


def test_depth_is_that_of_the_case() -> None:
    assert {case.depth for case in CASES if case.name != "weight-tied"} == {DEPTH}
