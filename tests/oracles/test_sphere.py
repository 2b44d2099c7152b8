"""The kernels of the sphere against their definitions, and the Bessel functions against three independent routes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special

from depthflow.kernels import bessel, sphere
from tests.oracles import sphere as oracle
from tests.tolerances import EXACT, FLOAT32, FLOAT64, SMALL_ANGLE

DIMENSIONS = [2, 3, 7, 64, 81, 384, 1024]
CONCENTRATIONS = [0.0, 1e-8, 1e-2, 1.0, 17.0, 300.0, 1e4, 1e6]
PRECISIONS = [np.float32, np.float64]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("kappa", CONCENTRATIONS)
def test_log_normalizer_and_mean_resultant_are_exact(dimension: int, kappa: float) -> None:
    ratio, rest = oracle.mean_resultant(dimension, kappa)
    _, _, d = bessel.bessel(dimension / 2 - 1, kappa)
    np.testing.assert_allclose(
        bessel.log_normalizer(dimension, kappa), oracle.log_normalizer(dimension, kappa), **FLOAT64
    )
    np.testing.assert_allclose(bessel.mean_resultant(dimension, kappa), ratio, **FLOAT64)
    np.testing.assert_allclose(d / rest, 1.0, **FLOAT64)


@pytest.mark.parametrize("order", [0.0, 0.5, 3.0, 25.5])
def test_log_bessel_agrees_with_scipy_where_that_does_not_underflow(order: float) -> None:
    x = np.array([0.1, 1.0, 10.0, 200.0, 5000.0])
    ours = np.array([bessel.bessel(order, value)[0] for value in x])
    np.testing.assert_allclose(ours, np.log(special.ive(order, x)) - order * np.log(x), **FLOAT64)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("kappa", CONCENTRATIONS[1:])
def test_mean_resultant_obeys_the_recurrence_and_the_bounds_of_amos(dimension: int, kappa: float) -> None:
    """1/A_D = D/κ + A_{D+2}; bounds: Amos 1974, doi:10.1090/S0025-5718-1974-0333287-7."""
    ratio = bessel.mean_resultant(dimension, kappa)
    order = dimension / 2 - 1
    np.testing.assert_allclose(1 / ratio, dimension / kappa + bessel.mean_resultant(dimension + 2, kappa), **FLOAT64)
    rounding = 1 + 1e-15
    assert kappa / (order + 0.5 + np.hypot(kappa, order + 1.5)) <= ratio * rounding
    assert ratio <= kappa / (order + 0.5 + np.hypot(kappa, order + 0.5)) * rounding


@pytest.mark.parametrize("dimension", [2, 3, 8, 30])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 40.0])
def test_density_integrates_to_one(dimension: int, kappa: float) -> None:
    area = 2 * np.pi ** ((dimension - 1) / 2) / special.gamma((dimension - 1) / 2)
    constant = bessel.log_normalizer(dimension, kappa)

    def ring(theta: float) -> float:
        return area * np.sin(theta) ** (dimension - 2) * np.exp(constant + kappa * (np.cos(theta) - 1))

    total, _ = integrate.quad(ring, 0, np.pi, epsabs=0, epsrel=FLOAT64["rtol"])
    np.testing.assert_allclose(total, 1.0, **FLOAT64)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("resultant", [1e-9, 0.01, 0.3, 0.499, 0.5, 0.9, 0.999, 0.999999])
def test_concentration_inverts_the_mean_resultant(dimension: int, resultant: float) -> None:
    kappa = bessel.concentration(dimension, resultant)
    np.testing.assert_allclose(bessel.mean_resultant(dimension, kappa), resultant, **FLOAT64)
    _, _, d = bessel.bessel(dimension / 2 - 1, kappa)
    np.testing.assert_allclose(d / (1 - resultant), 1.0, **FLOAT64)


def test_concentration_of_no_and_of_full_agreement() -> None:
    assert bessel.concentration(64, 0.0) == 0.0
    assert bessel.concentration(64, 1.0) == bessel.MAX_CONCENTRATION
    assert bessel.concentration(64, 1.0 + 1e-15) == bessel.MAX_CONCENTRATION


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_norms_and_mean_directions(dtype: type, rng: np.random.Generator) -> None:
    states = rng.normal(size=(3, 6, 7, 11)).astype(dtype)
    norm = np.empty((3, 6, 7))
    sphere.norms(states.reshape(-1, 11), norm.reshape(-1))
    np.testing.assert_allclose(norm, np.linalg.norm(states.astype(np.float64), axis=-1), **FLOAT64)
    mean = np.empty((3, 6, 11))
    sphere.mean_directions(states, norm, mean)
    expected = [[oracle.mean_direction(states[s, d]) for d in range(6)] for s in range(3)]
    np.testing.assert_allclose(mean, expected, **FLOAT64)


def test_directions_that_cancel_have_no_mean(rng: np.random.Generator) -> None:
    state = rng.normal(size=11)
    states = np.stack([state, -3 * state])[None, None]
    mean = np.zeros((1, 1, 11))
    sphere.mean_directions(states, np.linalg.norm(states, axis=-1), mean)
    assert np.isnan(mean).all()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_centered_units_and_their_sum(dtype: type, rng: np.random.Generator) -> None:
    states, mean = rng.normal(size=(7, 11)).astype(dtype), rng.normal(size=11)
    norm = np.linalg.norm(states.astype(np.float64), axis=1)
    units = states / norm[:, None]
    out, total = np.empty_like(states), np.ones(11)
    sphere.centered_units(states, norm, mean, out)
    sphere.add_units(states, norm, total)
    np.testing.assert_allclose(out, units - mean, **(FLOAT32 if dtype == np.float32 else FLOAT64))
    np.testing.assert_allclose(total, 1 + units.sum(axis=0), **FLOAT64)


def test_largest_takes_the_first_of_equals() -> None:
    products = np.array([[1.0, 2.0, 2.0], [5.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    out = np.empty(3, dtype=np.int64)
    sphere.largest(products, np.array([1.0, 0.0, 0.0]), out)
    np.testing.assert_array_equal(out, [0, 0, 2])


def test_move_sums_equals_the_difference_of_two_sums(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(23, 11)).astype(np.float32)
    old, new = rng.integers(-1, 4, size=23), rng.integers(0, 4, size=23)
    sums = np.zeros((4, 11))
    np.add.at(sums, old[old >= 0], rows[old >= 0])
    for first, last in ((0, 5), (5, 11)):
        sphere.move_sums(rows, old, new, first, last, sums)
    expected = np.zeros((4, 11))
    np.add.at(expected, new, rows)
    np.testing.assert_allclose(sums, expected, **FLOAT64)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_half_squares(dtype: type, rng: np.random.Generator) -> None:
    rows, centers = rng.normal(size=(7, 11)).astype(dtype), rng.normal(size=(3, 11))
    label = rng.integers(3, size=7)
    own, every = np.empty(7), np.empty((7, 3))
    sphere.half_squares(rows, centers, label, own)
    sphere.mean_half_squares(rows, centers, every)
    expected = [[0.5 * np.linalg.norm(row - center) ** 2 for center in centers] for row in rows.astype(np.float64)]
    np.testing.assert_allclose(every, expected, **FLOAT64)
    np.testing.assert_allclose(own, np.take_along_axis(every, label[:, None], axis=1)[:, 0], **EXACT)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_two_nearest(dtype: type, spread: float, rng: np.random.Generator) -> None:
    base = rng.normal(size=11)
    states = (base + spread * rng.normal(size=(23, 11))).astype(dtype)
    centers = base + spread * rng.normal(size=(5, 11))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    near, margin = np.empty(23, dtype=np.int64), np.empty(23)
    sphere.two_nearest(states, np.linalg.norm(states.astype(np.float64), axis=1), centers, near, margin)
    expected = [oracle.nearest(state, centers) for state in states]
    np.testing.assert_array_equal(near, [at for at, _ in expected])
    np.testing.assert_allclose(margin, [value for _, value in expected], **SMALL_ANGLE)


def test_two_nearest_of_one_center_and_of_equal_centers() -> None:
    states, norm = np.array([[1.0, 1.0]]), np.array([np.sqrt(2)])
    near, margin = np.empty(1, dtype=np.int64), np.empty(1)
    sphere.two_nearest(states, norm, np.array([[0.0, 1.0]]), near, margin)
    assert near[0] == 0
    assert np.isnan(margin[0])
    sphere.two_nearest(states, norm, np.array([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), near, margin)
    assert near[0] == 1
    assert margin[0] == 0


@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-8, 0.0])
def test_pair_angles(spread: float, rng: np.random.Generator) -> None:
    units = rng.normal(size=11) + spread * rng.normal(size=(9, 11))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    label = rng.integers(3, size=9)
    total, count = np.zeros(2), np.zeros(2, dtype=np.int64)
    for part in (slice(0, 4), slice(4, 9)):
        rest = units[part.start :]
        sphere.pair_angles(rest, label[part.start :], units[part] @ rest.T, total, count)
    within, between = oracle.label_angles(units, label)
    np.testing.assert_allclose(total / count, [between, within], **FLOAT64)
    assert count.sum() == 36
