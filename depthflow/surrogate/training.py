"""The two stages of a surrogate's training."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm.auto import tqdm

from depthflow.errors import SurrogateError
from depthflow.surrogate.checkpoint import Progress
from depthflow.surrogate.objective import TOGETHER, Objective, target
from depthflow.surrogate.optimizer import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from depthflow.surrogate.checkpoint import Checkpoints
    from depthflow.surrogate.lessons import Lesson, Source
    from depthflow.surrogate.processes import Processes
    from depthflow.surrogate.recurrent import RecurrentSurrogate
    from depthflow.surrogate.settings import SurrogateSettings
    from depthflow.surrogate.survey import Survey

EVERY = 10
"""Steps between two looks at the loss, for which a GPU has to be waited for."""

PRECISION = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass
class Trainer:
    """Trains a surrogate's blocks in place.

    Parameters
    ----------
    surrogate : RecurrentSurrogate
        Whose blocks are trained.
    lessons, validation : Source
        What to learn from; what to be judged by, if anything.
    survey : Survey
        Of the teacher.
    token_types : sequence of str
        Of the states.
    settings : SurrogateSettings
        How.
    processes : Processes
        That share the work.
    in_place : bool
        Whether blocks write over the state that they are given.
    checkpoints : Checkpoints, optional
        Where the state is kept.
    progress : bool
        Whether to show a bar.
    """

    surrogate: RecurrentSurrogate
    lessons: Source
    validation: Source | None
    survey: Survey
    token_types: Sequence[str]
    settings: SurrogateSettings
    processes: Processes
    in_place: bool
    checkpoints: Checkpoints | None
    progress: bool

    def run(self, resume: bool) -> None:
        """Go through both stages, from the checkpoint's step on where there is one."""
        state = (self.checkpoints.load(self.device) if self.checkpoints is not None and resume else None) or Progress()
        if state.weights:
            self._put(state.weights)
        shown = self.progress and self.processes.share.rank == 0
        bar = tqdm(total=sum(self.settings.steps), desc="fit", unit="step", disable=not shown)
        with bar, self._compilable():
            while state.stage <= TOGETHER:
                bar.update(self._before(state.stage) + state.step - bar.n)
                self._run_stage(state, bar)
                state.stage, state.step, state.optimizer = state.stage + 1, 0, {}
        if state.best:
            self._put(state.best)
        self.surrogate.history = state.history

    def objective(self, stage: int) -> Objective:
        """Return what a stage makes small."""
        settings = self.settings
        goal = target(
            stage,
            self.surrogate.plan.phases,
            self.survey,
            self.token_types,
            settings.token_weights[stage - 1],
            settings.scale_by_variance,
        )
        return Objective(self.surrogate, goal.to(self.device), PRECISION[settings.precision], self.in_place)

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""
        return next(self.surrogate.blocks.parameters()).device

    def _before(self, stage: int) -> int:
        """Return how many steps come before a stage."""
        return sum(self.settings.steps[: stage - 1])

    def _run_stage(self, state: Progress, bar: tqdm) -> None:
        """Run a stage from ``state`` to its end."""
        settings, stage = self.settings, state.stage
        steps = settings.steps[stage - 1]
        objective = self.objective(stage)
        module = self.processes.wrapped(objective) if state.step < steps else objective
        optimizer = Optimizer(self.surrogate.blocks, settings)
        optimizer.load(state.optimizer)
        together = [self.surrogate.blocks] if stage == TOGETHER else self.surrogate.blocks
        clipped = [list(part.parameters()) for part in together]
        sound = torch.ones((), dtype=torch.bool, device=self.device)
        clock = Clock(state.history)
        for step in range(state.step, steps):
            if settings.patience is not None and state.waited >= settings.patience:
                break
            optimizer.scale_rates(rate_at(step, steps, settings.warmup, settings.final_rate))
            lesson = self.lessons.at(stage, step)
            with self._compiled(), torch.enable_grad():
                loss, errors = module(lesson, forcing_at(stage, step, steps, settings.forcing))
                loss.backward()
            norms = [clip_grad_norm_(parameters, settings.max_norm) for parameters in clipped]
            sound &= torch.isfinite(torch.stack([loss.detach(), *norms])).all()
            optimizer.step()
            state.step = step + 1
            last = state.step == steps
            if last or state.step % EVERY == 0:
                self._require_sound(state, sound)
                self._note(state, objective, loss, errors, clock, bar)
            if last or state.step % settings.validate_every == 0:
                self._judge(state, objective)
            if last or state.step % settings.checkpoint_every == 0:
                self._keep(state, optimizer, sound)
            bar.update()

    def _require_sound(self, state: Progress, sound: Tensor) -> None:
        """Raise if a loss or a gradient was not finite since the stage began."""
        if bool(sound):
            return
        path = self.checkpoints.path if self.checkpoints is not None else None
        kept = (
            f"The last good checkpoint is {path}." if path is not None and path.exists() else "No checkpoint was kept."
        )
        raise SurrogateError(
            f"the fit diverged: in stage {state.stage} a loss or gradient was not finite by step {state.step}. {kept} "
            f"Lower learning_rate (now {self.settings.learning_rate:g}), lengthen warmup, lower max_norm, or use "
            "precision='float32'; see SurrogateSettings."
        )

    def _note(
        self, state: Progress, objective: Objective, loss: Tensor, errors: Tensor, clock: Clock, bar: tqdm
    ) -> None:
        """Put a step into the history and on the bar."""
        found = self.processes.mean(torch.stack([loss.detach(), objective.r2(errors).mean()])).tolist()
        numbers = {"step": self._before(state.stage) + state.step, "stage": state.stage, "seconds": clock.seconds()}
        for name, value in {**numbers, "loss": found[0], "r2": found[1]}.items():
            state.history.setdefault(name, []).append(value)
        bar.set_postfix({"stage": state.stage, "loss": f"{found[0]:.4g}", "R²": f"{found[1]:.3f}"}, refresh=False)

    def _judge(self, state: Progress, objective: Objective) -> None:
        """Score on the validation samples, if any, and remember the weights if they are the best so far."""
        if self.validation is None:
            return
        found = judged(objective, objective.errors, self.validation.through(self.settings.batch_size))
        loss, r2 = self.processes.mean(torch.tensor(found, dtype=torch.float64, device=self.device)).tolist()
        numbers = {"step": self._before(state.stage) + state.step, "loss": loss, "r2": r2}
        for name, value in numbers.items():
            state.history.setdefault(f"validation_{name}", []).append(value)
        if state.stage != (TOGETHER if self.settings.steps[1] else 1):
            return
        state.waited += 1
        if math.isfinite(loss) and (state.best_loss is None or loss < state.best_loss):
            state.best_loss, state.waited, state.best = loss, 0, self._taken()

    def _keep(self, state: Progress, optimizer: Optimizer, sound: Tensor) -> None:
        """Write a checkpoint."""
        if self.checkpoints is None:
            return
        self._require_sound(state, sound)
        state.weights = self._taken()
        state.optimizer = optimizer.state()
        self.checkpoints.save(state)

    def _taken(self) -> dict[str, Tensor]:
        """Return a copy of the blocks' weights."""
        return {name: weight.detach().clone() for name, weight in self.surrogate.blocks.named_parameters()}

    def _put(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.surrogate.blocks.named_parameters():
                weight.copy_(weights[name])

    @contextmanager
    def _compilable(self) -> Iterator[None]:
        """Let the blocks be compiled, if they are to be, until training ends."""
        blocks = list(self.surrogate.blocks) if self.settings.compile else []
        try:
            for block in blocks:
                block.compile()
            yield
        finally:
            for block in blocks:
                block._compiled_call_impl = None

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        """Let compiled blocks run compiled, which they do not while a teacher is recorded."""
        if not self.settings.compile:
            yield
            return
        with torch.compiler.set_stance("default"):
            yield


def judged(
    objective: Objective, errors_of: Callable[[Lesson], Tensor], lessons: Iterable[Lesson]
) -> tuple[float, float]:
    """Return the autoregressive loss and the R², mean over depths, of all lessons by their errors."""
    count, total = 0, torch.zeros((), device=objective.device)
    with torch.no_grad():
        for lesson in lessons:
            total = total + lesson.samples * errors_of(lesson)
            count += lesson.samples
    return float(objective.loss(total / count)), float(objective.r2(total / count).mean())


def rate_at(step: int, steps: int, warmup: float, final: float) -> float:
    """Return the share of the learning rate at a step: a linear rise, then half a cosine down to ``final``."""
    warm = warmup * steps
    if step + 1 < warm:
        return (step + 1) / warm
    gone = max(0.0, step - warm) / max(1.0, steps - warm)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * gone))


def forcing_at(stage: int, step: int, steps: int, forcing: float) -> float:
    """Return the weight of the teacher-forced loss at a step: in stage 1 a linear fall from 1 to 0."""
    if stage == TOGETHER or forcing == 0:
        return 0.0
    return 1.0 if math.isinf(forcing) else max(0.0, 1.0 - step / (forcing * steps))


class Clock:
    """Seconds of training, those before the last checkpoint among them."""

    def __init__(self, history: dict[str, list[float]]) -> None:
        self._began = perf_counter() - (history.get("seconds") or [0.0])[-1]

    def seconds(self) -> float:
        """Return them."""
        return perf_counter() - self._began
