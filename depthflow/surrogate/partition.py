"""Which of a surrogate's blocks stands for which of its teacher's."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from depthflow.errors import ParameterError, SurrogateError
from depthflow.measures.phases import phases as cut
from depthflow.recording.pairs import phase_array

RANDOM = "random"


def partition(
    similarity: np.ndarray, n_phases: int, phases: Any, contiguous: bool, seed: int, what: str
) -> tuple[int, ...]:
    """Return the phase of each of the L blocks, counted from 1 in the order in which they begin.

    Parameters
    ----------
    similarity : numpy.ndarray
        Of the blocks, (block, block).
    n_phases : int
        How many, where ``phases`` does not say.
    phases : None, "random", or a partition
        The optimal one by default; one drawn at random; or one given, as :func:`depthflow.phases` returns it or as a
        number or name a block.
    contiguous : bool
        Whether each phase is a run of depth; if not, a drawn partition is scattered and a given one may be.
    seed : int
        Of the draw.

    Raises
    ------
    SurrogateError
        If there are fewer blocks than phases, or the phases given are not runs although they must be.
    ParameterError
        If ``phases`` is not one of these, or is of other blocks.
    """
    blocks = len(similarity)
    if phases is None or isinstance(phases, str):
        if n_phases > blocks:
            raise SurrogateError(
                f"{what} was asked for {n_phases} phases of a model with {blocks} blocks. Ask for at most {blocks}."
            )
        if phases is None and not contiguous:
            raise ParameterError(
                f"{what} finds phases that are runs of depth. With contiguous=False pass phases={RANDOM!r}, or a phase "
                "for each block."
            )
        if phases is None:
            return tuple(cut(similarity, n_phases)["phase"].values.tolist())
        if phases != RANDOM:
            raise ParameterError(f"{what} knows phases={RANDOM!r}, or a phase for each block; got {phases!r}.")
        return drawn(blocks, n_phases, contiguous, np.random.default_rng(seed))
    given = phase_array(phases, what).tolist()
    if len(given) != blocks:
        raise SurrogateError(f"{what} needs one phase for each of the model's {blocks} blocks; got {len(given)}.")
    names = list(dict.fromkeys(given))
    found = tuple(names.index(name) + 1 for name in given)
    if contiguous and len(runs(found)) > len(names):
        raise SurrogateError(
            f"{what} needs phases that cover the blocks in order, each a run of depth; got {given}. Pass "
            "contiguous=False if its blocks are meant to be scattered."
        )
    return found


def drawn(blocks: int, n_phases: int, contiguous: bool, rng: np.random.Generator) -> tuple[int, ...]:
    """Return a random partition, uniform over all cuts; scattered, the same sizes shuffled until some run is broken."""
    cuts = np.sort(rng.choice(blocks - 1, n_phases - 1, replace=False))
    owner = np.searchsorted(cuts, np.arange(blocks)) + 1
    if not contiguous and 1 < n_phases < blocks:
        while len(runs(tuple(owner))) == n_phases:
            rng.shuffle(owner)
    names = list(dict.fromkeys(owner.tolist()))
    return tuple(names.index(name) + 1 for name in owner.tolist())


def runs(phases: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return each run of one phase as the depth that it starts from and the depth that it leads to."""
    found, start = [], 0
    for _, members in groupby(phases):
        stop = start + len(list(members))
        found.append((start, stop))
        start = stop
    return found


def medoids(similarity: np.ndarray, phases: tuple[int, ...]) -> tuple[int, ...]:
    """Return the block, counted from 1, that is most similar to the others of its phase, for each phase."""
    owner = np.array(phases)
    found = []
    for phase in range(1, owner.max() + 1):
        members = np.flatnonzero(owner == phase)
        found.append(int(members[similarity[np.ix_(members, members)].sum(axis=1).argmax()]) + 1)
    return tuple(found)
