"""The mixture of von Mises–Fisher distributions, as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from depthflow.errors import ParameterError, raise_faults, whole_number_fault
from depthflow.measures._estimator import (
    CHUNK,
    generator,
    norms_of,
    rows_of,
    tolerance_fault,
)
from depthflow.measures._lloyd import directions
from depthflow.measures._mixture import Components, Units, best_estimate, bic, log_joint, normalise
from depthflow.measures._threads import threads


class VonMisesFisherMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A density of directions: a mixture of von Mises–Fisher distributions, fitted by maximum likelihood.

    The rows x_i count by their directions u_i = x_i/‖x_i‖ alone, whose density on the unit sphere of R^D is

        Σ_k w_k C_D(κ_k) exp(κ_k⟨μ_k, u⟩),   C_D(κ) = κ^{D/2−1} / ((2π)^{D/2} I_{D/2−1}(κ)).

    Parameters
    ----------
    n_components : int, default 1
        Number of components k, at most the number of rows.
    n_init : int, default 4
        Number of runs of spherical k-means; the one whose clusters make the likeliest components is the start.
    max_iter : int, default 100
        Largest number of iterations.
    tol : float, default 1e-4
        The iteration ends when the mean log-likelihood of a row changes by no more than this.
    random_state : int, numpy.random.RandomState or None
        Seed. The same one gives the same answer, whatever the number of threads.

    Attributes
    ----------
    means_ : ndarray of shape (n_components, n_features)
        Mean directions μ, unit vectors.
    concentrations_ : ndarray of shape (n_components,)
        Concentrations κ in 0 … 1e10: 0 is uniform, and (D − 1)/κ is about the mean square angle to μ in rad².
    weights_ : ndarray of shape (n_components,)
        Shares w, which sum to one.
    n_iter_ : int
        Iterations done.
    n_features_in_ : int
        Number of features D seen in ``fit``.

    Raises
    ------
    ParameterError
        In ``fit``, for every argument that is out of its range.
    TrajectoryError
        If a row has norm zero, and so no direction.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` came first.

    Notes
    -----
    Expectation–maximisation (Banerjee et al. 2005). κ solves A_D(κ) = I_{D/2}(κ)/I_{D/2−1}(κ) = R̄, the component's mean
    resultant length, by Newton's method to convergence, where Sra (2012) takes two steps from the same start; I_ν comes
    from its uniform expansion for large order (DLMF 10.41), so that neither D nor κ over- or underflows. A component
    that comes down to a single row has no spread, and from then on takes the concentration pooled over all; one whose
    rows share one direction has κ = 1e10.

    O(n_samples · n_features · n_components) time an iteration, in float64, chunk by chunk; one copy of the rows in
    memory, in their own precision.

    References
    ----------
    A. Banerjee, I. S. Dhillon, J. Ghosh and S. Sra, Clustering on the unit hypersphere using von Mises–Fisher
    distributions, JMLR 6 (2005). S. Sra, A short note on parameter approximation for von Mises–Fisher distributions,
    Computational Statistics 27 (2012), doi:10.1007/s00180-011-0232-x.

    Examples
    --------
    >>> import numpy as np
    >>> from depthflow import VonMisesFisherMixture
    >>> rows = np.array([[1.0, 0.1], [5.0, -0.5], [1.0, 0.0], [0.1, 2.0], [-0.2, 4.0], [0.0, 1.0]])
    >>> model = VonMisesFisherMixture(n_components=2, random_state=0).fit(rows)
    >>> model.weights_
    array([0.5, 0.5])
    >>> bool(model.bic(rows) < VonMisesFisherMixture().fit(rows).bic(rows))
    True
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> VonMisesFisherMixture:
        """Fit the mixture to the rows of ``X`` (n_samples, n_features); ``y`` is not used."""
        faults = [
            *whole_number_fault("n_components", self.n_components),
            *whole_number_fault("n_init", self.n_init),
            *whole_number_fault("max_iter", self.max_iter),
            *tolerance_fault(self.tol),
        ]
        raise_faults(ParameterError, "VonMisesFisherMixture", faults)
        rows = rows_of(self, X, reset=True)
        if len(rows) < self.n_components:
            raise ParameterError(
                f"VonMisesFisherMixture needs at least n_components={self.n_components} rows; got "
                f"n_samples={len(rows)}. Ask for fewer components."
            )
        with threads() as run:
            units = Units(rows, norms_of(rows, "VonMisesFisherMixture", run))
            best = best_estimate(
                units,
                directions(*units, run),
                self.n_components,
                n_init=self.n_init,
                max_iter=self.max_iter,
                tol=self.tol,
                rng=generator(self.random_state),
                run=run,
            )
        self.means_, self.concentrations_, self.weights_ = best.components
        self.n_iter_ = best.n_iter
        if not best.settled:
            warnings.warn(
                f"VonMisesFisherMixture still gained more than tol={self.tol} after max_iter={self.max_iter} "
                "iterations. Raise max_iter, or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the component that most probably gave each row of ``X`` (n_samples,)."""
        component: np.ndarray = self._evaluate(X)[1].argmax(axis=1)
        return component

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each component given each row of ``X`` (n_samples, n_components)."""
        return self._evaluate(X)[1]

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log density at each row's direction, with respect to area on the sphere (n_samples,)."""
        return self._evaluate(X)[0]

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log density of the rows of ``X``; ``y`` is not used."""
        return float(self.score_samples(X).mean())

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion −2 ln L + p ln n on ``X``; the lower, the better.

        p = k(D − 1) + k + (k − 1): the mean directions, the concentrations and the weights.
        """
        density = self.score_samples(X)
        return bic(float(density.mean()), len(density), self.n_components, self.n_features_in_)

    def _evaluate(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the log density of each row, and the probability of each component given it."""
        check_is_fitted(self)
        rows = rows_of(self, X, reset=False)
        components = Components(self.means_, self.concentrations_, self.weights_)
        density, share = np.empty(len(rows)), np.empty((len(rows), self.n_components))
        with threads() as run:
            units = Units(rows, norms_of(rows, "VonMisesFisherMixture", run))

            def evaluate(part: slice) -> None:
                density[part], share[part] = normalise(log_joint(units.part(part), components))

            run.map(evaluate, len(rows), CHUNK)
        return density, share
