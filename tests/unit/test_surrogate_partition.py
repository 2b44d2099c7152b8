"""Which block stands for which: optimal, given and drawn partitions, and the medoid of each phase."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import numpy as np
import pytest

import depthflow
from depthflow.errors import ParameterError, SurrogateError
from depthflow.surrogate.partition import drawn, medoids, partition, runs

SIZES = (2, 4, 1)
ALIKE = np.kron(np.eye(3), np.ones((4, 4)))[np.ix_([0, 1, 4, 5, 6, 7, 8], [0, 1, 4, 5, 6, 7, 8])]
"""Similarity of 7 blocks in three phases."""
TRUE = (1, 1, 2, 2, 2, 2, 3)


def take(n_phases=3, phases=None, contiguous=True, seed=0):
    return partition(ALIKE, n_phases, phases, contiguous, seed, "fit_surrogate")


def is_runs(phases) -> bool:
    return len(list(groupby(phases))) == len(set(phases))


def test_the_optimal_phases_are_those_of_the_similarity():
    assert take() == TRUE
    assert take(1) == (1,) * 7
    assert take(7) == tuple(range(1, 8))


@pytest.mark.parametrize(
    "given",
    [
        [5, 5, 2, 2, 2, 2, 9],
        np.array([1, 1, 2, 2, 2, 2, 3]),
        ["early", "early", "mid", "mid", "mid", "mid", "late"],
        depthflow.phases(ALIKE, 3),
        depthflow.phases(ALIKE, 3)["phase"],
    ],
)
def test_given_phases_are_numbered_in_the_order_in_which_they_begin(given):
    assert take(n_phases=99, phases=given) == TRUE


def test_scattered_phases_are_taken_if_they_are_meant():
    given = [2, 1, 2, 1, 1, 3, 3]
    assert take(phases=given, contiguous=False) == (1, 2, 1, 2, 2, 3, 3)
    with pytest.raises(
        SurrogateError, match=r"cover the blocks in order, each a run of depth; got \[2, 1, 2, .*Pass c"
    ):
        take(phases=given)


def test_a_drawn_partition_is_the_seed_s_and_has_every_phase():
    for n_phases in range(1, 8):
        for contiguous in (True, False):
            found = take(n_phases, "random", contiguous, seed=n_phases)
            assert found == take(n_phases, "random", contiguous, seed=n_phases)
            assert list(dict.fromkeys(found)) == list(range(1, n_phases + 1))
            assert is_runs(found) == (contiguous or n_phases in (1, 7))
    assert len({take(3, "random", seed=seed) for seed in range(30)}) > 5


def test_every_cut_is_drawn_as_often_as_any():
    rng = np.random.default_rng(0)
    found = Counter(drawn(5, 3, True, rng) for _ in range(6000))
    assert len(found) == 6  # 4 gaps, 2 cuts
    assert max(abs(count - 1000) for count in found.values()) < 4 * np.sqrt(1000)


def test_a_scattered_draw_keeps_the_sizes_of_a_contiguous_one():
    for seed in range(20):
        whole = drawn(7, 3, True, np.random.default_rng(seed))
        broken = drawn(7, 3, False, np.random.default_rng(seed))
        assert sorted(Counter(whole).values()) == sorted(Counter(broken).values())


def test_runs_name_the_depths_that_they_start_from_and_lead_to():
    assert runs(TRUE) == [(0, 2), (2, 6), (6, 7)]
    assert runs((1, 2, 1, 1)) == [(0, 1), (1, 2), (2, 4)]


@pytest.mark.parametrize(("phases", "found"), [((1, 1, 1, 2, 2, 2, 2), (2, 5)), ((1, 2, 1, 1, 1, 2, 2), (3, 6))])
def test_the_medoid_is_the_block_most_like_the_others_of_its_phase(phases, found):
    angle = np.array([0.0, 0.1, 0.5, 2.0, 2.3, 2.4, 2.6])
    similarity = np.cos(angle[:, None] - angle)
    expected = []
    for phase in (1, 2):
        members = [i for i, of in enumerate(phases) if of == phase]
        means = {i: np.mean([similarity[i, j] for j in members if j != i]) for i in members}
        expected.append(max(means, key=means.__getitem__) + 1)
    assert medoids(similarity, phases) == tuple(expected) == found


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"n_phases": 8}, SurrogateError, "asked for 8 phases of a model with 7 blocks. Ask for at most 7"),
        ({"n_phases": 8, "phases": "random"}, SurrogateError, "asked for 8 phases of a model with 7 blocks"),
        ({"contiguous": False}, ParameterError, "With contiguous=False pass phases='random', or a phase for each"),
        ({"phases": "best"}, ParameterError, "knows phases='random', or a phase for each block; got 'best'"),
        ({"phases": [1, 2]}, SurrogateError, "needs one phase for each of the model's 7 blocks; got 2"),
        ({"phases": [1.5] * 7}, ParameterError, "needs phases as integers or names, one a block; got float"),
        ({"phases": 3}, ParameterError, "needs phases as one a block; got int"),
    ],
)
def test_bad_phases_are_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        take(**arguments)
