"""The angular kernel against extended precision: everyday states, tiny and huge steps, and angles of every size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from depthflow.kernels import angular
from tests.oracles import angular as oracle
from tests.tolerances import EXACT, FLOAT64, SMALL_ANGLE

SAMPLES, DEPTHS, TOKENS, FEATURES = 3, 6, 7, 11
FIELDS = [field for field in angular.Paths._fields if field != "settled"]


def compare(states: np.ndarray, reference: int | np.ndarray, tolerance: float = 1.0) -> None:
    if isinstance(reference, int):
        directions = states[:, reference]
    else:
        directions = np.broadcast_to(reference, (states.shape[0], *states.shape[2:]))
    expected = oracle.paths(states, directions, tolerance)
    result = angular.paths(states, reference, tolerance=tolerance)
    for name in FIELDS:
        assert_allclose(getattr(result, name), expected[name], **FLOAT64, err_msg=name)
    never = np.nan_to_num(expected["settling_depth"], nan=states.shape[1])
    assert_array_equal(result.settled, never)


def random_states(dtype: type, depths: int = DEPTHS) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(SAMPLES, depths, TOKENS, FEATURES)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depths", [2, 5, DEPTHS])
@pytest.mark.parametrize("reference", [0, -1])
def test_everyday_states(dtype: type, depths: int, reference: int) -> None:
    compare(random_states(dtype, depths), reference % depths)


@pytest.mark.parametrize(
    "shape", [(1, 1, FEATURES), (SAMPLES, 1, FEATURES), (1, TOKENS, FEATURES), (SAMPLES, TOKENS, FEATURES)]
)
def test_given_directions(shape: tuple[int, ...]) -> None:
    compare(random_states(np.float32), np.random.default_rng(2).normal(size=shape))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_tokens_and_features_than_a_tile_and_a_vector(dtype: type) -> None:
    states = np.random.default_rng(3).normal(size=(2, 5, angular.TILE + 3, 67)).astype(dtype)
    compare(states, 4)


@pytest.mark.parametrize("step", [1e-1, 1e-2, 1e-3, 1e-5, 1e2])
def test_updates_of_every_size_beside_their_states(step: float) -> None:
    rng = np.random.default_rng(4)
    start = rng.normal(size=(SAMPLES, 1, TOKENS, FEATURES))
    compare(start + step * np.cumsum(rng.normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES)), axis=1), 5)


def test_one_feature_far_larger_than_the_others() -> None:
    states = random_states(np.float32)
    states[..., 3] = 1e4
    compare(states, 5)


def test_norms_that_fall_and_rise_by_orders_of_magnitude() -> None:
    states = random_states(np.float64) * np.array([1.0, 1e5, 1e-4, 1.0, 1e8, 1.0])[:, np.newaxis, np.newaxis]
    compare(states, 5)


def planar(angles: np.ndarray, dtype: type) -> np.ndarray:
    """Return states (1, angle, 1, feature): a fixed direction, each followed by one at the given angle to it."""
    rng = np.random.default_rng(5)
    first, second = np.linalg.qr(rng.normal(size=(67, 2)))[0].T
    turned = np.cos(angles)[:, np.newaxis] * first + np.sin(angles)[:, np.newaxis] * second
    lengths = rng.uniform(0.5, 2.0, size=(len(angles), 1))
    return (lengths * turned)[np.newaxis, :, np.newaxis].astype(dtype)


SIZES = np.concatenate([[0.0], np.logspace(-9, 0, 46), np.pi - np.logspace(-6, 0, 12)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_angles_of_every_size_for_the_numbers_as_given(dtype: type) -> None:
    states = planar(SIZES, dtype)
    rows = states[0, :, 0]
    result = angular.paths(states, 0)
    assert_allclose(result.angle[0, :, 0], [oracle.angle(rows[0], row) for row in rows], **SMALL_ANGLE)
    steps = [oracle.angle(row, after) for row, after in pairwise(rows)]
    assert_allclose(result.speed[0, :, 0], steps, **SMALL_ANGLE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_turning_angles_of_every_size(dtype: type) -> None:
    """Three states a path: the update, and one turned by the given angle, beside a state 30 times as long."""
    update = planar(np.array([0.0]), np.float64)[0, 0, 0]
    turned = planar(SIZES, np.float64)[0, :, 0]
    start = 30 * np.random.default_rng(6).normal(size=update.size)
    tokens = np.stack([np.stack([start, start + update, start + update + second]) for second in turned], axis=1)
    states = tokens[np.newaxis].astype(dtype)
    exact = states.astype(np.longdouble)
    first, second = exact[0, 1] - exact[0, 0], exact[0, 2] - exact[0, 1]
    expected = [oracle.angle(a, b) for a, b in zip(first, second, strict=True)]
    assert_allclose(angular.paths(states, 2).turning[0, 1], expected, **SMALL_ANGLE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identical_states_are_at_angle_exactly_zero(dtype: type) -> None:
    states = np.repeat(random_states(dtype)[:, :1], DEPTHS, axis=1)
    for reference in (DEPTHS - 1, 2, states[:, 0]):
        result = angular.paths(states, reference)
        assert_allclose(result.angle, 0.0, **EXACT)
        assert_allclose(result.speed, 0.0, **EXACT)
        assert_allclose(result.path_length, 0.0, **EXACT)
        assert np.isnan(result.straightness).all()
        assert np.isnan(result.turning).all()


def test_states_without_a_direction_touch_only_what_depends_on_them() -> None:
    states = random_states(np.float64)
    states[1, 2, 3] = 0.0
    states[0, 4, 5, 6] = np.inf
    states[2, 0, 1, 0] = np.nan
    compare(states[1:2], 5)
    result = angular.paths(states, 5)
    whole = angular.paths(random_states(np.float64), 5)
    assert_array_equal(np.argwhere(np.isnan(result.angle)), [[0, 4, 5], [1, 2, 3], [2, 0, 1]])
    assert_array_equal(np.argwhere(np.isnan(result.speed)), [[0, 3, 5], [0, 4, 5], [1, 1, 3], [1, 2, 3], [2, 0, 1]])
    untouched = ~np.isnan(result.speed)
    assert_allclose(result.speed[untouched], whole.speed[untouched], **EXACT)


def test_without_updates_the_rest_is_the_same() -> None:
    states = random_states(np.float32)
    whole, part = angular.paths(states, 5), angular.paths(states, 5, updates=False)
    for name in ("norm", "alignment", "angle", "speed", "path_length", "straightness", "settled"):
        assert_allclose(getattr(part, name), getattr(whole, name), **FLOAT64)
    assert part.turning.size == part.update_norm.size == part.radial_fraction.size == 0


def test_the_answer_does_not_depend_on_the_number_of_threads() -> None:
    import numba

    states = random_states(np.float32)
    threads = numba.get_num_threads()
    whole = angular.paths(states, 5)
    numba.set_num_threads(1)
    try:
        alone = angular.paths(states, 5)
    finally:
        numba.set_num_threads(threads)
    for one, other in zip(whole, alone, strict=True):
        assert_array_equal(one, other)
