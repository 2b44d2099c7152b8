"""What a surrogate's fit makes small: the distance to its teacher's states, at every depth."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from depthflow.errors import ParameterError
from depthflow.recording.arguments import HERE, Arguments, leaving
from depthflow.surrogate.partition import runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from depthflow.surrogate.lessons import Lesson
    from depthflow.surrogate.recurrent import RecurrentSurrogate
    from depthflow.surrogate.survey import Survey

TOGETHER = 2
"""The stage in which all blocks are trained at once, from depth 0."""


class Target(NamedTuple):
    """What each error counts.

    Attributes
    ----------
    spans : list of (int, int)
        The runs of depth that start from the teacher's state.
    weight : torch.Tensor
        Of the mean squared error of each token at depths 1 … L, (block, token).
    variance : torch.Tensor
        Of the teacher's states there, (block, token); 0 for tokens that do not count.
    """

    spans: list[tuple[int, int]]
    weight: Tensor
    variance: Tensor

    def to(self, device: torch.device | None) -> Target:
        """Return the same on ``device``."""
        return self._replace(weight=self.weight.to(device), variance=self.variance.to(device))


def target(
    stage: int,
    phases: tuple[int, ...],
    survey: Survey,
    token_types: Sequence[str],
    token_weights: Mapping[str, float],
    scale_by_variance: bool,
) -> Target:
    """Return what counts in a stage: in the first each phase on its own, in the second all depths in one run."""
    kinds = np.array(token_types)
    weights = {kind: token_weights.get(kind, 0.0) for kind in survey.types}
    total = sum(weights.values())
    if total == 0:
        raise ParameterError(
            f"token_weights leave nothing to fit: the tokens are of types {survey.types}; got {weights}."
        )
    share = np.array([weights[kind] / total / np.sum(kinds == kind) for kind in kinds])
    variance = survey.variance[:, [survey.types.index(kind) for kind in kinds]]
    weight = np.broadcast_to(share, variance.shape) / (variance if scale_by_variance else 1.0)
    blocks = len(phases)
    if stage == TOGETHER:
        spans, depths_of = [(0, blocks)], np.full(blocks, blocks)
    else:
        spans, depths_of = runs(phases), np.bincount(phases)[np.array(phases)]
    weight = weight / depths_of[:, None]
    return Target(spans, torch.from_numpy(weight).float(), torch.from_numpy(variance * (share > 0)).float())


class Objective(nn.Module):
    """The loss of a lesson, as a module so that data parallelism sees its gradients.

    Parameters
    ----------
    surrogate : RecurrentSurrogate
        Whose steps are applied to the teacher's states; its shell does not run.
    goal : Target
        What counts.
    precision : torch.dtype or None
        To which the forward pass is reduced.
    in_place : bool
        Whether blocks write over the state that they are given, which their gradients may need.
    """

    def __init__(
        self, surrogate: RecurrentSurrogate, goal: Target, precision: torch.dtype | None, in_place: bool = False
    ) -> None:
        super().__init__()
        self.blocks = surrogate.blocks
        self._steps = tuple(surrogate.steps)  # a tuple: their blocks are registered once, above
        self._goal, self._precision, self._in_place = goal, precision, in_place

    @property
    def device(self) -> torch.device:
        """Where the errors are weighed."""
        return self._goal.weight.device

    def forward(self, lesson: Lesson, forcing: float) -> tuple[Tensor, Tensor]:
        """Return the loss, and the mean squared error of each token at depths 1 … L along the surrogate's own path.

        ``forcing`` in [0, 1] is the weight of the teacher-forced loss, in which every depth starts from the teacher's
        state, against the autoregressive one, in which a run of depth does.
        """
        device = lesson.states[0].device.type
        spared = saved_tensors_hooks(torch.clone, lambda saved: saved) if self._in_place else nullcontext()
        with torch.autocast(device, self._precision, enabled=self._precision is not None), spared:
            forced, free = [], []
            for start, stop in self._goal.spans:
                state = lesson.states[start]
                for depth in range(start + 1, stop + 1):
                    before = lesson.states[depth - 1]
                    shared = state is before and forcing < 1
                    if forcing < 1:
                        state = self.after(depth, state, lesson.arguments)
                        free.append(_errors(state, lesson.states[depth]))
                    if forcing > 0:
                        alone = None if shared else self.after(depth, before, lesson.arguments)
                        forced.append(free[-1] if alone is None else _errors(alone, lesson.states[depth]))
        parts = [(1 - forcing, free), (forcing, forced)]
        loss = torch.stack([share * self.loss(torch.stack(found)) for share, found in parts if share > 0]).sum()
        return loss, torch.stack(free or forced).detach()

    def errors(self, lesson: Lesson) -> Tensor:
        """Return the mean squared errors, as :meth:`forward` does, without the loss."""
        _, errors = self(lesson, 0.0)
        found: Tensor = errors
        return found

    def errors_of_identity(self, lesson: Lesson) -> Tensor:
        """Return those of states that are left as they are at depth 0."""
        return torch.stack([_errors(lesson.states[0], state) for state in lesson.states[1:]])

    def loss(self, errors: Tensor) -> Tensor:
        """Return the autoregressive loss of mean squared errors (block, token)."""
        return (self._goal.weight * errors).sum()

    def r2(self, errors: Tensor) -> Tensor:
        """Return the share of the variance that the states keep, over all tokens, at depths 1 … L."""
        counts = self._goal.variance > 0
        return 1.0 - (errors * counts).sum(dim=1) / self._goal.variance.sum(dim=1)

    def after(self, depth: int, state: Tensor, arguments: Sequence[Arguments]) -> Tensor:
        """Return what the step to ``depth`` makes of ``state``."""
        given = state if state.requires_grad else state.clone()  # some blocks write over it
        args, kwargs = arguments[depth - 1].map(lambda _, leaf: given if leaf is HERE else leaf)
        return leaving(self._steps[depth - 1](*args, **kwargs), f"of depth {depth}")


def _errors(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of each token over samples and features."""
    return (found.float() - wanted.float()).square().mean(dim=(0, 2))
