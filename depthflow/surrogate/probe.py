"""Linear probes: how well classes can be read from a teacher's final states, and from its surrogate's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from depthflow.errors import ParameterError
from depthflow.recording.tokens import choose
from depthflow.schema import leading_tokens
from depthflow.surrogate.answers import SURROGATE, TEACHER, ratio

if TYPE_CHECKING:
    from torch import Tensor

    from depthflow.models.base import Adapter, TokenLayout

MAX_ITER = 2000
UNKNOWN = -1
"""A class that was not learnt, which no probe gives."""

TRAIN, TEST = "train", "test"


class Probes:
    """Features of a teacher and of its surrogate, and one logistic regression on each.

    Parameters
    ----------
    what : str
        The caller, which opens the messages.
    teacher, surrogate : Adapter
        Of the models.
    """

    def __init__(self, what: str, teacher: Adapter, surrogate: Adapter) -> None:
        self._what, self._adapters = what, {TEACHER: teacher, SURROGATE: surrogate}
        self._features: dict[tuple[str, str], list[np.ndarray]] = {}
        self._labels: dict[str, list[np.ndarray]] = {TRAIN: [], TEST: []}

    @property
    def trained(self) -> bool:
        """Whether there are samples to learn from."""
        return bool(self._labels[TRAIN])

    def add(self, part: str, layout: TokenLayout, teacher: Tensor, surrogate: Tensor, labels: np.ndarray) -> None:
        """Take in the final states of a batch and its labels, to learn from or to be judged by."""
        for name, state in ((TEACHER, teacher), (SURROGATE, surrogate)):
            self._features.setdefault((name, part), []).append(features(self._adapters[name], state, layout))
        self._labels[part].append(labels)

    def scores(self) -> dict[str, float]:
        """Return the accuracies of both probes, and the recovery; nothing without samples of both parts."""
        if not all(self._labels.values()):
            return {}
        train, test = ([label for batch in self._labels[part] for label in batch.tolist()] for part in (TRAIN, TEST))
        number = {label: order for order, label in enumerate(dict.fromkeys(train))}
        if len(number) < 2 or not number.keys() & set(test):
            listed = [", ".join(repr(label) for label in list(dict.fromkeys(part))[:4]) for part in (train, test)]
            raise ParameterError(
                f"{self._what} trains probes on the labels of train_inputs and judges them by those of inputs: it "
                f"needs at least two classes to learn, and one of them again; got {listed[0]} and {listed[1]}. Give "
                "samples of several classes, named alike."
            )
        learnt, judged = ([number.get(label, UNKNOWN) for label in part] for part in (train, test))
        found = {}
        for name in (TEACHER, SURROGATE):
            seen, unseen = (np.concatenate(self._features[name, part]) for part in (TRAIN, TEST))
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITER)).fit(seen, learnt)
            found[f"{name}_probe_accuracy"] = float(probe.score(unseen, judged))
        found["probe_recovery"] = ratio(found["surrogate_probe_accuracy"], found["teacher_probe_accuracy"])
        return found


def features(adapter: Adapter, state: Tensor, layout: TokenLayout) -> np.ndarray:
    """Return one vector a sample: the mean of its leading tokens' final states, each through the final norm."""
    norm = adapter.final_norm()
    normed = state if norm is None else adapter.root.get_submodule(norm)(state)
    leading = choose(leading_tokens(layout.types), layout).of(normed)
    found: np.ndarray = leading.float().mean(dim=1).cpu().numpy()
    return found
