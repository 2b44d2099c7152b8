"""The kernel of restricted Jacobians against pseudo-inverses and the published re-orthogonalisation."""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np
import pytest

from depthflow.kernels import tangent
from tests.oracles import tangent as oracle
from tests.tolerances import EXACT, FLOAT64, SINGULAR_VALUE

SAMPLES, DEPTHS, TOKENS = 3, 6, 2


def paths(draws: int, features: int, dtype: type = np.float64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a reference and perturbed states that no flow made, at deviations as large as the states."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(SAMPLES, DEPTHS, TOKENS, features)).astype(dtype)
    return reference, rng.normal(size=(SAMPLES, draws, DEPTHS, TOKENS, features)).astype(dtype)


def maps(reference: np.ndarray, perturbed: np.ndarray, *, rcond: float = 1e-6) -> tangent.DeviationMaps:
    modes = min(perturbed.shape[1], perturbed.shape[-1])
    eps = float(np.finfo(reference.dtype).eps)
    return tangent.deviation_maps(reference, perturbed, n_modes=modes, rcond=rcond, eps=eps)


def deviations(reference: np.ndarray, perturbed: np.ndarray, sample: int, token: int) -> np.ndarray:
    """Return E (depth, draw, feature) in float64."""
    exact = perturbed[sample, :, :, token].astype(np.float64) - reference[sample, :, token]
    return exact.transpose(1, 0, 2)


@pytest.mark.parametrize("shape", [(1, 11), (4, 11), (11, 11), (17, 11), (4, 1), (33, 40)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gains_ranks_and_exponents(shape, dtype):
    states = paths(*shape, dtype)
    found = maps(*states)
    np.testing.assert_array_equal(found.rank, min(shape))
    for sample in range(SAMPLES):
        for token in range(TOKENS):
            moved = deviations(*states, sample, token)
            expected = [oracle.gains(*pair) for pair in pairwise(moved)]
            np.testing.assert_allclose(found.singular_value[sample, :, token], expected, **FLOAT64)
            if shape[0] <= shape[1]:  # of more draws than features the oracle's frame has no place for all
                np.testing.assert_allclose(found.exponent[sample, :, token], oracle.benettin(moved), **FLOAT64)


def test_a_late_push_starts_there_and_only_where_it_arrives():
    reference, perturbed = paths(4, 11)
    perturbed[:, :, :2] = reference[:, None, :2]
    perturbed[1, :, :4, 0] = reference[1, :4, 0]
    perturbed[2, :, :, 1] = reference[2, :, 1]
    found = maps(reference, perturbed)
    for sample, token, start in [(0, 0, 2), (0, 1, 2), (1, 0, 4), (1, 1, 2), (2, 0, 2), (2, 1, 5)]:
        np.testing.assert_array_equal(found.rank[sample, :start, token], 0)
        np.testing.assert_array_equal(found.rank[sample, start:, token], 4)
        assert np.isnan(found.singular_value[sample, :start, token]).all()
        assert np.isnan(found.exponent[sample, :start, token]).all()
        if start < DEPTHS - 1:
            moved = deviations(reference, perturbed, sample, token)[start:]
            np.testing.assert_allclose(found.exponent[sample, start:, token], oracle.benettin(moved), **FLOAT64)


@pytest.mark.parametrize("size", [1e-290, 1e-160, 1e160, 1e290])
def test_neither_over_nor_underflows(size):
    reference, perturbed = paths(4, 11)
    expected, found = maps(reference, perturbed), maps(reference * size, perturbed * size)
    for name in expected._fields:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), **FLOAT64)
    growing = size ** (np.arange(DEPTHS) / DEPTHS)[:, None, None]
    found = maps(reference * growing, perturbed * growing)
    step = size ** (1 / DEPTHS)
    np.testing.assert_allclose(found.singular_value / step, expected.singular_value, **FLOAT64)
    np.testing.assert_allclose(found.exponent, expected.exponent + np.log(step), **FLOAT64)


def test_fewer_modes_are_the_first():
    reference, perturbed = paths(5, 11)
    every = maps(reference, perturbed)
    first = tangent.deviation_maps(reference, perturbed, n_modes=2, rcond=1e-6, eps=2.0**-52)
    np.testing.assert_array_equal(first.singular_value, every.singular_value[..., :2])
    np.testing.assert_array_equal(first.exponent, every.exponent[..., :2])
    np.testing.assert_array_equal(first.rank, every.rank)


def test_the_number_of_threads_changes_nothing():
    reference, perturbed = paths(6, 11)
    whole = maps(reference, perturbed)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = maps(reference, perturbed)
    finally:
        numba.set_num_threads(before)
    for name in whole._fields:
        np.testing.assert_allclose(getattr(alone, name), getattr(whole, name), **EXACT)


@pytest.mark.parametrize("least", [1e-3, 1e-6, 1e-9])
def test_small_gains_beside_large_ones(least):
    """Relative to the largest gain they are right to rounding."""
    rng = np.random.default_rng(3)
    left, right = (np.linalg.qr(rng.normal(size=(17, 17)))[0] for _ in range(2))
    expected = np.geomspace(1, least, 17)
    before = np.eye(17) * 0.5
    states = np.stack([before, before @ (right.T * expected) @ left], axis=1)[None, :, :, None]
    found = maps(np.zeros((1, 2, 1, 17)), states).singular_value[0, 0, 0]
    np.testing.assert_allclose(found, expected, **FLOAT64)
    np.testing.assert_allclose(found, expected, **SINGULAR_VALUE)
