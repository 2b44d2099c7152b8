"""fit_surrogate: what it learns, what it leaves alone, resuming bit for bit, and every refusal."""

from __future__ import annotations

import copy
import math
import warnings
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import depthflow
from depthflow import RecurrentSurrogate, SurrogateSettings
from depthflow.errors import ParameterError, RecordError, SurrogateError, UnsupportedModelError
from depthflow.surrogate import training
from depthflow.surrogate.optimizer import Optimizer
from tests.snapshot import Snapshot
from tests.stacks import Chain, linear, vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import EXACT, FLOAT32, FLOAT64, REDUCED_PRECISION, TRAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLES, BATCH, WIDTH, BLOCKS = 13, 4, 12, 4
PHASES = [1, 1, 2, 2]


@pytest.fixture(autouse=True)
def unwarned() -> Iterator[None]:
    """A few steps on random images often end no better than standing still; the test of that warning asks for it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit_surrogate: the surrogate ends no nearer")
        yield


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return vit()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def short(**changed: Any) -> SurrogateSettings:
    settings = {"steps": (5, 6), "batch_size": BATCH, "validate_every": 2, "checkpoint_every": 2}
    return SurrogateSettings(**{**settings, **changed})


def fit(model: nn.Module, inputs: Any, settings: SurrogateSettings | None = None, **kwargs: Any) -> RecurrentSurrogate:
    return depthflow.fit_surrogate(model, inputs, settings=settings or short(), progress=False, **kwargs)


def weights(made: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in made.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def timeless(history: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in history.items() if name != "seconds"}


# what it learns


def test_a_fit_brings_the_states_nearer(model, images):
    """R² from the recorder's states, which the fit does not share, before and after."""
    settings = short(steps=(15, 40))
    teacher = depthflow.record(model, images, progress=False).values[:, 1:]
    error = []
    for steps in ((1, 0), settings.steps):
        made = fit(model, images, short(steps=steps, learning_rate=1e-3, matrix_rate=1e-3), validation=None)
        states = depthflow.record(made, images, progress=False).values[:, 1:]
        error.append(((states - teacher) ** 2).mean())
    assert error[1] < 0.5 * error[0]


def test_the_history_is_of_every_tenth_step_and_of_each_validation(model, images):
    made = fit(model, images, short(steps=(12, 25), validate_every=8))
    assert made.history["step"] == [10, 12, 22, 32, 37]
    assert made.history["stage"] == [1, 1, 2, 2, 2]
    assert made.history["validation_step"] == [8, 12, 20, 28, 36, 37]
    assert {len(made.history[name]) for name in ("loss", "r2", "seconds")} == {5}
    assert made.history["seconds"] == sorted(made.history["seconds"])
    assert all(math.isfinite(value) for values in made.history.values() for value in values)


def test_the_history_s_loss_is_that_of_the_states(model, images):
    """One step of stage 2 on all samples: its loss is taken before the step, from copies of the medoid blocks."""
    settings = short(steps=(0, 1), batch_size=SAMPLES, depth_scale=False, scale_by_variance=False)
    made = fit(model, images, settings, phases=PHASES, validation=None)
    teacher = depthflow.record(model, images, progress=False).values.astype(np.float64)
    path = torch.from_numpy(teacher[:, 0]).float()
    loss, r2 = 0.0, []
    for depth in range(1, BLOCKS + 1):
        block = model.blocks[made.plan.medoids[PHASES[depth - 1] - 1] - 1]
        with torch.no_grad():
            path = block(path)
        square = (path.numpy() - teacher[:, depth]) ** 2
        loss += (0.45 * square[:, 0].mean() + 0.45 * square[:, 1:].mean()) / 0.9 / BLOCKS
        about = [(teacher[:, depth, at] - teacher[:, depth, at].mean(axis=(0, 1))) ** 2 for at in ([0], range(1, 10))]
        r2.append(1 - square.mean(axis=(0, 2)).sum() / (about[0].mean() + 9 * about[1].mean()))
    np.testing.assert_allclose(made.history["loss"], [loss], **FLOAT32)
    np.testing.assert_allclose(made.history["r2"], [np.mean(r2)], **FLOAT32)


def test_the_loss_scaled_by_variance_is_that_of_the_states(model, images):
    settings = short(steps=(0, 1), batch_size=SAMPLES, depth_scale=False)
    made = fit(model, images, settings, phases=PHASES, validation=None)
    teacher = depthflow.record(model, images, progress=False).values.astype(np.float64)
    path = torch.from_numpy(teacher[:, 0]).float()
    loss = 0.0
    for depth in range(1, BLOCKS + 1):
        with torch.no_grad():
            path = model.blocks[made.plan.medoids[PHASES[depth - 1] - 1] - 1](path)
        for at in ([0], list(range(1, 10))):
            states = teacher[:, depth, at]
            variance = ((states - states.mean(axis=(0, 1))) ** 2).mean()
            loss += 0.5 * ((path.numpy()[:, at] - states) ** 2).mean() / variance / BLOCKS
    np.testing.assert_allclose(made.history["loss"], [loss], **FLOAT32)


def tied(*phases: int) -> nn.Module:
    """Return a model whose blocks are equal within each phase, and not one and the same."""
    model = vit()
    for number, phase in enumerate(phases):
        model.blocks[number].load_state_dict(model.blocks[phases.index(phase)].state_dict())
    return model


@pytest.mark.parametrize(("phases", "contiguous"), [((1, 1, 2, 2), True), ((1, 2, 1, 2), False)])
def test_a_teacher_that_repeats_its_blocks_is_learnt_at_once(images, phases, contiguous):
    made = fit(
        tied(*phases),
        images,
        short(depth_scale=False, learning_rate=1e-7, matrix_rate=1e-7),
        phases=list(phases),
        contiguous=contiguous,
    )
    np.testing.assert_allclose(made.history["loss"], 0.0, **FLOAT32)
    np.testing.assert_allclose(made.history["validation_r2"], 1.0, **FLOAT32)


def test_a_linear_teacher_of_equal_blocks_stays_learnt(images):
    """The same arithmetic on both sides: no loss, no gradient, and nothing but weight decay to move the weights."""
    torch.manual_seed(0)
    blocks = [nn.Linear(6, 6).double() for _ in range(4)]
    for block in blocks[1:]:
        block.load_state_dict(blocks[0].state_dict())
    made = fit(Chain(*blocks), images[:, 0].double(), short(depth_scale=False, weight_decay=0), n_phases=1)
    assert set(made.history["loss"]) == {0.0}
    assert set(made.history["validation_loss"]) == {0.0}
    assert torch.equal(made.blocks[0].block.weight, blocks[0].weight)


def test_the_phases_are_the_optimal_ones_of_the_first_samples(model, images):
    traj = depthflow.record(model, images, progress=False)
    for n_phases in (1, 2, 3, 4):
        made = fit(model, images, short(steps=(1, 0)), n_phases=n_phases, validation=None)
        assert made.phases.tolist() == depthflow.phases(traj, n_phases).phase.values.tolist()
        assert len(made.blocks) == n_phases


def test_random_and_scattered_phases(model, images):
    drawn = [fit(model, images, short(steps=(1, 0)), phases="random", seed=seed).plan.phases for seed in range(4)]
    assert len(set(drawn)) > 1
    scattered = fit(model, images, phases="random", contiguous=False)
    assert scattered.plan.phases in {(1, 2, 1, 2), (1, 2, 2, 1), (1, 2, 1, 1), (1, 1, 2, 1)}


@pytest.mark.parametrize("changed", [{"init": "fresh"}, {"init": "fresh", "mlp": "swiglu"}, {"precision": "bfloat16"}])
def test_every_kind_of_fit_ends_with_finite_weights_that_moved(model, images, changed):
    made = fit(model, images, short(**changed))
    start = fit(model, images, short(**changed, steps=(1, 0), learning_rate=1e-12, matrix_rate=1e-12))
    after, before = weights(made.blocks), weights(start.blocks)
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert not any(torch.equal(after[name], before[name]) for name in after)
    assert {weight.dtype for weight in after.values()} == {torch.float32}


def test_compiled_blocks_learn_what_plain_ones_do_and_are_plain_afterwards(model, images, monkeypatch):
    compiled: list[nn.Module] = []
    compile_ = nn.Module.compile

    def with_eager(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        compiled.append(self)
        compile_(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", with_eager)
    plain = fit(model, images)
    assert not compiled
    try:
        made = fit(model, images, short(compile=True))
    finally:
        torch.compiler.reset()
    assert compiled == list(made.blocks)
    assert all(module._compiled_call_impl is None for module in made.modules())
    np.testing.assert_allclose(made.history["loss"], plain.history["loss"], **TRAINED)


# gradients and schedules as they are applied


def test_gradients_are_clipped_for_each_block_in_stage_1_and_together_in_stage_2(model, images, monkeypatch):
    norms: list[list[float]] = []
    step = Optimizer.step

    def look(self: Optimizer) -> None:
        of_block: dict[str, float] = {}
        for parameter, name in self._names.items():
            of_block[name[0]] = of_block.get(name[0], 0.0) + float(parameter.grad.double().square().sum())
        norms.append([math.sqrt(square) for square in of_block.values()])
        step(self)

    monkeypatch.setattr(Optimizer, "step", look)
    fit(model, images, short(steps=(2, 2), max_norm=1e-3))
    np.testing.assert_allclose(norms[:2], 1e-3, **FLOAT32)
    np.testing.assert_allclose(np.linalg.norm(norms[2:], axis=1), 1e-3, **FLOAT32)
    assert all(max(pair) < 1e-3 for pair in norms[2:])


def test_the_rates_follow_their_schedule_in_each_stage(model, images, monkeypatch):
    rates: list[list[float]] = []
    step = Optimizer.step

    def look(self: Optimizer) -> None:
        rates.append([part.param_groups[0]["lr"] for part in self._parts])
        step(self)

    monkeypatch.setattr(Optimizer, "step", look)
    settings = short(learning_rate=0.002, matrix_rate=0.02, warmup=0.4, final_rate=0.1)
    fit(model, images, settings)
    shares = [training.rate_at(step, steps, 0.4, 0.1) for steps in settings.steps for step in range(steps)]
    np.testing.assert_allclose(rates, np.outer(shares, [0.002, 0.02]), **FLOAT64)


def test_the_loss_of_stage_1_passes_from_forced_to_free(model, images, monkeypatch):
    seen: list[tuple[int, float]] = []
    forward = training.Objective.forward

    def look(self: Any, lesson: Any, forcing: float) -> Any:
        if torch.is_grad_enabled():
            seen.append((len(self._goal.spans), forcing))
        return forward(self, lesson, forcing)

    monkeypatch.setattr(training.Objective, "forward", look)
    fit(model, images, short(steps=(8, 2), forcing=0.5), phases=PHASES)
    assert seen == [(2, share) for share in (1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0)] + [(1, 0.0)] * 2


# validation


def test_held_out_samples_are_not_learnt_from(model, images):
    """Every sample carries its number in a pixel, by which augmentation, which sees all of training, knows it."""
    marked, seen = images.clone(), set()
    marked[:, 0, 0, 0] = torch.arange(SAMPLES)

    def look(x: Tensor) -> Tensor:
        seen.update(x[:, 0, 0, 0].int().tolist())
        return x

    made = fit(model, marked, short(steps=(20, 20)), augment=look, validation=0.25)
    assert len(seen) == SAMPLES - 3
    assert made.teacher["samples"] == SAMPLES - 3
    other = set()
    fit(
        model,
        marked,
        short(steps=(20, 0)),
        augment=lambda x: (other.update(x[:, 0, 0, 0].int().tolist()), x)[1],
        seed=1,
    )
    assert other != seen


@pytest.mark.parametrize("kind", ["dict", "labelled dict", "dataset", "trajectory"])
def test_a_share_is_held_out_of_any_whole_inputs(model, images, kind):
    inputs = {
        "dict": lambda: {"images": images},
        "labelled dict": lambda: {"images": images, "label": list(range(SAMPLES))},
        "dataset": lambda: TensorDataset(images, torch.arange(SAMPLES)),
        "trajectory": lambda: depthflow.record(model, images, progress=False),
    }[kind]()
    made, wanted = fit(model, inputs, validation=0.25), fit(model, images, validation=0.25)
    assert made.teacher["samples"] == SAMPLES - 3
    np.testing.assert_allclose(made.history["validation_loss"], wanted.history["validation_loss"], **TRAINED)
    np.testing.assert_allclose(made.history["loss"], wanted.history["loss"], **TRAINED)


def test_the_best_validation_s_weights_are_the_result(model, images, monkeypatch):
    """The loss is lowest at the second of six validations of stage 2; that of stage 1 does not count."""
    losses = iter([0.0, 0.0, 0.0, 5.0, 3.0, math.nan, 4.0, 3.0, 6.0])
    taken: list[dict[str, Tensor]] = []
    real = training.judged

    def look(objective: Any, errors_of: Any, lessons: Any) -> tuple[float, float]:
        real(objective, errors_of, lessons)
        taken.append(weights(objective.blocks))
        return next(losses), 0.5

    monkeypatch.setattr(training, "judged", look)
    made = fit(model, images, short(steps=(6, 12)))
    assert len(taken) == 9
    assert same(weights(made.blocks), taken[4])
    assert not same(taken[4], taken[8])


def test_without_validation_the_last_weights_are_the_result(model, images, monkeypatch):
    last: list[dict[str, Tensor]] = []
    step = Optimizer.step

    def look(self: Optimizer) -> None:
        step(self)
        last[:] = [{name: parameter.detach().clone() for parameter, name in self._names.items()}]

    monkeypatch.setattr(Optimizer, "step", look)
    for validation in (None, 0, 0.01):
        made = fit(model, images, validation=validation)
        assert same(weights(made.blocks), last[0])
        assert "validation_loss" not in made.history
    made = fit(model, list(images.split(BATCH)), validation=0.5)  # batches in their own order are not held out
    assert same(weights(made.blocks), last[0])


def test_stage_1_alone_is_judged_by_itself(model, images):
    made = fit(model, images, short(steps=(6, 0)))
    assert made.history["validation_step"] == [2, 4, 6]


@pytest.mark.parametrize("patience", [1, 2])
def test_a_fit_stops_when_it_waited_long_enough(model, images, monkeypatch, patience):
    losses = iter([9.0, 5.0, 4.0, 6.0, 7.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(training, "judged", lambda *_: (next(losses), 0.5))
    made = fit(model, images, short(steps=(2, 14), patience=patience))
    assert made.history["validation_step"][-1] == {1: 8, 2: 10}[patience]


def test_a_resumed_fit_that_had_stopped_stays_stopped(model, images, monkeypatch, tmp_path):
    losses = [9.0, 5.0, 4.0, 6.0, 7.0] + [1.0] * 9
    settings = short(steps=(2, 14), patience=2, validate_every=1, checkpoint_every=1)
    found = []
    for _ in range(2):
        given = iter(losses)
        monkeypatch.setattr(training, "judged", lambda *_, given=given: (next(given), 0.5))
        found.append(fit(model, images, settings, checkpoint=tmp_path))
    assert same(weights(found[0]), weights(found[1]))
    assert timeless(found[0].history) == timeless(found[1].history)


def test_validation_inputs_of_their_own(model, images):
    others = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    wanted = fit(model, images, validation=others)
    assert wanted.teacher["samples"] == SAMPLES
    for validation in (others.numpy(), DataLoader(TensorDataset(others), 2), {"images": others}, list(others.split(2))):
        made = fit(model, images, validation=validation)
        np.testing.assert_allclose(made.history["validation_loss"], wanted.history["validation_loss"], **TRAINED)
        np.testing.assert_allclose(made.history["validation_r2"], wanted.history["validation_r2"], **TRAINED)


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_validation_of_other_tokens_is_refused(tokens):
    torch.manual_seed(0)
    model = Chain(*(nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True) for _ in range(3)))
    x = torch.randn(9, 7, WIDTH)
    with pytest.raises(
        SurrogateError, match=rf"states have the 7 tokens of the training's, .*; got {tokens}\. Give both"
    ):
        fit(model, x, validation=x[:4, :tokens])


# resuming


class Killed(BaseException):
    """Raised in the midst of training."""


def kinds(model: nn.Module, images: Tensor) -> dict[str, Any]:
    def flip(x: Tensor) -> Tensor:
        return x.flip(-1) + 0.1 * torch.randn_like(x)

    return {
        "array": {"inputs": images.numpy()},
        "augmented": {"inputs": images, "augment": flip},
        "batches": {"inputs": list(images.split(BATCH))},
        "augmented batches": {"inputs": list(images.split(BATCH)), "augment": flip, "validation": images[:3]},
        "shuffled loader": {"inputs": DataLoader(TensorDataset(images), BATCH, shuffle=True)},
        "trajectory": {"inputs": depthflow.record(model, images, progress=False)},
    }


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize(
    "kind", ["array", "augmented", "batches", "augmented batches", "shuffled loader", "trajectory"]
)
def test_a_killed_fit_resumes_bit_for_bit(model, images, tmp_path, monkeypatch, kind, optimizer):
    """Killed in stage 1 and, resumed, in stage 2, each time after a step that no checkpoint holds."""
    given = kinds(model, images)[kind]
    settings = short(optimizer=optimizer)
    torch.manual_seed(0)
    wanted = fit(model, settings=settings, **given)
    step, calls = Optimizer.step, count(1)

    def killed(self: Optimizer) -> None:
        step(self)
        if next(calls) in (4, 11):  # after steps 1–2 of stage 1 were kept; after 3 … 5 and 1–4 of stage 2
            raise Killed

    monkeypatch.setattr(Optimizer, "step", killed)
    for _ in range(2):
        torch.manual_seed(99)
        with pytest.raises(Killed):
            fit(model, settings=settings, checkpoint=tmp_path, **given)
    made = fit(model, settings=settings, checkpoint=tmp_path, **given)
    assert same(weights(made), weights(wanted))
    assert timeless(made.history) == timeless(wanted.history)


@pytest.mark.parametrize("at", [3, 9])
def test_a_fit_whose_augmentation_fails_resumes_bit_for_bit(model, images, tmp_path, at):
    calls = count(1)

    def noise(x: Tensor) -> Tensor:
        return x + torch.rand(len(x), 1, 1, 1)

    def fails(x: Tensor) -> Tensor:
        if next(calls) == at + 1:  # one call is for the estimate of memory
            raise Killed
        return noise(x)

    wanted = fit(model, images, augment=noise)
    with pytest.raises(Killed):
        fit(model, images, augment=fails, checkpoint=tmp_path)
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert same(weights(fit(model, images, augment=noise, checkpoint=tmp_path)), weights(wanted))


def test_a_finished_fit_is_not_run_again(model, images, tmp_path, monkeypatch):
    wanted = fit(model, images, checkpoint=tmp_path)
    monkeypatch.setattr(Optimizer, "step", lambda self: pytest.fail("a step was taken"))
    made = fit(model, images, checkpoint=tmp_path)
    assert same(weights(made), weights(wanted))
    assert made.history == wanted.history


def test_a_fit_begins_anew_where_that_is_asked_for(model, images, tmp_path):
    wanted = fit(model, images)
    fit(model, images, seed=1, checkpoint=tmp_path)
    assert same(weights(fit(model, images, checkpoint=tmp_path, resume=False)), weights(wanted))
    assert same(weights(fit(model, images, checkpoint=tmp_path)), weights(wanted))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"settings": short(learning_rate=1e-4)}, "learning_rate was 0.002 and is 0.0001"),
        ({"settings": short(steps=(5, 7))}, r"steps was \[5, 6\] and is \[5, 7\]"),
        ({"phases": [1, 2, 2, 2]}, r"phases was \[1, 1, 2, 2\] and is \[1, 2, 2, 2\]"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"validation": 0.25}, "samples was 12 and is 10; validation samples was 1 and is 3"),
        ({"augment": lambda x: x}, "augmented was False and is True"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(model, images, tmp_path, changed, text):
    given = {"phases": PHASES, "settings": short(), "checkpoint": tmp_path}
    fit(model, images, **given)
    with pytest.raises(SurrogateError, match=rf"is a checkpoint of other settings: {text}\. Use these, another folder"):
        fit(model, images, **{**given, **changed})


def test_a_checkpoint_of_other_weights_is_refused(model, images, tmp_path):
    fit(model, images, phases=PHASES, checkpoint=tmp_path)
    other = vit()
    with torch.no_grad():
        other.head.bias[0] += 1e-6
    with pytest.raises(SurrogateError, match=r"of other settings: teacher was '\w{32}' and is '\w{32}'\. Use these"):
        fit(other, images, phases=PHASES, checkpoint=tmp_path)


def test_a_checkpoint_of_other_inputs_is_refused(model, images, tmp_path):
    traj = depthflow.record(model, images, progress=False)
    fit(model, images, phases=PHASES, checkpoint=tmp_path / "images")
    fit(model, traj, phases=PHASES, checkpoint=tmp_path / "states")
    with pytest.raises(
        SurrogateError, match=r"of other settings: first sample was '\w{32}' and is '\w{32}'\. Use these"
    ):
        fit(model, images + 1, phases=PHASES, checkpoint=tmp_path / "images")
    with pytest.raises(
        SurrogateError, match=r"of other settings: first sample was '\w{32}' and is '\w{32}'\. Use these"
    ):
        fit(model, traj.isel(sample=slice(None, None, -1)), phases=PHASES, checkpoint=tmp_path / "states")


def test_a_truncated_checkpoint_is_a_clear_error(model, images, tmp_path):
    fit(model, images, checkpoint=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SurrogateError, match=r"cannot be read as a checkpoint: .*or pass resume=False to begin anew"):
        fit(model, images, checkpoint=tmp_path)


# divergence


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_divergence_is_an_error_and_leaves_the_last_good_checkpoint(model, images, tmp_path, optimizer):
    rates = {"learning_rate": 1e30, "matrix_rate": 1e30, "warmup": 1.0}
    settings = short(steps=(40, 40), optimizer=optimizer, checkpoint_every=1, **rates)
    with pytest.raises(
        SurrogateError, match=r"the fit diverged: in stage 1 .*last good checkpoint is .*Lower learning"
    ):
        fit(model, images, settings, checkpoint=tmp_path)
    with pytest.raises(SurrogateError, match="the fit diverged"):  # the checkpoint is loaded, and diverges again
        fit(model, images, settings, checkpoint=tmp_path)
    kept = load_file(tmp_path / "checkpoint.safetensors")
    assert any(name.startswith("weights/") for name in kept)
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_divergence_before_any_checkpoint_says_so(model, images, tmp_path):
    settings = short(steps=(20, 0), learning_rate=1e30, matrix_rate=1e30, checkpoint_every=500)
    for folder in (None, tmp_path):
        with pytest.raises(
            SurrogateError, match=r"not finite by step 10\. No checkpoint was kept\. Lower learning_rate"
        ):
            fit(model, images, settings, checkpoint=folder)


@pytest.mark.parametrize("rate", [3.0, 1e18, 1e30])
def test_a_fit_worse_than_standing_still_is_warned_of(model, images, rate):
    settings = short(steps=(0, 1), learning_rate=rate, matrix_rate=rate)
    with pytest.warns(
        UserWarning, match=r"ends no nearer to the teacher \(loss .*\) than states that are left as they"
    ):
        fit(model, images, settings, validation=None)


def test_a_good_fit_is_not_warned_of(images, recwarn):
    fit(tied(1, 1, 2, 2), images, short(depth_scale=False, learning_rate=1e-7, matrix_rate=1e-7), phases=PHASES)
    assert not recwarn.list


# what is left alone


def require_untouched(model: nn.Module, run: Callable[[], Any]) -> None:
    before, threads, rng = Snapshot(model), torch.get_num_threads(), torch.get_rng_state()
    numpy_rng = np.random.get_state()[1].copy()  # noqa: NPY002 - the global one is what must not move
    run()
    before.require(model)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), rng)
    assert np.array_equal(np.random.get_state()[1], numpy_rng)  # noqa: NPY002


@pytest.mark.parametrize("changed", [{}, {"init": "fresh"}, {"precision": "bfloat16"}], ids=str)
def test_the_teacher_and_the_caller_s_random_numbers_are_left_alone(images, changed):
    model = vit().train()
    model.blocks[1].eval()
    model.blocks[2].requires_grad_(False)
    inputs = [images, TensorDataset(images), DataLoader(TensorDataset(images), BATCH, shuffle=True)]
    for one in inputs:
        require_untouched(model, lambda one=one: fit(model, one, short(**changed), augment=torch.rand_like))


def test_the_teacher_is_left_alone_after_an_exception(model, images):
    calls = count()

    def fails(x: Tensor) -> Tensor:
        if next(calls) == 6:
            raise Killed
        return x

    def run() -> None:
        with pytest.raises(Killed):
            fit(model, images, augment=fails)

    require_untouched(model, run)


def test_the_inputs_are_left_alone(model, images):
    before = images.clone()
    for inputs in (images, list(images.split(BATCH))):
        fit(model, inputs, augment=lambda x: x.mul_(0.5))
        assert torch.equal(images, before)
    for inputs in ({"images": images}, [{"images": part} for part in images.split(BATCH)]):
        fit(model, inputs, augment=lambda x: {"images": x["images"].mul_(0.5)})
        assert torch.equal(images, before)


def test_the_shell_is_frozen_and_the_blocks_are_not(model, images):
    made = fit(model, images)
    inside = {id(parameter) for parameter in made.blocks.parameters()}
    assert all(parameter.requires_grad == (id(parameter) in inside) for parameter in made.parameters())
    assert not any(module.training for module in made.modules())
    assert all(parameter.grad is None for parameter in made.parameters())
    teacher = dict(model.named_parameters())
    for name, parameter in made.shell.named_parameters():
        if not name.startswith("blocks"):
            assert torch.equal(parameter, teacher[name])
            assert parameter.data_ptr() != teacher[name].data_ptr()
    assert not {p.data_ptr() for p in made.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_no_hook_of_the_recorder_is_copied_and_the_user_s_own_are(images):
    model, calls = vit(), []
    model.blocks[0].register_forward_hook(lambda *_: calls.append("block"))
    model.norm.register_forward_hook(lambda *_: calls.append("norm"))
    made = fit(model, images, phases=PHASES, settings=short(steps=(1, 1)))
    hooked = [name for name, module in made.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    medoid = made.plan.medoids[0] == 1
    assert hooked == (["blocks.0.block"] if medoid else []) + ["shell.norm"]
    assert len(model.blocks[0]._forward_hooks) == 1
    calls.clear()
    made(images)
    assert calls.count("norm") == 1


def test_a_hook_that_changes_states_is_learnt_from(images):
    """The states that the model makes with its hooks are the teacher's, as they are the recorder's."""
    model = vit()
    model.blocks[0].register_forward_hook(lambda module, args, output: output * 1.5)
    made = fit(model, images, short(steps=(1, 0), depth_scale=False, learning_rate=1e-9, matrix_rate=1e-9), n_phases=4)
    wanted, got = (depthflow.record(one, images, progress=False) for one in (model, made))
    np.testing.assert_allclose(got, wanted, **FLOAT32)


def test_a_surrogate_can_be_copied_and_cast(model, images):
    made = fit(model, images)
    twin = copy.deepcopy(made)
    with torch.no_grad():
        assert torch.equal(twin(images), made(images))
        twin.to(torch.float64)
        np.testing.assert_allclose(twin(images.double()), made(images), **FLOAT32)
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float64}
    assert {step.depth.dtype for step in twin.steps} == {torch.float64}
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in made.parameters()}
    assert [id(step.block) for step in twin.steps] == [id(twin.blocks[phase - 1]) for phase in twin.phases]


def test_each_step_is_told_the_depth_that_it_leads_to(model, images):
    made = fit(model, images, phases=PHASES)
    assert [step.depth.tolist() for step in made.steps] == [[0.25], [0.5], [0.75], [1.0]]
    state = torch.randn(2, 10, WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for depth, step in enumerate(made.steps, start=1):
            wanted = made.blocks[PHASES[depth - 1] - 1](torch.tensor([depth / BLOCKS]), (state,), {})
            assert torch.equal(step(state), wanted)
        assert not torch.equal(made.steps[0](state), made.steps[1](state))


def test_the_same_seed_gives_the_same_surrogate_and_another_does_not(model, images):
    for changed in ({}, {"init": "fresh"}):
        first, again, other = (fit(model, images, short(**changed), phases=PHASES, seed=seed) for seed in (0, 0, 1))
        assert same(weights(first), weights(again))
        assert not same(weights(first), weights(other))


def test_plain_attributes_of_blocks_can_still_be_read_from_outside(images):
    class Reading(Chain):
        def forward(self, x: Tensor) -> Tensor:
            for number, block in enumerate(self.blocks):
                assert (block.number, block.kind) == (number, "full")
                x = block(x)
            return x

    torch.manual_seed(0)
    model = Reading(*(nn.Linear(6, 6) for _ in range(4)))
    for number, block in enumerate(model.blocks):
        block.number, block.kind, block.depth, block.block = number, "full", 7, "name"
    made = fit(model, images[:, 0], phases=PHASES)
    assert made(images[:, 0]).shape == (SAMPLES, 6, 6)


class Writing(nn.Module):
    """A block that writes over its input, or one that does not."""

    def __init__(self, over: bool) -> None:
        super().__init__()
        self.norm, self.linear, self.over = nn.LayerNorm(6), nn.Linear(6, 6), over

    def forward(self, x: Tensor) -> Tensor:
        update = self.linear(self.norm(x)).tanh()
        return x.add_(update) if self.over else x + update


class Embedded(Chain):
    """A model whose first state is not its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2.0 * x)


@pytest.mark.parametrize("depth_scale", [True, False])
def test_blocks_that_write_over_their_input_are_fitted_as_those_that_do_not(images, depth_scale):
    found = []
    for over in (True, False):
        torch.manual_seed(0)
        model = Embedded(*(Writing(over) for _ in range(4)))
        found.append(fit(model, images[:, 0], short(depth_scale=depth_scale), phases=PHASES).history)
    for name in ("loss", "validation_loss", "validation_r2"):
        np.testing.assert_allclose(found[0][name], found[1][name], **TRAINED)


def test_double_precision_is_trained_in_double_precision(model, images):
    made = fit(copy.deepcopy(model).double(), images.double())
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float64}
    assert made(images.double()).dtype == torch.float64


def test_a_recording_in_half_precision_is_fitted_to(model, images):
    traj = depthflow.record(model, images, dtype="float16", progress=False)
    wanted = fit(model, depthflow.record(model, images, progress=False))
    np.testing.assert_allclose(fit(model, traj).history["loss"], wanted.history["loss"], **REDUCED_PRECISION)


# refusals


def half(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).half()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"n_phases": 5}, SurrogateError, "asked for 5 phases of a model with 4 blocks. Ask for at most 4"),
        ({"n_phases": 0}, ParameterError, "needs n_phases as a whole number from 1; got 0"),
        ({"n_phases": 2.0}, ParameterError, "needs n_phases as a whole number from 1; got 2.0"),
        ({"seed": -1}, ParameterError, "needs seed as a whole number from 0; got -1"),
        ({"phases": [1, 2, 1, 2]}, SurrogateError, "needs phases that cover the blocks in order"),
        ({"phases": [1, 2]}, SurrogateError, "needs one phase for each of the model's 4 blocks; got 2"),
        ({"contiguous": "yes"}, ParameterError, "needs contiguous as True or False; got 'yes'"),
        ({"augment": 3}, ParameterError, "needs augment as a callable; got int"),
        ({"settings": {"steps": (1, 2)}}, ParameterError, "needs settings as SurrogateSettings; got dict"),
        ({"validation": 1.0}, ParameterError, "validation as a share of the samples, from 0 to below 1.*; got 1.0"),
        ({"validation": -0.1}, ParameterError, "validation as a share of the samples, from 0 to below 1.*; got -0.1"),
        ({"validation": "all"}, RecordError, "needs inputs as a tensor or array .*; got str"),
        ({"device": "nowhere"}, ParameterError, "cannot use device='nowhere'"),
        ({"blocks": "norm.x"}, ParameterError, r"blocks='norm\.x' is not in VisionTransformer"),
    ],
)
def test_bad_arguments_are_refused(model, images, arguments, error, text):
    with pytest.raises(error, match=text):
        depthflow.fit_surrogate(model, images, **{"settings": short(), "progress": False, **arguments})


def test_faults_of_arguments_come_at_once(model, images):
    with pytest.raises(ParameterError, match=r"(?s)fit_surrogate: 3 faults.*n_phases.*seed.*augment"):
        fit(model, images, n_phases=0, seed=-1, augment=1)


def test_not_a_number_among_the_images_is_an_error(model, images):
    spoilt = images.clone()
    spoilt[9, 0, 2, 2] = math.nan
    with pytest.raises(RecordError, match=r"a state is not finite, first at depth 0, sample 1 of its batch, token"):
        fit(model, spoilt, validation=None)


def test_not_a_number_in_a_recording_is_an_error(model, images):
    traj = depthflow.record(model, images, progress=False).copy()
    traj[9, 3, 2, 5] = math.nan
    with pytest.raises(depthflow.errors.DepthflowError, match=r"not finite|nan"):
        fit(model, traj, validation=None)


def test_a_generator_is_refused(model, images):
    with pytest.raises(SurrogateError, match="these can be gone through once"):
        fit(model, (batch for batch in images.split(BATCH)))
    with pytest.raises(SurrogateError, match="these can be gone through once"):
        fit(model, images, validation=iter(images.split(BATCH)))


def test_one_sample_is_too_few(model, images):
    with pytest.raises(SurrogateError, match="needs at least 2 samples, and many more to be good; got 1"):
        fit(model, images[:1], validation=None)


def test_half_precision_is_refused(model, images):
    with pytest.raises(SurrogateError, match=r"needs a model in float32 or float64, .*got float16\. Give it `copy"):
        fit(half(model), images)


def test_a_model_that_cannot_be_read_is_refused(images):
    with pytest.raises(UnsupportedModelError, match="has no list of modules called 'blocks'"):
        fit(nn.Linear(6, 6), images)


class Counting(nn.Module):
    """A block that does another thing each time it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(6, 6), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.linear(x) * self.calls


def test_blocks_that_cannot_be_called_again_may_be_replaced_by_fresh_ones(images):
    torch.manual_seed(0)
    with pytest.raises(
        SurrogateError, match=r"(?s)calls each block again .*let new blocks stand in: settings=Surrogat"
    ):
        fit(Chain(*(Counting() for _ in range(4))), images[:, 0])


class Between(Chain):
    """A model that changes its states between its blocks."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) + 1.0
        return x


@pytest.mark.parametrize("init", ["teacher", "fresh"])
def test_states_changed_between_blocks_are_refused(images, init):
    model = Between(*(nn.Linear(6, 6) for _ in range(4)))
    with pytest.raises(SurrogateError, match=r"changes the states between 'blocks\.0' and 'blocks\.1'"):
        fit(model, images[:, 0], short(init=init))


def test_a_surrogate_is_refused_as_a_teacher(model, images):
    with pytest.raises(SurrogateError, match="applies 2 blocks at 4 depths: it is recurrent already"):
        fit(fit(model, images), images)


def test_blocks_without_weights_are_refused(images):
    model = Chain(*(linear(np.eye(6) * scale) for scale in (1.1, 1.2, 1.3, 1.4)))
    with pytest.raises(SurrogateError, match=r"block 'blocks\.0' has no weights to be trained"):
        fit(model, images[:, 0])


def test_memory_that_will_not_do_is_refused(model, images, monkeypatch):
    monkeypatch.setattr("depthflow.recording.memory.available", lambda: 10_000)
    with pytest.raises(
        RecordError, match=r"a step of 4 samples needs .* of memory, and 10 kB are free\. Lower batch_s"
    ):
        fit(model, images)


def test_the_estimate_of_memory_is_of_the_activations(model, images, monkeypatch):
    """Against what a whole step keeps, counted by its storages."""
    needed = []
    monkeypatch.setattr("depthflow.surrogate.fit.require", lambda size, *_: needed.append(size))
    settings = short(steps=(0, 1), batch_size=SAMPLES, depth_scale=False)
    kept: dict[int, int] = {}
    forward = training.Objective.forward

    def weigh(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def look(self: Any, lesson: Any, forcing: float) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            return forward(self, lesson, forcing)

    monkeypatch.setattr(training.Objective, "forward", look)
    made = fit(model, images, settings, validation=None)
    trained = {p.untyped_storage().data_ptr() for p in made.blocks.parameters()}
    activations = sum(size for place, size in kept.items() if place not in trained)
    optimizer = 3 * sum(p.nbytes for p in made.blocks.parameters())
    assert 0.7 * activations < needed[0] - optimizer < 1.3 * activations


def test_labels_do_not_matter(model, images):
    labels = torch.arange(SAMPLES)
    wanted = weights(fit(model, list(images.split(BATCH))))
    labelled = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
    assert same(weights(fit(model, labelled)), wanted)
    assert same(weights(fit(model, DataLoader(TensorDataset(images, labels), BATCH))), wanted)
    assert same(weights(fit(model, {"images": images, "labels": labels})), weights(fit(model, images)))


def test_a_batch_larger_than_the_samples_is_all_of_them(model, images):
    made = fit(model, images, short(batch_size=64), validation=None)
    np.testing.assert_allclose(made.history["step"], [5, 11], **EXACT)
