"""The kernels of spectra against LAPACK's QR iteration and the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from depthflow.kernels import lowrank
from depthflow.kernels.running import RunningFactor, RunningGram
from tests.oracles import lowrank as oracle
from tests.tolerances import EXACT, FLOAT32, FLOAT64, ITERATIVE, SINGULAR_VALUE

SHAPES = [(7, 11), (11, 7), (13, 13), (1, 11), (11, 1)]
DECAYS = {
    "to 1e-3": np.geomspace(1, 1e-3, 31),
    "to 1e-6": np.geomspace(1, 1e-6, 31),
    "a step to a tail": np.append(np.ones(16), np.geomspace(1e-3, 1e-6, 15)),
    "flat": np.ones(31),
    "rank 3": np.append([3.0, 2.0, 1.0], np.zeros(28)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_singular_values_of_any_shape(shape, dtype):
    matrices = np.random.default_rng(0).normal(size=(3, *shape)).astype(dtype)
    expected = np.array([oracle.spectrum(matrix) for matrix in matrices])
    np.testing.assert_allclose(lowrank.singular_values(matrices), expected, **FLOAT64)
    np.testing.assert_allclose(lowrank.singular_values(matrices, exact=True), expected, **FLOAT64)
    np.testing.assert_allclose(lowrank.singular_values(matrices[0]), expected[0], **FLOAT64)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("shape", [(31, 59), (59, 31)])
def test_singular_values_keep_the_promise_down_to_a_millionth(decay, shape):
    rng = np.random.default_rng(1)
    matrix = oracle.with_spectrum(DECAYS[decay], *shape, rng).astype(np.float32)
    expected = oracle.spectrum(matrix)
    promised = expected >= 1e-6 * expected[0]
    np.testing.assert_allclose(lowrank.singular_values(matrix)[promised], expected[promised], **SINGULAR_VALUE)


@pytest.mark.parametrize("size", [1e-160, 1e-30, 1e30, 1e160])
def test_singular_values_neither_overflow_nor_vanish(size):
    matrix = np.random.default_rng(2).normal(size=(5, 8))
    scaled = lowrank.singular_values(matrix * size)
    np.testing.assert_allclose(scaled / size, lowrank.singular_values(matrix), **FLOAT64)


def test_a_certified_gram_matrix_is_used_and_another_refused():
    rng = np.random.default_rng(3)
    grams = []
    for least in (1e-3, 1e-6):
        matrix = oracle.with_spectrum(np.geomspace(1, least, 9), 9, 14, rng)
        grams.append(matrix @ matrix.T)
    values, resolved = lowrank.singular_values_of_grams(np.array(grams))
    assert resolved.tolist() == [True, False]
    np.testing.assert_allclose(values[0], np.geomspace(1, 1e-3, 9), **SINGULAR_VALUE)
    np.testing.assert_allclose(values[1], 0.0, **EXACT)


def test_without_mean_has_the_spectrum_of_the_centered_rows():
    matrices = np.random.default_rng(4).normal(size=(3, 6, 9)) + 40
    centered = matrices - matrices.mean(1, keepdims=True)
    expected = np.array([oracle.spectrum(matrix)[:5] for matrix in centered])
    np.testing.assert_allclose(lowrank.singular_values(lowrank.without_mean(matrices)), expected, **FLOAT64)


@pytest.mark.parametrize("energy", [0.5, 0.9, 1.0])
def test_ranks_follow_their_definitions(energy):
    values = np.sort(np.random.default_rng(5).random((4, 6)))[:, ::-1].copy()
    values[1, 2:], values[3] = 0.0, 0.0
    expected = np.transpose([oracle.ranks(spectrum, energy) for spectrum in values])
    np.testing.assert_allclose(lowrank.ranks(values, energy), expected, **FLOAT64)


def test_energy_rank_is_not_raised_by_rounding():
    assert lowrank.ranks(np.full(10, 0.1), 0.9)[3] == 9
    assert lowrank.ranks(np.array([3.0, 1e-9, 0.0]), 1.0)[3] == 1


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("shape", [(31, 59), (59, 31)])
def test_stable_rank_alone(decay, shape):
    rng = np.random.default_rng(6)
    matrices = np.array([oracle.with_spectrum(DECAYS[decay], *shape, rng) for _ in range(3)])
    for dtype, tolerance in ((np.float32, FLOAT32), (np.float64, SINGULAR_VALUE)):
        expected = [oracle.ranks(oracle.spectrum(matrix), 0.9)[0] for matrix in matrices.astype(dtype)]
        np.testing.assert_allclose(lowrank.stable_rank(matrices.astype(dtype)), expected, **tolerance)


@pytest.mark.parametrize("gap", [0.0, 1e-13, 1e-9, 1e-5, 1e-2])
def test_stable_rank_of_a_pair_of_close_leaders(gap):
    values = np.append([1.0, 1.0 - gap], np.linspace(0.5, 0.1, 17))
    matrix = oracle.with_spectrum(values, 19, 23, np.random.default_rng(7))
    np.testing.assert_allclose(lowrank.stable_rank(matrix[None])[0], (values**2).sum(), **SINGULAR_VALUE)


def test_stable_rank_of_small_and_empty_spectra():
    single = np.zeros((4, 3, 5), dtype=np.float32)
    single[1, 2, 4], single[2, :, 0], single[3, 0, 0] = 7.0, [1.0, 2.0, 2.0], 1e-30
    np.testing.assert_allclose(lowrank.stable_rank(single), [np.nan, 1.0, 1.0, 1.0], **FLOAT64)
    one_column = np.random.default_rng(8).normal(size=(2, 6, 1))
    np.testing.assert_allclose(lowrank.stable_rank(one_column), [1.0, 1.0], **FLOAT64)
    strided = np.random.default_rng(9).normal(size=(5, 7, 2)).transpose(2, 0, 1)
    expected = [oracle.ranks(oracle.spectrum(matrix), 0.9)[0] for matrix in strided]
    np.testing.assert_allclose(lowrank.stable_rank(strided), expected, **ITERATIVE)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("part", [1, 4, 50])
def test_running_rows_are_all_rows_at_once(center, part):
    rows = np.random.default_rng(10).normal(size=(50, 6)) + 30
    gram, factor = RunningGram(6, center), RunningFactor(6, center)
    for start in range(0, 50, part):
        gram.add(rows[start : start + part])
        factor.add(rows[start : start + part])
    whole = rows - rows.mean(0) if center else rows
    np.testing.assert_allclose(gram.matrix, whole.T @ whole, **FLOAT64)
    np.testing.assert_allclose(oracle.spectrum(factor.matrix)[:6], oracle.spectrum(whole), **FLOAT64)
    assert len(factor.matrix) <= 50
