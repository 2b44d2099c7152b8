"""Quartiles of values that are read part by part equal those of all values at once."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from depthflow.plot import _curves, _quartiles
from depthflow.plot._curves import quartiles
from tests.tolerances import EXACT, FLOAT64

SAMPLES, DEPTHS, TOKENS = 9, 4, 5
SHAPE = (SAMPLES, DEPTHS, TOKENS)


def by_parts(values: np.ndarray, *along: str, bits: int = 8) -> np.ndarray:
    """Return the quartiles (3, row) by parts of two samples, with so many bits a reading."""
    array = xr.DataArray(values, dims=("sample", "depth", "token"))
    rows = int(np.prod([array.sizes[dim] for dim in along]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_quartiles, "COUNTS_BYTES", rows * 6 * 8 * 2**bits)
        patch.setattr(_quartiles, "PART_BYTES", 2 * DEPTHS * TOKENS * 8)
        return _quartiles.quartiles_by_parts(array, along)


def at_once(values: np.ndarray, *along: str) -> np.ndarray:
    """Return the quartiles (3, row) of all values at once."""
    return quartiles(xr.DataArray(values, dims=("sample", "depth", "token")), *along).reshape(3, -1)


finite = st.floats(-1e100, 1e100, width=64)


@settings(deadline=None, max_examples=40)
@given(arrays(np.float64, SHAPE, elements=st.one_of(finite, st.sampled_from([0.0, -0.0, 1.0, np.nan]))))
def test_parts_equal_the_whole(values):
    for along in (("depth",), ("token", "depth")):
        np.testing.assert_allclose(by_parts(values, *along), at_once(values, *along), **FLOAT64)


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_any_number_of_bits_a_reading(bits):
    values = np.random.default_rng(bits).normal(size=SHAPE) * 10.0 ** np.arange(-2, 2)[:, np.newaxis]
    np.testing.assert_allclose(by_parts(values, "depth", bits=bits), at_once(values, "depth"), **FLOAT64)


def test_what_is_too_large_for_memory_is_read_by_parts(monkeypatch):
    array = xr.DataArray(np.random.default_rng(0).normal(size=SHAPE), dims=("sample", "depth", "token"))
    expected = quartiles(array, "depth", "token")
    assert expected.shape == (3, DEPTHS, TOKENS)
    monkeypatch.setattr(_curves, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(_quartiles, "COUNTS_BYTES", 0)
    np.testing.assert_allclose(quartiles(array.chunk(sample=2), "depth", "token"), expected, **FLOAT64)


def test_ties_infinities_and_depths_without_values():
    values = np.random.default_rng(0).normal(size=SHAPE)
    values[:, 0], values[:, 1] = np.nan, 2.5
    values[:5, 2] = 1.0
    values[:, 3] = np.inf
    ours = by_parts(values, "depth")
    assert np.isnan(ours[:, 0]).all()
    np.testing.assert_allclose(ours[:, 1], 2.5, **EXACT)
    np.testing.assert_allclose(ours[:, 2], np.percentile(values[:, 2], [25, 50, 75]), **FLOAT64)
    assert np.isposinf(ours[:, 3]).all()


def test_no_samples_to_part():
    array = xr.DataArray(np.arange(12.0).reshape(4, 3), dims=("depth", "token")).chunk(token=2)
    ours = _quartiles.quartiles_by_parts(array, ("depth",))
    np.testing.assert_allclose(ours, quartiles(array.compute(), "depth"), **EXACT)
