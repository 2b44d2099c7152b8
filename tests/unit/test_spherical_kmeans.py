"""SphericalKMeans as an estimator: scikit-learn's checks, its arguments, empty clusters, narrow caps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from depthflow import SphericalKMeans
from depthflow.errors import ParameterError, TrajectoryError
from tests.tolerances import FLOAT64

DECLARED = {"check_estimators_dtypes": "its random integers hold a row of zeros, which has no direction"}


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(23, 11))


@parametrize_with_checks([SphericalKMeans(n_clusters=3)], expected_failed_checks=lambda _: DECLARED)
def test_scikit_learn_conventions(estimator: Any, check: Any) -> None:
    check(estimator)


def test_fitted_attributes(rows: np.ndarray) -> None:
    model = SphericalKMeans(3, random_state=0).fit(rows)
    assert model.labels_.shape == (23,)
    assert set(model.labels_) == {0, 1, 2}
    assert model.cluster_centers_.shape == (3, 11)
    np.testing.assert_allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, **FLOAT64)
    assert 1 <= model.n_iter_ <= 100
    assert model.transform(rows).shape == (23, 3)
    np.testing.assert_allclose(model.transform(rows).min(axis=1).sum(), model.inertia_, **FLOAT64)
    assert model.get_feature_names_out().tolist() == [f"sphericalkmeans{k}" for k in range(3)]


def test_the_same_seed_gives_the_same_answer(rows: np.ndarray) -> None:
    first, second = (SphericalKMeans(5, random_state=3).fit(rows) for _ in range(2))
    np.testing.assert_array_equal(first.cluster_centers_, second.cluster_centers_)
    np.testing.assert_array_equal(first.labels_, second.labels_)


def test_more_starts_are_never_worse(rows: np.ndarray) -> None:
    inertia = [SphericalKMeans(5, n_init=n, random_state=3).fit(rows).inertia_ for n in (1, 2, 8)]
    assert inertia[0] >= inertia[1] >= inertia[2]


def test_given_centers_are_the_start(rows: np.ndarray) -> None:
    model = SphericalKMeans(2, init=5 * rows[:2], max_iter=1, tol=10.0).fit(rows)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    near = (units @ units[:2].T).argmax(axis=1)
    means = np.stack([units[near == k].mean(axis=0) for k in range(2)])
    np.testing.assert_allclose(model.cluster_centers_, means / np.linalg.norm(means, axis=1, keepdims=True), **FLOAT64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("radius", [1e-1, 1e-3, 1e-5])
def test_clusters_within_a_narrow_cap_are_told_apart(dtype: type, radius: float) -> None:
    """Their cosines agree to radius², far below float32's resolution."""
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(4), 50)
    means = rng.normal(size=(4, 64))
    rows = 8 * rng.normal(size=64) + radius * (means[own] + 0.1 * rng.normal(size=(200, 64)))
    model = SphericalKMeans(4, random_state=0).fit(rows.astype(dtype))
    assert len({(a, b) for a, b in zip(own, model.labels_, strict=True)}) == 4


def test_the_objective_matches_kmeans_on_unit_vectors() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10, 23))[rng.integers(10, size=600)] + rng.normal(size=(600, 23))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for seed in range(5):
        theirs = KMeans(10, n_init=4, random_state=seed).fit(units)
        centers = theirs.cluster_centers_ / np.linalg.norm(theirs.cluster_centers_, axis=1, keepdims=True)
        ours = SphericalKMeans(10, random_state=seed).fit(rows)
        assert ours.inertia_ <= 1.005 * np.sum(1 - (units @ centers.T).max(axis=1))


def test_an_empty_cluster_is_given_the_farthest_row() -> None:
    turn = np.array([0.0, 0.1, 0.2, 1.0])
    rows = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    behind = -rows[[0]]
    model = SphericalKMeans(2, init=np.vstack([rows[[0]], behind])).fit(rows)
    np.testing.assert_array_equal(model.labels_, [0, 0, 0, 1])


def test_rows_that_cancel_keep_their_center() -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    model = SphericalKMeans(1, init=[[0.0, 1.0]]).fit(rows)
    np.testing.assert_allclose(model.cluster_centers_, [[0, 1]], **FLOAT64)
    np.testing.assert_allclose(model.inertia_, 2, **FLOAT64)


def test_fewer_directions_than_clusters_is_said(rows: np.ndarray) -> None:
    repeated = np.vstack([rows[:2], 2 * rows[:2], 3 * rows[:2]])
    with pytest.warns(ConvergenceWarning, match="found 2 distinct directions for n_clusters=3: the other"):
        model = SphericalKMeans(3, random_state=0).fit(repeated.astype(np.float32))
    np.testing.assert_allclose(model.inertia_, 0, **FLOAT64)


def test_an_early_end_is_said(rows: np.ndarray) -> None:
    with pytest.warns(
        ConvergenceWarning, match=r"not settled to tol=0 rad after max_iter=1 iterations. Raise max_iter"
    ):
        SphericalKMeans(3, max_iter=1, tol=0, random_state=0).fit(rows)


@pytest.mark.parametrize("value", [0.0, np.nextafter(0, 1)])
def test_a_row_without_direction_is_named(rows: np.ndarray, value: float) -> None:
    rows[[5, 9]] = 0
    rows[[5, 9], 0] = value
    message = r"found a zero-norm row, which has no direction, first at row 5 \(2 in all\). Remove such rows."
    with pytest.raises(TrajectoryError, match=message):
        SphericalKMeans(3).fit(rows)
    with pytest.raises(TrajectoryError, match="first at row 0"):
        SphericalKMeans(3, random_state=0).fit(np.delete(rows, [5, 9], axis=0)).predict(rows[[5]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters": 0}, "needs n_clusters as a whole number from 1; got 0"),
        ({"n_clusters": 2.0}, "needs n_clusters as a whole number from 1; got 2.0"),
        ({"n_init": True}, "needs n_init as a whole number from 1; got True"),
        ({"max_iter": 0}, "needs max_iter as a whole number from 1; got 0"),
        ({"tol": -1.0}, "needs tol as a finite number of at least 0; got -1.0"),
        ({"tol": np.nan}, "needs tol as a finite number of at least 0; got nan"),
        ({"init": "random"}, "needs init as 'k-means\\+\\+' or an array of centers; got 'random'"),
        ({"n_clusters": 24}, "needs at least n_clusters=24 rows; got n_samples=23. Ask for fewer clusters."),
        ({"n_clusters": 2, "init": np.ones((3, 11))}, r"of shape \(2, 11\); got shape \(3, 11\), dtype float64"),
        ({"n_clusters": 2, "init": np.zeros((2, 11))}, "needs init's centers finite and of positive norm"),
    ],
)
def test_bad_arguments(rows: np.ndarray, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        SphericalKMeans(**arguments).fit(rows)


def test_all_bad_arguments_are_listed(rows: np.ndarray) -> None:
    with pytest.raises(ParameterError, match="3 faults") as caught:
        SphericalKMeans(0, n_init=0, tol="small").fit(rows)
    assert all(name in str(caught.value) for name in ("n_clusters", "n_init", "tol"))


def test_one_feature_has_no_directions() -> None:
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        SphericalKMeans(1).fit(np.ones((3, 1)))
