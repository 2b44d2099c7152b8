"""The loss against plain NumPy over the surrogate's states: weights, variances, both stages, forcing, gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from depthflow.errors import ParameterError
from depthflow.surrogate.lessons import Lesson
from depthflow.surrogate.objective import Objective, target
from depthflow.surrogate.recurrent import Plan, RecurrentSurrogate
from depthflow.surrogate.stored import STATE_ALONE
from depthflow.surrogate.survey import Survey
from depthflow.surrogate.training import forcing_at, judged, rate_at
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import EXACT, FLOAT32, FLOAT64, GRADIENT, REDUCED_PRECISION

SAMPLES, TOKENS, WIDTH, BLOCKS = 3, 7, 12, 5
TYPES = ["cls", "reg", "reg", "patch", "patch", "patch", "pad"]
PHASES = (1, 1, 2, 2, 2)
WEIGHTS = {"cls": 0.5, "reg": 0.2, "patch": 0.9, "dist": 3.0, "pad": 0.0}
KINDS = ("cls", "reg", "patch", "pad")


def surrogate(phases: tuple[int, ...] = PHASES) -> RecurrentSurrogate:
    """Return one of the bundled model's blocks, told their depth, no scale as it was set up."""
    torch.manual_seed(0)
    teacher = vit()
    teacher.blocks.append(vit().blocks[0])
    medoids = tuple(phases.index(phase) + 1 for phase in range(1, max(phases) + 1))
    names = tuple(f"blocks.{n}" for n in range(BLOCKS))
    writers = (("attn.proj", "mlp.2"),) * len(medoids)
    made = RecurrentSurrogate(teacher, Plan(names, phases, medoids, WIDTH, True, writers))
    with torch.no_grad():
        for block in made.blocks:
            block.depth_scale.outer.bias.add_(0.1 * torch.randn_like(block.depth_scale.outer.bias))
            block.depth_scale.outer.weight.add_(0.1 * torch.randn_like(block.depth_scale.outer.weight))
    return made


def lesson(seed: int = 0, samples: int = SAMPLES) -> Lesson:
    states = torch.randn(BLOCKS + 1, samples, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Lesson(list(states), [STATE_ALONE] * BLOCKS)


def survey() -> Survey:
    variance = np.random.default_rng(0).uniform(0.5, 2.0, (BLOCKS, len(KINDS)))
    return Survey(np.eye(BLOCKS), variance, KINDS, SAMPLES)


def objective(made: RecurrentSurrogate, stage: int, scale: bool = True, **kwargs: Any) -> Objective:
    return Objective(made, target(stage, made.plan.phases, survey(), TYPES, WEIGHTS, scale), None, **kwargs)


def by_hand(made: RecurrentSurrogate, given: Lesson, stage: int, forcing: float, scale: bool = True) -> Tensor:
    """The loss, token by token and depth by depth, as the paper defines it."""
    total = sum(WEIGHTS[kind] for kind in KINDS)
    phases = made.plan.phases

    def error(state: Tensor, depth: int) -> Tensor:
        loss = torch.zeros(())
        for kind in KINDS:
            at = [n for n, found in enumerate(TYPES) if found == kind]
            square = (state[:, at] - given.states[depth][:, at]).square().mean()
            variance = survey().variance[depth - 1, KINDS.index(kind)] if scale else 1.0
            loss = loss + WEIGHTS[kind] / total * square / variance
        return loss

    loss, free = torch.zeros(()), given.states[0]
    for depth in range(1, BLOCKS + 1):
        if stage == 1 and depth > 1 and phases[depth - 1] != phases[depth - 2]:
            free = given.states[depth - 1]
        free = made.steps[depth - 1](free)
        alone = made.steps[depth - 1](given.states[depth - 1])
        depths = phases.count(phases[depth - 1]) if stage == 1 else BLOCKS
        loss = loss + ((1 - forcing) * error(free, depth) + forcing * error(alone, depth)) / depths
    return loss


def require_alike(found: Tensor, wanted: Tensor) -> None:
    """Compare gradients by their largest entry, which is not zero."""
    size = wanted.abs().max()
    np.testing.assert_allclose(found / size, wanted / size, **GRADIENT)


@pytest.mark.parametrize("phases", [PHASES, (1, 2, 1, 1, 2)], ids=["runs", "scattered"])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize(("stage", "forcing"), [(1, 0.0), (1, 0.3), (1, 1.0), (2, 0.0)])
def test_the_loss_and_its_gradient_are_those_written_out(stage, forcing, scale, phases):
    made, given = surrogate(phases), lesson()
    loss, _ = objective(made, stage, scale)(given, forcing)
    expected = by_hand(made, given, stage, forcing, scale)
    np.testing.assert_allclose(loss.detach(), expected.detach(), **FLOAT32)
    parameters = list(made.blocks.parameters())
    found = torch.autograd.grad(loss, parameters)
    wanted = torch.autograd.grad(expected, parameters)
    for one, other in zip(found, wanted, strict=True):
        require_alike(one, other)


def test_errors_are_those_of_each_token_along_the_path():
    made, given = surrogate(), lesson()
    errors = objective(made, 2).errors(given)
    state = given.states[0]
    with torch.no_grad():
        for depth in range(1, BLOCKS + 1):
            state = made.steps[depth - 1](state)
            wanted = (state - given.states[depth]).numpy().astype(np.float64) ** 2
            np.testing.assert_allclose(errors[depth - 1], wanted.mean(axis=(0, 2)), **FLOAT32)
    assert not errors.requires_grad
    np.testing.assert_allclose(objective(made, 2).loss(errors), objective(made, 2)(given, 0.0)[0].detach(), **FLOAT32)


def test_r2_is_one_minus_error_over_variance_of_the_tokens_that_count():
    made = surrogate()
    errors = torch.rand(BLOCKS, TOKENS, generator=torch.Generator().manual_seed(0))
    variance = survey().variance
    counts = [n for n, kind in enumerate(TYPES) if kind != "pad"]
    of_token = np.stack([variance[:, KINDS.index(TYPES[n])] for n in counts], axis=1)
    wanted = 1 - errors[:, counts].numpy().sum(1) / of_token.sum(1)
    np.testing.assert_allclose(objective(made, 2).r2(errors), wanted, **FLOAT32)
    np.testing.assert_allclose(objective(made, 2).r2(torch.zeros(BLOCKS, TOKENS)), 1.0, **EXACT)


def test_with_variances_the_loss_of_states_at_their_mean_is_one():
    """1 − R² of a constant path is 1, whatever the weights: those of the types sum to 1, and so do those of depths."""
    for stage in (1, 2):
        goal = target(stage, PHASES, survey(), TYPES, WEIGHTS, True)
        total = {1: 2.0, 2: 1.0}[stage]  # stage 1 has one loss for each of its two phases
        np.testing.assert_allclose(float((goal.weight * goal.variance).sum()), total, **FLOAT32)


def test_a_padded_token_counts_for_nothing():
    made, given = surrogate(), lesson()
    changed = Lesson([torch.cat([s[:, :-1], 99 * s[:, -1:]], dim=1) for s in given.states], given.arguments)
    weight = target(1, PHASES, survey(), TYPES, WEIGHTS, True).weight
    assert torch.all(weight[:, -1] == 0)
    assert torch.all(weight[:, :-1] > 0)
    pads = objective(made, 1).errors(changed)[:, -1]
    assert torch.all(pads > objective(made, 1).errors(given)[:, -1])


def test_weights_that_name_no_token_are_refused():
    with pytest.raises(
        ParameterError, match=r"token_weights leave nothing to fit: the tokens are of types \('cls', 'r"
    ):
        target(1, PHASES, survey(), TYPES, {"token": 1.0}, True)


def test_the_identity_s_errors_are_those_of_depth_0():
    given = lesson()
    found = objective(surrogate(), 2).errors_of_identity(given)
    for depth in range(1, BLOCKS + 1):
        wanted = (given.states[0] - given.states[depth]).numpy().astype(np.float64) ** 2
        np.testing.assert_allclose(found[depth - 1], wanted.mean(axis=(0, 2)), **FLOAT32)


def test_a_combined_step_of_stage_1_is_separate_steps_of_each_phase():
    """No phase's loss reaches another's block, so that all may be trained at once."""
    made, given = surrogate(), lesson()
    loss, _ = objective(made, 1)(given, 0.3)
    loss.backward()
    goal = target(1, PHASES, survey(), TYPES, WEIGHTS, True)
    for phase, span in enumerate(goal.spans):
        inside = torch.zeros(BLOCKS, 1)
        inside[slice(*span)] = 1
        alone = Objective(made, goal._replace(weight=goal.weight * inside), None)(given, 0.3)[0]
        for number, block in enumerate(made.blocks):
            found = torch.autograd.grad(alone, list(block.parameters()), retain_graph=True)
            for one, parameter in zip(found, block.parameters(), strict=True):
                wanted = parameter.grad if number == phase else torch.zeros_like(one)
                size = parameter.grad.abs().max()
                np.testing.assert_allclose(one / size, wanted / size, **GRADIENT)


def test_the_shell_and_the_teacher_s_states_are_left_alone():
    made, given = surrogate(), lesson()
    before = [state.clone() for state in given.states]
    objective(made, 1)(given, 0.3)[0].backward()
    assert all(map(torch.equal, given.states, before))
    inside = {id(parameter) for parameter in made.blocks.parameters()}
    assert all(parameter.grad is None for parameter in made.parameters() if id(parameter) not in inside)


class Writing(nn.Module):
    """A block that writes over the state that its own gradient needs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(self.linear(self.norm(x)).tanh())


class Plain(Writing):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.norm(x)).tanh()


@pytest.mark.parametrize("depth_scale", [True, False])
@pytest.mark.parametrize(("stage", "forcing"), [(1, 0.3), (2, 0.0)])
def test_blocks_that_write_over_their_input_have_the_same_gradient(stage, forcing, depth_scale):
    grads = []
    for kind in (Writing, Plain):
        torch.manual_seed(0)
        names = tuple(f"blocks.{n}" for n in range(BLOCKS))
        plan = Plan(names, PHASES, (1, 3), WIDTH, depth_scale, ((), ()))
        made = RecurrentSurrogate(Chain(*(kind() for _ in range(BLOCKS))), plan)
        loss, _ = objective(made, stage, in_place=kind is Writing)(lesson(), forcing)
        grads.append([loss, *torch.autograd.grad(loss, list(made.blocks.parameters()))])
    for one, other in zip(*grads, strict=True):
        require_alike(one.detach(), other.detach())


def test_the_loss_of_many_lessons_weighs_each_by_its_samples():
    made = surrogate()
    few, many = lesson(1, samples=2), lesson(2, samples=5)
    whole = Lesson([torch.cat(pair) for pair in zip(few.states, many.states, strict=True)], few.arguments)
    of = objective(made, 2)
    loss, r2 = judged(of, of.errors, [few, many])
    with torch.no_grad():
        wanted, errors = of(whole, 0.0)
    np.testing.assert_allclose(loss, wanted, **FLOAT32)
    np.testing.assert_allclose(r2, of.r2(errors).mean(), **FLOAT32)


def test_reduced_precision_keeps_states_and_loss_in_full():
    made, given = surrogate(), lesson()
    goal = target(2, PHASES, survey(), TYPES, WEIGHTS, True)
    full, _ = Objective(made, goal, None)(given, 0.0)
    reduced, errors = Objective(made, goal, torch.bfloat16)(given, 0.0)
    assert reduced.dtype == errors.dtype == torch.float32
    assert reduced != full
    np.testing.assert_allclose(reduced.detach(), full.detach(), **REDUCED_PRECISION)
    reduced.backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in made.blocks.parameters())


# schedules


def test_the_rate_rises_linearly_and_falls_by_half_a_cosine():
    steps, final = 100, 0.1
    found = [rate_at(step, steps, 0.2, final) for step in range(steps)]
    np.testing.assert_allclose(found[:19], np.arange(1, 20) / 20, **FLOAT64)
    wanted = [final + 0.9 * (1 + math.cos(math.pi * (step - 20) / 80)) / 2 for step in range(20, steps)]
    np.testing.assert_allclose(found[20:], wanted, **FLOAT64)
    assert found[19] == found[20] == max(found) == 1.0
    assert found[60] == pytest.approx(0.55, rel=FLOAT64["rtol"])


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (2, 0.5), (3, 1.0), (7, 0.05)])
def test_the_rate_is_a_share_above_zero_at_any_length(steps, warmup):
    found = [rate_at(step, steps, warmup, 0.0) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in found)
    assert max(found) == 1.0


def test_teacher_forcing_falls_from_one_to_zero_in_its_share_of_stage_1():
    found = [forcing_at(1, step, 100, 0.25) for step in range(100)]
    np.testing.assert_allclose(found[:25], 1 - np.arange(25) / 25, **FLOAT64)
    assert set(found[25:]) == {0.0}
    assert [forcing_at(1, step, 100, math.inf) for step in (0, 99)] == [1.0, 1.0]
    assert [forcing_at(1, step, 100, 0) for step in (0, 99)] == [0.0, 0.0]
    assert forcing_at(1, 99, 100, 2.0) == pytest.approx(0.505, rel=FLOAT64["rtol"])
    assert {forcing_at(2, step, 100, share) for step in (0, 50) for share in (0.25, math.inf, 0)} == {0.0}
