"""The sums of a score over all inputs, and the labelled result that they come to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError, SurrogateError
from depthflow.recording.tokens import require_same
from depthflow.resample import CONFIDENCE
from depthflow.schema import describe
from depthflow.surrogate.answers import RESAMPLES, SURROGATE, Answers, ratio
from depthflow.surrogate.baselines import BASELINES, REPEATED, RIDGE, Linear, path
from depthflow.surrogate.nearness import ALL, Groups, Nearness, Spread
from depthflow.surrogate.probe import TEST, TRAIN, Probes
from depthflow.trajectories import STRING

if TYPE_CHECKING:
    from collections.abc import Callable

    from depthflow.recording.replay import Replay
    from depthflow.recording.session import Session
    from depthflow.surrogate.baselines import Teacher
    from depthflow.surrogate.mirror import Mirror
    from depthflow.surrogate.recurrent import RecurrentSurrogate

NAME = "score_surrogate"
SCORES = ("r2", "cosine", "relative_error")
DIGITS = 6
"""Decimal places of what a surrogate keeps of its scores."""


class Scoring:
    """What is learnt from some samples and summed up over others.

    Parameters
    ----------
    surrogate : RecurrentSurrogate
        Which is scored.
    teacher : Teacher
        Runs its teacher; entered.
    mirror : Mirror
        Runs itself; entered.
    held_out : bool
        Whether the samples that are learnt from are others than those that are judged.
    """

    def __init__(self, surrogate: RecurrentSurrogate, teacher: Teacher, mirror: Mirror, held_out: bool) -> None:
        self._surrogate, self._teacher, self._mirror, self._held_out = surrogate, teacher, mirror, held_out
        self._plan, self._depths = surrogate.plan, len(surrogate.plan.phases)
        self._linear = Linear(self._plan, 1 if held_out else 2)
        self._probes = Probes(NAME, teacher.adapter, mirror.adapter)

    def learn(self, run: Session) -> None:
        """Go through what the linear baseline, and probes where there are labels, are fitted to."""
        for replay in run:
            self._require_alike(replay)
            self._linear.learn(replay, run.chosen, run.count)
            if self._held_out and run.labels:
                states, _ = self._mirror.run(replay.batch, run.count)
                self._probes.add(TRAIN, run.chosen.layout, replay.states[-1], states[-1], run.labels[-1])
        if not self._held_out:
            _require_samples(run.count)
        self._linear.solve()
        self._chosen, self._groups = run.chosen, Groups.of(run.chosen.types())
        self._labels_demanded = self._held_out and run.feed.labels is not None

    def judge(self, run: Session, head: Callable[[Any], Any] | None) -> None:
        """Go through the inputs and sum up every score."""
        self._answers = Answers(NAME, head, None if self._probes.trained else run.feed.labels)
        self._spread = Spread(self._depths, self._groups, self._plan.width)
        self._near = {name: Nearness(self._depths, self._groups) for name in (SURROGATE, *BASELINES)}
        for replay in run:
            self._require_alike(replay)
            require_same(self._chosen, run.chosen)
            labels = run.labels[-1] if run.labels else None
            if labels is None and self._labels_demanded:
                raise ParameterError(
                    f"{NAME} was given train_labels=, but no labels of the inputs to judge the probes by. Pass labels=."
                )
            self._judge_surrogate(replay, run, labels)
            for name in self._baselines():
                self._judge_baseline(name, replay, run.count)
        _require_samples(run.count)

    def result(self, samples: int, attrs: dict[str, Any]) -> xr.Dataset:
        """Return all scores, labelled."""
        axes, missing = ("depth", "token_type"), np.full((self._depths, len(self._groups.names)), np.nan)
        own = self._near[SURROGATE].scores(self._spread)
        others = [
            self._near[name].scores(self._spread) if name in self._baselines() else dict.fromkeys(SCORES, missing)
            for name in BASELINES
        ]
        error = own["relative_error"][:, 0]
        variables: dict[str, Any] = {name: (axes, own[name]) for name in SCORES}
        variables |= {"epsilon": error.max(), "epsilon_depth": int(error.argmax()) + 1}
        for name in SCORES:
            variables[f"baseline_{name}"] = (("baseline", *axes), np.stack([other[name] for other in others]))
        variables["baseline_epsilon"] = "baseline", [other["relative_error"][:, 0].max() for other in others]
        variables |= self._answers.scores() | self._probes.scores()
        if self._answers.judged:
            accuracy = [self._answers.accuracy(name) if name in self._baselines() else np.nan for name in BASELINES]
            recovery = [ratio(share, variables["teacher_accuracy"]) for share in accuracy]
            variables |= {"baseline_accuracy": ("baseline", accuracy), "baseline_recovery": ("baseline", recovery)}
            attrs |= {"confidence": CONFIDENCE, "resamples": RESAMPLES}
        if self._teacher.problem is not None:
            attrs["repeated"] = self._teacher.problem
        coords = {
            "depth": np.arange(1, self._depths + 1),
            "token_type": np.array(self._groups.names, dtype=STRING),
            "baseline": np.array(BASELINES, dtype=STRING),
            "phase": ("depth", np.array(self._plan.phases)),
        }
        attrs |= {
            "n_phases": len(self._plan.medoids),
            "samples": samples,
            "r2_mean": "over samples and the tokens of the type, at each depth",
            "ridge": RIDGE,
            "linear_fit": "train_inputs" if self._held_out else "the other half of the inputs",
        }
        return describe(xr.Dataset(variables, coords, attrs), NAME)

    def _judge_surrogate(self, replay: Replay, run: Session, labels: np.ndarray | None) -> None:
        states, output = self._mirror.run(replay.batch, run.count)
        self._spread.add(replay.states[1:])
        self._near[SURROGATE].add(states[1:], replay.states[1:])
        self._answers.add_teacher(replay, labels)
        self._answers.add(SURROGATE, output, replay.batch.size)
        if self._probes.trained and labels is not None:
            self._probes.add(TEST, run.chosen.layout, replay.states[-1], states[-1], labels)

    def _judge_baseline(self, name: str, replay: Replay, position: int) -> None:
        states = list(path(name, replay, self._plan, self._linear, position))
        self._near[name].add(states, replay.states[1:])
        if self._answers.judged:
            output = replay.readout([state.to(own) for state, own in zip(states, replay.states[1:], strict=True)])
            self._answers.add(name, output, replay.batch.size)

    def _baselines(self) -> list[str]:
        """Return those baselines that the teacher allows."""
        return [name for name in BASELINES if name != REPEATED or self._teacher.problem is None]

    def _require_alike(self, replay: Replay) -> None:
        require_alike(self._surrogate, replay.n_blocks, replay.states[0].shape[-1])


def summary(scores: xr.Dataset) -> dict[str, Any]:
    """Return the main scores by name, as what JSON can hold."""
    r2 = scores["r2"].sel(token_type=ALL)
    found = {"samples": scores.attrs["samples"], "r2_least": float(r2.min()), "r2_last": float(r2[-1])}
    found |= {str(name): value.item() for name, value in scores.data_vars.items() if value.ndim == 0}
    finite = {name: value for name, value in found.items() if math.isfinite(value)}
    return {name: value if isinstance(value, int) else round(value, DIGITS) for name, value in finite.items()}


def require_alike(surrogate: RecurrentSurrogate, blocks: int, width: int | None = None) -> None:
    """Raise unless a model has as many ``blocks``, and states of the ``width``, as the surrogate's teacher."""
    plan = surrogate.plan
    if blocks != len(plan.phases) or width not in (None, plan.width):
        got = f"{blocks} blocks" if width is None else f"{blocks} blocks and {width} features"
        raise SurrogateError(
            f"the surrogate stands for a model of {len(plan.phases)} blocks and {plan.width} features; got one of "
            f"{got}. Give the model that it was fitted to, with the same blocks=."
        )


def _require_samples(count: int) -> None:
    if count < 2:
        raise ParameterError(f"{NAME} needs at least two samples, as R² is relative to their variance; got {count}.")
