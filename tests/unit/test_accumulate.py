"""Accumulators: filled in any parts, in any tree of merges, they hold the same; and parts are forgotten."""

from __future__ import annotations

import weakref
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

import depthflow
from depthflow.kernels.running import RunningFactor, RunningGram
from depthflow.measures._accumulate import accumulated
from depthflow.measures._chunks import parts
from depthflow.measures._cluster import _groups
from depthflow.measures._linear_maps import Maps, Residuals, Sums
from depthflow.measures._pooled_spectra import Updates, factor_singular_values
from depthflow.measures._prediction import Misses
from depthflow.measures._streamed_dmd import SumsByType
from depthflow.measures._summary import Summary
from depthflow.measures.similarity import Cosines, TokenMeans
from tests.tolerances import EXACT, FLOAT64

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

SAMPLES, DEPTHS, TOKENS, FEATURES = 9, 6, 7, 11
BLOCKS, KINDS = range(DEPTHS - 1), np.array([0] + [1] * (TOKENS - 1))
OPERATOR = np.random.default_rng(1).normal(size=(FEATURES, FEATURES)) / 4
MAPS = Maps(OPERATOR, [OPERATOR] * 5, {1: OPERATOR, 3: OPERATOR})


@pytest.fixture
def traj() -> xr.DataArray:
    states = np.random.default_rng(0).normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES)) + 3
    return depthflow.trajectory(states, token_type=["cls"] + ["patch"] * 6)


def arrays(kept: Any) -> list[np.ndarray]:
    """Return all numbers that an accumulator holds, by what it is asked for."""
    if isinstance(kept, Cosines):
        return [kept.mean, kept.each]
    if isinstance(kept, TokenMeans):
        return [kept.each]
    if isinstance(kept, Updates):
        return [factor_singular_values(kept, True), np.array(kept.rows)]
    if isinstance(kept, Residuals):
        return [kept.cross]
    if isinstance(kept, Misses):
        return [kept.reached, *kept.missed.values()]
    if isinstance(kept, Summary):
        result = kept.result()
        return [np.array(result.attrs["samples"]), *(result[name].values for name in result.data_vars)]
    if isinstance(kept, SumsByType):
        return [kept.last, *kept.errors(MAPS).values(), *arrays(kept.together())]
    return [kept.gram, kept.step, *kept.far.values(), np.array(kept.rows)]


STARTS: dict[str, Callable[[], Any]] = {
    "cosines": partial(Cosines, "similarity", keep=True),
    "token means": partial(TokenMeans, "similarity"),
    "factors": partial(Updates, RunningFactor, BLOCKS, FEATURES, False),
    "centered factors": partial(Updates, RunningFactor, BLOCKS, FEATURES, True),
    "grams": partial(Updates, RunningGram, BLOCKS, FEATURES, False),
    "centered grams": partial(Updates, RunningGram, BLOCKS, FEATURES, True),
    "sums": partial(Sums, DEPTHS - 1, FEATURES, [1, 3], "dmd"),
    "sums by type": partial(SumsByType, KINDS, ["cls", "patch"], DEPTHS - 1, FEATURES, [1, 3]),
    "residuals": partial(Residuals, OPERATOR, "dmd"),
    "misses": partial(Misses, MAPS, [1, 3], KINDS, 2, "dmd"),
    "summary": partial(Summary, depthflow.convergence, [0.0, 0.4, 1.0]),
}


def of(start: Callable[[], Any], traj: xr.DataArray) -> Any:
    kept = start()
    kept.add(traj)
    return kept


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("cuts", [(4,), (1, 2, 8), (3, 6)])
def test_merged_in_order_is_all_at_once(traj, start, cuts):
    whole = of(start, traj)
    edges = [0, *cuts, SAMPLES]
    pieces = [of(start, traj[first:last]) for first, last in pairwise(edges)]
    before = [array.copy() for array in arrays(pieces[-1])]
    total = start()
    for piece in pieces:
        total.merge(piece)
    for got, expected in zip(arrays(total), arrays(whole), strict=True):
        np.testing.assert_allclose(got, expected, **FLOAT64)
    for got, expected in zip(arrays(pieces[-1]), before, strict=True):
        np.testing.assert_allclose(got, expected, **EXACT)


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_what_is_merged_can_grow_on_without_the_other(traj, start):
    first, second = of(start, traj[:4]), of(start, traj[4:7])
    total = start()
    total.merge(first)
    total.merge(second)
    total.add(traj[7:])
    for got, expected in zip(arrays(first), arrays(of(start, traj[:4])), strict=True):
        np.testing.assert_allclose(got, expected, **EXACT)
    for got, expected in zip(arrays(total), arrays(of(start, traj)), strict=True):
        np.testing.assert_allclose(got, expected, **FLOAT64)


def test_parts_are_dasks_chunks_with_the_labels_of_their_samples(traj):
    labelled = traj.assign_coords(sample=np.arange(SAMPLES) * 10)
    got = list(parts(labelled.chunk(sample=(4, 3, 2), depth=2)))
    assert [part.sample.values.tolist() for part in got] == [[0, 10, 20, 30], [40, 50, 60], [70, 80]]
    np.testing.assert_allclose(np.concatenate([part.values for part in got]), traj.values, **EXACT)
    assert got[0].depth.values.tolist() == list(range(DEPTHS))


MEASURES: dict[str, Callable[[xr.DataArray], object]] = {
    "similarity": depthflow.similarity,
    "pooled spectra": partial(depthflow.update_spectra, pool=True, center=True),
    "pooled spectra, exact": partial(depthflow.update_spectra, pool=True, exact=True),
    "dmd": depthflow.dmd,
    "phases": depthflow.phases,
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_of_many_chunks_two_are_alive_at_most(traj, measure):
    """One is worked on, and the next is read: all others have been given up."""
    alive: set[int] = set()
    most = []

    def read(block_info: Any = None) -> np.ndarray:
        at = block_info[None]["array-location"][0]
        states = traj.values[slice(*at)].copy()
        alive.add(id(states))
        weakref.finalize(states, alive.discard, id(states))
        most.append(len(alive))
        return states

    chunks = ((1,) * SAMPLES, (DEPTHS,), (TOKENS,), (FEATURES,))
    lazy = traj.copy(data=da.map_blocks(read, chunks=chunks, dtype=np.float64, meta=np.empty((0, 0, 0, 0))))
    measure(lazy)
    assert len(most) >= SAMPLES
    assert max(most) <= 2
    lazy.load()
    assert max(most) > 2


EVERY: dict[str, Callable[[xr.DataArray], Any]] = MEASURES | {
    "convergence": depthflow.convergence,
    "coherence": depthflow.coherence,
    "spectra": depthflow.update_spectra,
    "cka": partial(depthflow.similarity, metric="cka"),
    "basins": partial(depthflow.basins, n_basins=2),
    "finite_jacobian": lambda traj: depthflow.finite_jacobian(traj, [traj * 1.5, traj + 0.1]),
}


@pytest.mark.parametrize("measure", EVERY.values(), ids=EVERY)
def test_labels_in_memory_beside_lazy_states_are_no_chunks_of_theirs(traj, measure):
    labelled = traj.assign_coords(label=("sample", np.arange(SAMPLES) % 3))
    lazy = labelled.copy(data=da.from_array(traj.values, chunks=(4, 3, -1, -1)))
    got, expected = measure(lazy), measure(labelled)
    for name in expected.coords:
        assert got[name].values.tolist() == expected[name].values.tolist()
    if "singular_value" in got and "sample" in got.dims:
        np.testing.assert_allclose(got.singular_value, expected.singular_value, **FLOAT64)


def test_chunks_are_grouped_by_their_size_alone(monkeypatch):
    monkeypatch.setattr("depthflow.measures._cluster.GROUP_BYTES", 100)
    assert list(_groups((4, 4, 4, 4, 2), 10)) == [(0, 2), (2, 5)]
    assert list(_groups((20, 1, 20), 10)) == [(0, 1), (1, 2), (2, 3)]
    assert list(_groups((3,), 10)) == [(0, 1)]


def test_no_cluster_no_tasks(traj):
    kept = accumulated(traj.chunk(sample=2), partial(Cosines, "similarity"))
    assert kept.count == SAMPLES
