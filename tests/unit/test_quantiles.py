"""The quantile sketch: exact while it holds all values, afterwards within the rank error that it states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthflow.measures._quantiles import BUFFER, CONFIDENCE, Sketch
from tests.tolerances import EXACT, FLOAT64

SHARES = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
CELLS = 7


def filled(values: np.ndarray, batch: int, seed: int = 0) -> Sketch:
    sketch = Sketch(len(values), seed)
    for start in range(0, values.shape[1], batch):
        sketch.add(values[:, start : start + batch])
    return sketch


def rank_errors(values: np.ndarray, sketch: Sketch, shares: np.ndarray) -> np.ndarray:
    """Return how far the rank of each quantile (share, cell) lies from the one asked for, as a share of all values."""
    found = sketch.quantiles(shares)
    count = values.shape[1] - 1
    ranks = [np.searchsorted(np.sort(row), some) / count for row, some in zip(values, found.T, strict=True)]
    return np.abs(np.array(ranks) - shares)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, BUFFER), batch=st.integers(1, BUFFER))
def test_no_more_values_than_a_buffer_give_numpys_linear_quantiles(seed, count, batch):
    values = np.random.default_rng(seed).normal(size=(CELLS, count)).round(1)
    sketch = filled(values, batch)
    assert sketch.rank_error == 0
    np.testing.assert_allclose(sketch.quantiles(SHARES), np.quantile(values, SHARES, axis=1), **FLOAT64)


@pytest.mark.parametrize("batch", [7, 512, 6000])
@pytest.mark.parametrize("order", ["random", "rising", "falling"])
def test_ranks_are_within_the_stated_error(batch, order):
    count, shares = 60_000, np.linspace(0.01, 0.99, 99)
    values = np.random.default_rng(1).lognormal(size=(CELLS, count))
    if order != "random":
        values = np.sort(values, axis=1)[:, :: -1 if order == "falling" else 1].copy()
    sketch = filled(values, batch)
    assert 0 < sketch.rank_error < 0.007
    errors = rank_errors(values, sketch, shares)
    assert (errors <= sketch.rank_error).mean() >= CONFIDENCE
    assert errors.max() < 0.005


def test_no_direction_of_error_is_preferred():
    """Offsets are random, so that errors of many sketches cancel: a fixed one would push all ranks one way."""
    values = np.tile(np.arange(6000.0), (CELLS, 1))
    medians = np.array([filled(values, 1000, seed).quantiles([0.5]).mean() for seed in range(60)])
    spread = medians.std() / np.sqrt(len(medians))
    assert spread > 0
    assert abs(medians.mean() - 2999.5) < 4 * spread


def test_memory_grows_with_the_logarithm():
    values = np.random.default_rng(2).normal(size=(1, 300_000))
    sizes = [sum(level.size for level in filled(values[:, :count], 100)._levels) for count in (3_000, 30_000, 300_000)]
    assert sizes[-1] < BUFFER * (np.log2(300_000 / BUFFER) + 2)
    assert sizes[0] < 5 * BUFFER


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 4999))
def test_merged_sketches_count_every_value_and_stay_within_their_error(seed, cut):
    values = np.random.default_rng(seed).normal(size=(CELLS, 5000))
    first, second = filled(values[:, :cut], 300, 0), filled(values[:, cut:], 300, 1)
    before = second.quantiles(SHARES)
    first.merge(second)
    np.testing.assert_allclose(second.quantiles(SHARES), before, **EXACT)
    assert first.count == 5000
    assert sum(level.shape[1] * 2**at for at, level in enumerate(first._levels)) == 5000
    assert rank_errors(values, first, np.array(SHARES)).max() <= first.rank_error


def test_merged_small_sketches_are_exact():
    values = np.random.default_rng(3).normal(size=(CELLS, 400))
    first, second = filled(values[:, :150], 50), filled(values[:, 150:], 50)
    first.merge(second)
    np.testing.assert_allclose(first.quantiles(SHARES), np.quantile(values, SHARES, axis=1), **FLOAT64)


def test_nan_counts_as_larger_than_every_number():
    values = np.array([[3.0, np.nan, 1.0, 2.0, np.nan]])
    found = filled(values, 2).quantiles([0.0, 0.25, 0.5, 0.6, 0.75, 1.0])[:, 0]
    np.testing.assert_allclose(found, [1.0, 2.0, 3.0, np.nan, np.nan, np.nan], **FLOAT64)
    many = np.random.default_rng(4).permutation(np.append(np.arange(6000.0), np.full(4000, np.nan)))[None]
    found = filled(many, 700).quantiles([0.3, 0.55, 0.65])[:, 0]
    assert abs(found[0] - 3000) < 100
    assert abs(found[1] - 5500) < 100
    assert np.isnan(found[2])


def test_the_same_seed_gives_the_same_answer_and_another_another():
    values = np.random.default_rng(5).normal(size=(CELLS, 4000))
    np.testing.assert_allclose(filled(values, 90).quantiles(SHARES), filled(values, 90).quantiles(SHARES), **EXACT)
    assert (filled(values, 90).quantiles([0.3]) != filled(values, 90, seed=1).quantiles([0.3])).any()


def test_values_given_are_left_as_they_were():
    values = np.random.default_rng(6).normal(size=(CELLS, 3000))
    before = values.copy()
    filled(values, 3000)
    np.testing.assert_allclose(values, before, **EXACT)
