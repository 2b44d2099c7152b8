"""A first look at a teacher: how alike its blocks are, and how much its states vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from depthflow.errors import SurrogateError
from depthflow.measures.similarity import similarity
from depthflow.schema import PAD
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
    samples, sums = 0, [np.zeros(())] * 3
    for lesson in source.through(batch_size, SAMPLES):
        kinds = np.array(source.token_types)
        types = tuple(dict.fromkeys(source.token_types))
        states = torch.stack(lesson.states, dim=1).cpu().numpy()
        alike = similarity(trajectory(states[:, :, kinds != PAD])).values
        by_type = [states[:, 1:, kinds == kind].astype(np.float64) for kind in types]
        total = np.stack([part.sum(axis=(0, 2)) for part in by_type], axis=1)
        square = np.stack([np.square(part).sum(axis=(0, 2)) for part in by_type], axis=1)
        sums = [old + new for old, new in zip(sums, (lesson.samples * alike, total, square), strict=True)]
        samples += lesson.samples
    if samples < 2:
        raise SurrogateError(f"a fit needs at least 2 samples, and many more to be good; got {samples}.")
    alike, total, square = sums
    count = samples * np.array([np.sum(kinds == kind) for kind in types])[None, :, None]
    mean_square = (square / count).mean(axis=-1)
    variance = mean_square - np.square(total / count).mean(axis=-1)
    least = LEAST_VARIANCE * mean_square + np.finfo(np.float32).tiny
    return Survey(alike / samples, np.maximum(variance, least), types, samples)
