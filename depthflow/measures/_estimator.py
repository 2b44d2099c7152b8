"""What the two estimators share: the checks of their arguments and the directions of their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from depthflow.errors import TrajectoryError
from depthflow.kernels import sphere

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from depthflow.measures._threads import Threads

CHUNK = 1024
"""Rows a thread takes at once: their products with the centers stay in its cache."""


def tolerance_fault(value: object) -> list[str]:
    """Return the fault of a ``tol`` that is not a finite number of at least zero."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 <= value < np.inf:
        return []
    return [f"needs tol as a finite number of at least 0; got {value!r}."]


def generator(random_state: Any) -> np.random.Generator:
    """Return a generator seeded as scikit-learn reads ``random_state``."""
    return np.random.default_rng(check_random_state(random_state).randint(2**31, size=4))


def rows_of(estimator: BaseEstimator, X: Any, *, reset: bool) -> np.ndarray:
    """Return ``X`` as a contiguous float32 or float64 array after scikit-learn's own checks."""
    checked: np.ndarray = validate_data(
        estimator,
        X,
        reset=reset,
        dtype=[np.float64, np.float32],
        order="C",
        ensure_min_features=2 if reset else 1,
    )
    return checked


def norms_of(rows: np.ndarray, what: str, run: Threads) -> np.ndarray:
    """Return the rows' norms in float64, or raise for the first that has no direction."""
    result = np.empty(len(rows))
    run.map(lambda part: sphere.norms(rows[part], result[part]), len(rows), CHUNK)
    bad = np.flatnonzero(~((result > 0) & np.isfinite(result)))
    if len(bad):
        problem = "a zero-norm row" if result[bad[0]] == 0 else f"a row of norm {result[bad[0]]}"
        raise TrajectoryError(
            f"{what} found {problem}, which has no direction, first at row {bad[0]} ({len(bad)} in all). "
            "Remove such rows."
        )
    return result
