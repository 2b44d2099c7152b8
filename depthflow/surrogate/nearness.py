"""How near the states of one path are to a teacher's, summed batch by batch in double precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from depthflow.schema import PAD, TOKEN_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALL = "all"
"""The group of all tokens but padding."""

ROUNDINGS = 100
"""A standard deviation of no more than so many roundings of the states' size is no variation."""


class Groups(NamedTuple):
    """Tokens that are scored together: all but padding, then those of each type."""

    names: tuple[str, ...]
    members: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, types: Sequence[str]) -> Groups:
        """Return the groups of tokens of these ``types``."""
        kinds = np.array(types)
        present = [kind for kind in TOKEN_TYPES if kind in types]
        return cls((ALL, *present), tuple(map(np.flatnonzero, [kinds != PAD, *[kinds == kind for kind in present]])))


def exact(state: Tensor) -> Tensor:
    """Return a state in double precision, on the CPU where its device has none."""
    return (state.cpu() if state.device.type == "mps" else state).double()


class Spread:
    """The sum of squares of a teacher's states around their mean, at each depth 1 … L and for each group of tokens.

    Batches are merged by their means (Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115), so that a mean
    far from zero costs no digits.
    """

    def __init__(self, depths: int, groups: Groups, features: int) -> None:
        self._groups = groups
        self._count = np.zeros(len(groups.names))
        self._mean = np.zeros((depths, len(groups.names), features))
        self._around, self._total = np.zeros((2, depths, len(groups.names)))
        self._eps = 0.0

    def add(self, states: Sequence[Tensor]) -> None:
        """Take in the states (sample, token, feature) of depths 1 … L."""
        new = np.array([len(states[0]) * len(tokens) for tokens in self._groups.members])
        count = self._count + new
        for depth, state in enumerate(map(exact, states)):
            for group, tokens in enumerate(self._groups.members):
                part = state[:, torch.as_tensor(tokens)].flatten(0, 1)
                mean = part.mean(dim=0)
                shift = mean.cpu().numpy() - self._mean[depth, group]
                around = float((part - mean).square().sum())
                share = new[group] / count[group]
                self._around[depth, group] += around + self._count[group] * share * (shift @ shift)
                self._mean[depth, group] += share * shift
                self._total[depth, group] += float(part.square().sum())
        self._count = count
        self._eps = torch.finfo(states[0].dtype).eps

    def variance(self, least: float) -> np.ndarray:
        """Return the variances (depth, group), mean over features, of at least a share ``least`` of the mean square."""
        around = np.maximum(self._around, least * self._total)
        return around / self._count / self._mean.shape[-1] + np.finfo(np.float32).tiny

    @property
    def around(self) -> np.ndarray:
        """The sums (depth, group), NaN where the states do not vary by more than rounding."""
        varies = self._around > (ROUNDINGS * self._eps) ** 2 * self._total
        return np.where(varies, self._around, np.nan)


class Nearness:
    """Distances of one path from the teacher's, at each depth 1 … L and for each group of tokens."""

    def __init__(self, depths: int, groups: Groups) -> None:
        self._groups, self._samples = groups, 0
        self._squares, self._cosine, self._relative = np.zeros((3, depths, len(groups.names)))

    def add(self, found: Iterable[Tensor], wanted: Iterable[Tensor]) -> None:
        """Take in a path's states (sample, token, feature) of depths 1 … L, and the teacher's."""
        for depth, (one, other) in enumerate(zip(found, wanted, strict=True)):
            goal = exact(other)
            state = exact(one).to(goal.device)
            off, size = (state - goal).square().sum(dim=2), goal.square().sum(dim=2)
            cosine = (state * goal).sum(dim=2) / (size.sqrt() * state.norm(dim=2))
            for group, tokens in enumerate(self._groups.members):
                within = torch.as_tensor(tokens)
                squares, scale = off[:, within].sum(dim=1), size[:, within].sum(dim=1)
                self._squares[depth, group] += float(squares.sum())
                self._cosine[depth, group] += float(cosine[:, within].mean(dim=1).sum())
                relative = torch.where(scale > 0, (squares / scale).sqrt(), torch.nan)
                self._relative[depth, group] += float(relative.sum())
        self._samples += len(goal)

    def scores(self, spread: Spread) -> dict[str, np.ndarray]:
        """Return the scores, each (depth, group)."""
        return {
            "r2": 1.0 - self._squares / spread.around,
            "cosine": self._cosine / self._samples,
            "relative_error": self._relative / self._samples,
        }
