"""One contract that every family keeps: the right states, the right layout, and the model left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import depthflow
from depthflow.errors import RecordError
from tests.adapters.families import CASES, DEPTH, SAMPLES, WIDTH, Case
from tests.adapters.runs import WAYS_TO_COMPILE, answer, call, compiled, given, states_by_plain_hooks, take
from tests.snapshot import Snapshot


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
@pytest.mark.parametrize("way", WAYS_TO_COMPILE)
def test_compiled_model_called_before_is_recorded_right(case: Case, way: str) -> None:
    model, batch = case.model().eval(), case.batch()
    expected = states_by_plain_hooks(case, model, batch)
    with compiled(case, model, way) as fast:
        with torch.no_grad():
            call(fast, batch)
        traj = take(case, fast, batch)
    np.testing.assert_array_equal(traj.values, expected)
    assert traj.attrs["modules"][0] == case.names


def test_depth_is_that_of_the_case() -> None:
    assert {case.depth for case in CASES if case.name != "weight-tied"} == {DEPTH}
