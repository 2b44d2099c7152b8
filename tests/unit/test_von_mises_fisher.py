"""VonMisesFisherMixture as an estimator: scikit-learn's checks, its arguments, degenerate components."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from depthflow import VonMisesFisherMixture
from depthflow.errors import ParameterError, TrajectoryError
from depthflow.kernels.bessel import MAX_CONCENTRATION
from tests.tolerances import EXACT, FLOAT64

DECLARED = {"check_estimators_dtypes": "its random integers hold a row of zeros, which has no direction"}


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(23, 11))


@parametrize_with_checks(
    [VonMisesFisherMixture(), VonMisesFisherMixture(3, max_iter=500)], expected_failed_checks=lambda _: DECLARED
)
def test_scikit_learn_conventions(estimator: Any, check: Any) -> None:
    check(estimator)


def test_fitted_attributes(rows: np.ndarray) -> None:
    model = VonMisesFisherMixture(3, random_state=0).fit(rows)
    assert model.means_.shape == (3, 11)
    np.testing.assert_allclose(np.linalg.norm(model.means_, axis=1), 1, **FLOAT64)
    assert model.concentrations_.shape == (3,)
    assert np.all(model.concentrations_ >= 0)
    np.testing.assert_allclose(model.weights_.sum(), 1, **FLOAT64)
    assert 1 <= model.n_iter_ <= 100


def test_predictions_agree(rows: np.ndarray) -> None:
    model = VonMisesFisherMixture(3, random_state=0).fit(rows)
    share = model.predict_proba(rows)
    assert share.shape == (23, 3)
    np.testing.assert_allclose(share.sum(axis=1), 1, **FLOAT64)
    np.testing.assert_array_equal(model.predict(rows), share.argmax(axis=1))
    np.testing.assert_allclose(model.score(rows), model.score_samples(rows).mean(), **EXACT)


def test_the_norm_of_a_row_does_not_matter(rows: np.ndarray) -> None:
    model = VonMisesFisherMixture(2, random_state=0).fit(rows)
    scaled = VonMisesFisherMixture(2, random_state=0).fit(4 * rows)
    np.testing.assert_array_equal(scaled.means_, model.means_)
    np.testing.assert_array_equal(model.score_samples(8 * rows), model.score_samples(rows))


def test_float32_rows_lose_no_more_than_their_own_rounding(rows: np.ndarray) -> None:
    rounded = rows.astype(np.float32)
    single = VonMisesFisherMixture(2, random_state=0).fit(rounded)
    double = VonMisesFisherMixture(2, random_state=0).fit(rounded.astype(np.float64))
    np.testing.assert_allclose(single.means_, double.means_, **FLOAT64)
    np.testing.assert_allclose(single.concentrations_, double.concentrations_, **FLOAT64)


def test_a_component_of_one_row_has_the_pooled_concentration(rows: np.ndarray) -> None:
    """A pair at angle 2a has R̄ = cos a; pooled over n − k = 1 degree of freedom, 1 − R̄ becomes 2(1 − cos a)."""
    a = 0.01
    states = np.array([[np.cos(a), np.sin(a), 0], [np.cos(a), -np.sin(a), 0], [0, 0, 1.0]])
    model = VonMisesFisherMixture(2, random_state=0).fit(states)
    lone, pair = np.argsort(model.weights_)
    np.testing.assert_allclose(_spread(model.concentrations_[pair]), 1 - np.cos(a), **FLOAT64)
    np.testing.assert_allclose(_spread(model.concentrations_[lone]), 2 * (1 - np.cos(a)), **FLOAT64)


def _spread(kappa: float) -> float:
    """Return 1 − A_3(κ) = 1 − coth κ + 1/κ."""
    return float(1 - 1 / np.tanh(kappa) + 1 / kappa)


@pytest.mark.parametrize("count", [1, 4])
def test_rows_of_one_direction_are_as_concentrated_as_can_be(count: int, rows: np.ndarray) -> None:
    model = VonMisesFisherMixture().fit(np.tile(rows[0], (count, 1)))
    np.testing.assert_allclose(model.concentrations_, MAX_CONCENTRATION, **EXACT)
    assert np.isfinite(model.score(rows))


def test_more_components_than_directions_leave_some_unused(rows: np.ndarray) -> None:
    model = VonMisesFisherMixture(4, random_state=0).fit(np.repeat(rows[:2], 5, axis=0))
    assert np.isfinite(model.score(rows))
    np.testing.assert_allclose(model.weights_.sum(), 1, **FLOAT64)
    assert len(np.unique(model.predict(rows[:2]))) == 2


def test_rows_that_cancel_are_uniform() -> None:
    model = VonMisesFisherMixture().fit(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    np.testing.assert_allclose(np.linalg.norm(model.means_), 1, **FLOAT64)
    np.testing.assert_allclose(model.concentrations_, 0, **FLOAT64)


def test_an_early_end_is_said(rows: np.ndarray) -> None:
    with pytest.warns(ConvergenceWarning, match="still gained more than tol=0 after max_iter=1 iterations"):
        VonMisesFisherMixture(3, max_iter=1, tol=0, random_state=0).fit(rows)


def test_a_row_without_direction_is_named(rows: np.ndarray) -> None:
    rows[5] = 0
    with pytest.raises(
        TrajectoryError, match=r"VonMisesFisherMixture found a zero-norm row.*first at row 5 \(1 in all\)"
    ):
        VonMisesFisherMixture().fit(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_components": 0}, "needs n_components as a whole number from 1; got 0"),
        ({"n_init": 0}, "needs n_init as a whole number from 1; got 0"),
        ({"max_iter": 1.5}, "needs max_iter as a whole number from 1; got 1.5"),
        ({"tol": np.inf}, "needs tol as a finite number of at least 0; got inf"),
        ({"n_components": 24}, "needs at least n_components=24 rows; got n_samples=23. Ask for fewer components."),
    ],
)
def test_bad_arguments(rows: np.ndarray, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        VonMisesFisherMixture(**arguments).fit(rows)


def test_all_bad_arguments_are_listed(rows: np.ndarray) -> None:
    with pytest.raises(ParameterError, match="2 faults"):
        VonMisesFisherMixture(0, max_iter=0).fit(rows)


def test_a_component_at_the_border_of_one_row_settles() -> None:
    rows = 3 * np.random.RandomState(0).uniform(size=(20, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(20):
            VonMisesFisherMixture(3, n_init=1, random_state=seed).fit(rows)
