"""K-means on the unit sphere, as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from depthflow.errors import ParameterError, raise_faults, whole_number_fault
from depthflow.kernels import sphere
from depthflow.measures._estimator import (
    CHUNK,
    generator,
    norms_of,
    rows_of,
    tolerance_fault,
)
from depthflow.measures._lloyd import Directions, Partition, assign, directions, iterate, seed_centers, spread
from depthflow.measures._threads import Threads, threads


class SphericalKMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Clusters of directions: k-means on the unit sphere, with the cosine in place of the distance.

    The rows x_i count by their directions u_i = x_i/‖x_i‖ alone. Labels z and unit centers c minimise

        inertia = Σ_i (1 − ⟨u_i, c_{z_i}⟩),

    where a center is the mean direction of its rows (Dhillon and Modha 2001).

    Parameters
    ----------
    n_clusters : int, default 8
        Number of clusters, at most the number of rows.
    init : "k-means++" or array of shape (n_clusters, n_features)
        Greedy k-means++ on 1 − cos (Arthur and Vassilvitskii 2007), or the first centers, of any positive norm.
    n_init : int, default 4
        Number of starts, of which the one of least inertia is kept; an ``init`` array is one start.
    max_iter : int, default 100
        Largest number of iterations of one start.
    tol : float, default 1e-4
        A start ends when no center turns by more than this angle (rad) in an iteration, or when no label changes.
    random_state : int, numpy.random.RandomState or None
        Seed. The same one gives the same answer, whatever the number of threads.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of each row, 0 … n_clusters − 1.
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        Unit vectors, in float64.
    inertia_ : float
        Σ (1 − cos) of the rows to their centers, at least 0.
    n_iter_ : int
        Iterations of the start that was kept.
    n_features_in_ : int
        Number of features seen in ``fit``.

    Raises
    ------
    ParameterError
        In ``fit``, for every argument that is out of its range.
    TrajectoryError
        If a row has norm zero, and so no direction.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` came first, or if there are fewer distinct directions than clusters. A cluster that has run
        empty is given the row that is farthest from its center.

    Notes
    -----
    O(n_samples · n_features · n_clusters) time an iteration, as matrix products of chunks of rows on as many threads as
    the BLAS may use; one copy of the rows in memory, in their own precision (float32 or float64). Centers, sums and the
    inertia are in float64.

    References
    ----------
    I. S. Dhillon and D. S. Modha, Concept decompositions for large sparse text data using clustering, Machine Learning
    42 (2001), doi:10.1023/A:1007612920971. D. Arthur and S. Vassilvitskii, k-means++: the advantages of careful
    seeding, SODA 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from depthflow import SphericalKMeans
    >>> rows = np.array([[1.0, 0.1], [5.0, -0.5], [0.1, 2.0], [-0.2, 4.0]])
    >>> model = SphericalKMeans(n_clusters=2, random_state=0).fit(rows)
    >>> bool(model.labels_[0] == model.labels_[1] != model.labels_[2] == model.labels_[3])
    True
    >>> np.linalg.norm(model.cluster_centers_, axis=1)
    array([1., 1.])
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> SphericalKMeans:
        """Find the clusters of the rows of ``X`` (n_samples, n_features); ``y`` is not used."""
        self._check_arguments()
        rows = rows_of(self, X, reset=True)
        if len(rows) < self.n_clusters:
            raise ParameterError(
                f"SphericalKMeans needs at least n_clusters={self.n_clusters} rows; got n_samples={len(rows)}. "
                "Ask for fewer clusters."
            )
        with threads() as run:
            data = directions(rows, norms_of(rows, "SphericalKMeans", run), run)
            best = self._best(data, run)
        self._mean = data.mean
        self.cluster_centers_ = best.centers
        self.labels_ = best.labels
        self.inertia_ = best.inertia
        self.n_iter_ = best.n_iter
        self._n_features_out = self.n_clusters
        self._warn(best)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the cluster of each row of ``X``, that whose center is at the smallest angle (n_samples,)."""
        with threads() as run:
            return assign(self._directions(X, run), self.cluster_centers_, run)

    def transform(self, X: Any) -> np.ndarray:
        """Return 1 − cos of each row of ``X`` to each center (n_samples, n_clusters), in 0 … 2."""
        with threads() as run:
            data = self._directions(X, run)
            result = np.empty((len(data.values), self.n_clusters))
            shifted = self.cluster_centers_ - data.mean
            run.map(lambda part: sphere.mean_half_squares(data.values[part], shifted, result[part]), len(result), CHUNK)
        return result

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the inertia of the rows of ``X``, so that greater is better; ``y`` is not used."""
        with threads() as run:
            data = self._directions(X, run)
            labels = assign(data, self.cluster_centers_, run)
            return -float(spread(data, self.cluster_centers_, labels, run).sum())

    def _directions(self, X: Any, run: Threads) -> Directions:
        check_is_fitted(self)
        rows = rows_of(self, X, reset=False)
        return directions(rows, norms_of(rows, "SphericalKMeans", run), run, self._mean)

    def _best(self, data: Directions, run: Threads) -> Partition:
        """Return the outcome of least inertia over the starts; of equals the first."""
        if not isinstance(self.init, str):
            return iterate(data, self._given_centers(data), self.max_iter, self.tol, run)
        rng = generator(self.random_state)
        outcomes = []
        for _ in range(self.n_init):
            centers = seed_centers(data, self.n_clusters, rng, run)
            outcomes.append(iterate(data, centers, self.max_iter, self.tol, run))
        return min(outcomes, key=lambda outcome: outcome.inertia)

    def _given_centers(self, data: Directions) -> np.ndarray:
        centers = np.asarray(self.init)
        expected = (self.n_clusters, data.values.shape[1])
        if centers.shape != expected or centers.dtype.kind not in "fiu":
            raise ParameterError(
                f"SphericalKMeans needs init as 'k-means++' or an array of numbers of shape {expected}; got shape "
                f"{centers.shape}, dtype {centers.dtype}."
            )
        centers = centers.astype(np.float64)
        length = np.linalg.norm(centers, axis=1, keepdims=True)
        if not np.all((length > 0) & np.isfinite(length)):
            raise ParameterError("SphericalKMeans needs init's centers finite and of positive norm.")
        unit: np.ndarray = centers / length
        return unit

    def _check_arguments(self) -> None:
        faults = [
            *whole_number_fault("n_clusters", self.n_clusters),
            *whole_number_fault("n_init", self.n_init),
            *whole_number_fault("max_iter", self.max_iter),
            *tolerance_fault(self.tol),
        ]
        if isinstance(self.init, str) and self.init != "k-means++":
            faults.append(f"needs init as 'k-means++' or an array of centers; got {self.init!r}.")
        raise_faults(ParameterError, "SphericalKMeans", faults)

    def _warn(self, outcome: Partition) -> None:
        found = len(np.unique(outcome.labels))
        if found < self.n_clusters:
            warnings.warn(
                f"SphericalKMeans found {found} distinct directions for n_clusters={self.n_clusters}: the other "
                "clusters are empty.",
                ConvergenceWarning,
                stacklevel=3,
            )
        elif not outcome.settled:
            warnings.warn(
                f"SphericalKMeans had not settled to tol={self.tol} rad after max_iter={self.max_iter} iterations. "
                "Raise max_iter, or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
