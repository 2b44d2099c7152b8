"""A first look at a teacher: how alike its blocks are, and how much its states vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from depthflow.errors import SurrogateError
from depthflow.measures.similarity import similarity
from depthflow.schema import PAD
from depthflow.surrogate.nearness import Groups, Spread
from depthflow.trajectories import trajectory

if TYPE_CHECKING:
    from depthflow.surrogate.lessons import Source

SAMPLES = 512
"""How many of the first samples are looked at."""

LEAST_VARIANCE = 1e-6
"""Share of the mean square below which a variance does not count: tokens that the input does not reach hardly vary."""


@dataclass(frozen=True)
class Survey:
    """What was seen.

    Attributes
    ----------
    similarity : numpy.ndarray
        Mean cosine of the states after each two blocks, over samples and tokens, (block, block).
    variance : numpy.ndarray
        Of the states of depths 1 … L around their mean for each token type, mean over features, (block, type).
    types : tuple of str
        The token types, in the order of that axis.
    samples : int
        How many samples were seen.
    """

    similarity: np.ndarray
    variance: np.ndarray
    types: tuple[str, ...]
    samples: int


def survey(source: Source, batch_size: int) -> Survey:
    """Return what is seen in the first lessons of ``source``."""
    samples, alike, spread = 0, np.zeros(()), None
    for lesson in source.through(batch_size, SAMPLES):
        groups, kinds = Groups.of(source.token_types), np.array(source.token_types)
        states = torch.stack(lesson.states, dim=1).cpu().numpy()
        alike = alike + lesson.samples * similarity(trajectory(states[:, :, kinds != PAD])).values
        if spread is None:
            spread = Spread(len(lesson.states) - 1, groups, states.shape[-1])
        spread.add(lesson.states[1:])
        samples += lesson.samples
    if samples < 2 or spread is None:
        raise SurrogateError(f"a fit needs at least 2 samples, and many more to be good; got {samples}.")
    return Survey(alike / samples, spread.variance(LEAST_VARIANCE)[:, 1:], groups.names[1:], samples)
