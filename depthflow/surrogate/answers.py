"""Which class a teacher, its surrogate and the baselines give each sample, where the teacher classifies at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from depthflow.errors import ParameterError, RecordError
from depthflow.recording.logits import Classifier
from depthflow.resample import PERCENTILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from depthflow.recording.replay import Replay

NO_CLASS = -1
"""Of a sample whose logits are not a number: it is never right."""

RESAMPLES = 1000
TEACHER, SURROGATE = "teacher", "surrogate"


class Reader(Classifier):
    """Reads classes from what a model returns, with labels to compare them with or without."""

    def reads(self, replay: Replay) -> bool:
        """Return whether the model gives logits.

        Raises
        ------
        ParameterError
            If it does not, although a head was given.
        """
        try:
            fault = self.fault(replay)
        except RecordError:
            if self._head is not None:
                raise
            return False
        if fault is not None and self._head is not None:
            raise ParameterError(f"{self._what} needs a head= that gives logits (sample, class): {fault}")
        return fault is None

    def classes(self, output: Any, size: int) -> Tensor:
        """Return the class of each sample."""
        logits = self.logits(output, size)
        return torch.where(torch.isnan(logits).any(dim=1), NO_CLASS, logits.argmax(dim=1))


class Answers:
    """The classes given to all samples, by who gave them.

    Parameters
    ----------
    what : str
        The caller, which opens the messages.
    head : callable, optional
        From what the model returns to logits (sample, class).
    labels : numpy.ndarray, optional
        Those that the caller was given, if a model that does not classify is then an error.
    """

    def __init__(self, what: str, head: Callable[[Any], Any] | None, labels: np.ndarray | None) -> None:
        self._what, self._reader = what, Reader(what, head, labels)
        self._reads: bool | None = None
        self._given: dict[str, list[np.ndarray]] = {}
        self._targets: list[np.ndarray] = []

    @property
    def judged(self) -> bool:
        """Whether there is a right class for each sample."""
        return bool(self._targets)

    def add_teacher(self, replay: Replay, labels: np.ndarray | None) -> None:
        """Take in a batch's classes by the teacher and by its labels, if any."""
        targets = None if labels is None else self._reader.targets(replay, labels)
        if self._reads is None:
            self._reads = targets is not None or self._reader.reads(replay)
        if targets is not None:
            self._targets.append(targets.cpu().numpy())
        self.add(TEACHER, replay.output, replay.batch.size)
        if self._reads and (self._given[TEACHER][-1] == NO_CLASS).any():
            raise RecordError(f"{self._what} found logits of the model that are NaN. Mend the model's weights.")

    def add(self, name: str, output: Any, size: int) -> None:
        """Take in the classes of a batch by what was returned."""
        if self._reads:
            self._given.setdefault(name, []).append(self._reader.classes(output, size).cpu().numpy())

    def scores(self) -> dict[str, float]:
        """Return the agreement of surrogate and teacher, and with labels their accuracies and the recovery."""
        if not self._reads:
            return {}
        teacher, surrogate = (np.concatenate(self._given[name]) for name in (TEACHER, SURROGATE))
        found = {"agreement": float(np.mean(teacher == surrogate))}
        if self.judged:
            targets = np.concatenate(self._targets)
            low, high = recovery_interval(teacher == targets, surrogate == targets)
            found |= {
                "teacher_accuracy": self.accuracy(TEACHER),
                "surrogate_accuracy": self.accuracy(SURROGATE),
                "recovery": ratio(self.accuracy(SURROGATE), self.accuracy(TEACHER)),
                "recovery_low": low,
                "recovery_high": high,
            }
        return found

    def accuracy(self, name: str) -> float:
        """Return the share of the samples to which ``name`` gave the right class, NaN if it gave none."""
        if name not in self._given:
            return np.nan
        return float(np.mean(np.concatenate(self._given[name]) == np.concatenate(self._targets)))


def ratio(part: float, whole: float) -> float:
    """Return ``part`` over ``whole``, NaN where that is 0."""
    return part / whole if whole else np.nan


def recovery_interval(teacher: np.ndarray, surrogate: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval of the ratio of two shares of right answers over resampled samples.

    A sample is drawn with both its answers, so that only how many samples have each pair of answers matters.
    """
    pair = 2 * teacher.astype(int) + surrogate
    share = np.bincount(pair, minlength=4) / len(pair)
    drawn = np.random.default_rng(0).multinomial(len(pair), share, size=RESAMPLES)
    right_by_teacher, right_by_surrogate = drawn[:, 2] + drawn[:, 3], drawn[:, 1] + drawn[:, 3]
    defined = right_by_teacher > 0
    if not defined.any():
        return np.nan, np.nan
    low, high = np.percentile(right_by_surrogate[defined] / right_by_teacher[defined], PERCENTILES)
    return float(low), float(high)
