"""Linear maps from states to later states, by least squares from sums of products that arrive part by part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import cho_solve, eigh, eigvalsh
from scipy.linalg.lapack import dpocon, dpotrf

from depthflow.errors import TrajectoryError
from depthflow.measures._accumulate import accumulated
from depthflow.measures._chunks import require_finite
from depthflow.measures._ufunc import Where, as_states

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

PIECE_BYTES = 16 * 2**20
"""States of a piece in float64: a few times this is the working memory, whatever the size of dask's chunks."""

RESOLVED = 1e-12
"""Least reciprocal condition number of a Gram matrix that still determines a map: the rounding of its sums and of its
factor, some 1e-14 at a thousand features, is well below."""

IMPRECISE = 1e-4
"""Below this reciprocal condition number the sums' rounding shows in the operator, and one correction removes it."""


def pieces(part: xr.DataArray, measure: str) -> Iterator[np.ndarray]:
    """Give the states of some samples as (depth, row, feature) in float64, row by sample, then token."""
    states = as_states(part.values)
    require_finite(states, Where.of(part), measure)
    samples, depths, tokens, features = states.shape
    size = max(1, PIECE_BYTES // (8 * depths * tokens * features))
    for start in range(0, samples, size):
        piece = states[start : start + size].transpose(1, 0, 2, 3).astype(np.float64, order="C")
        yield piece.reshape(depths, -1, features)


def require_squares(sums: np.ndarray, measure: str) -> None:
    """Raise if sums of the states' squares overflowed."""
    if not np.isfinite(sums).all():
        raise TrajectoryError(
            f"{measure}: the squares of the states overflow. Divide the states by their largest value."
        )


class Sums:
    """Sums of products of states at the depths of a span, over all rows (sample, token) that arrived.

    Attributes
    ----------
    rows : int
        How many these were.
    gram : numpy.ndarray
        (block, feature, feature): Σ x_{ℓ−1} x_{ℓ−1}ᵀ of each block's input.
    step : numpy.ndarray
        (block, feature, feature): Σ x_ℓ x_{ℓ−1}ᵀ.
    far : dict of int to numpy.ndarray
        Σ x_{ℓ+p} x_ℓᵀ over all starts ℓ, for each horizon p above 1.
    """

    def __init__(self, blocks: int, features: int, horizons: Sequence[int], measure: str) -> None:
        self.rows, self.measure = 0, measure
        self.gram = np.zeros((blocks, features, features))
        self.step = np.zeros_like(self.gram)
        self.far = {p: np.zeros((features, features)) for p in horizons if p > 1}

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples, of the span's depths."""
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is looked for at the end
            for states in pieces(part, self.measure):
                self._absorb(states)

    def merge(self, later: Sums) -> None:
        """Take in the samples of ``later``."""
        self.rows += later.rows
        self.gram += later.gram
        self.step += later.step
        for horizon, cross in self.far.items():
            cross += later.far[horizon]

    def _absorb(self, states: np.ndarray) -> None:
        """Take in ``states`` (depth, row, feature)."""
        self.rows += states.shape[1]
        for block in range(len(self.gram)):
            self.gram[block] += states[block].T @ states[block]
            self.step[block] += states[block + 1].T @ states[block]
        features = states.shape[-1]
        for horizon, cross in self.far.items():
            cross += states[horizon:].reshape(-1, features).T @ states[:-horizon].reshape(-1, features)


class Inputs:
    """The inverse of a Gram matrix G of inputs, regularised: of G + αI, or of its leading ``rank`` directions alone.

    Parameters
    ----------
    gram : numpy.ndarray
        (feature, feature), symmetric.
    rank : int or None
        How many leading eigenvectors of G the inputs are projected on.
    ridge : float
        α in units of G's mean eigenvalue, trace(G)/D.

    Attributes
    ----------
    alpha : float
        α itself.
    basis : numpy.ndarray or None
        (feature, rank): the leading eigenvectors.
    reciprocal : float
        Reciprocal condition number of what is inverted; with all directions, of G + αI scaled to a diagonal of ones,
        as the scale of a feature costs no accuracy (estimated in the 1-norm).
    """

    def __init__(self, gram: np.ndarray, rank: int | None, ridge: float) -> None:
        features = len(gram)
        self.alpha = _penalty(gram, ridge)
        self.basis = None
        if rank is None:
            regular, self._scale = _equilibrated(gram, self.alpha)
            self._factor, fault = dpotrf(regular, lower=1)
            self.reciprocal = 0.0
            if not fault:
                estimate, _ = dpocon(self._factor, np.abs(regular).sum(0).max(), uplo="L")
                self.reciprocal = float(estimate)
        else:
            values, vectors = eigh(gram, subset_by_index=(features - rank, features - 1))
            self._values, self.basis = values[::-1] + self.alpha, vectors[:, ::-1]
            largest = self._values[0]
            self.reciprocal = max(float(self._values[-1] / largest), 0.0) if largest > 0 else 0.0

    @property
    def resolved(self) -> bool:
        """Whether the inputs determine a map."""
        return self.reciprocal > RESOLVED

    def map_of(self, cross: np.ndarray) -> np.ndarray:
        """Return the map K (feature_out, feature) of least squares from Σ y xᵀ (feature_out, feature)."""
        found: np.ndarray
        if self.basis is not None:
            found = (cross @ self.basis / self._values) @ self.basis.T
        else:
            found = cho_solve((self._factor, True), (cross / self._scale).T).T / self._scale
        return found


def independent_directions(gram: np.ndarray, rank: int | None, ridge: float) -> int:
    """Return how many directions the inputs resolve, as :class:`Inputs` understands it."""
    alpha = _penalty(gram, ridge)
    values = eigvalsh(_equilibrated(gram, alpha)[0] if rank is None else gram + alpha * np.eye(len(gram)))
    return int((values > RESOLVED * values[-1]).sum()) if values[-1] > 0 else 0


def _penalty(gram: np.ndarray, ridge: float) -> float:
    """Return α of a ``ridge`` in units of G's mean eigenvalue."""
    return ridge * float(np.trace(gram)) / len(gram)


def _equilibrated(gram: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return G + αI scaled to a diagonal of ones, and the scale of each feature; a feature of zeros stays so."""
    regular = gram + alpha * np.eye(len(gram))
    scale = np.sqrt(np.diag(regular))
    scale = np.where(scale > 0, scale, 1.0)
    return regular / scale[:, None] / scale, scale


class Maps(NamedTuple):
    """The maps whose predictions are compared; None where the inputs do not determine one.

    Attributes
    ----------
    operator : numpy.ndarray
        (feature_out, feature): K, the same for all blocks.
    step : list
        One map a block.
    far : dict
        Horizon → the map fitted for that many blocks at once.
    """

    operator: np.ndarray
    step: list[np.ndarray | None]
    far: dict[int, np.ndarray | None]


def baseline_maps(sums: Sums, operator: np.ndarray, horizons: Sequence[int], rank: int | None, ridge: float) -> Maps:
    """Return K with the maps of each block and of each horizon, which take the place of ``sums`` in memory."""

    def fitted(gram: np.ndarray, cross: np.ndarray) -> np.ndarray | None:
        inputs = Inputs(gram, rank, ridge)
        if not inputs.resolved:
            return None
        cross[:] = inputs.map_of(cross)
        return cross

    far: dict[int, np.ndarray | None] = {}
    for horizon in horizons:
        starts = len(sums.gram) - horizon + 1
        # For one block at a time the best map is K itself.
        far[horizon] = operator if horizon == 1 else fitted(sums.gram[:starts].sum(0), sums.far[horizon])
    return Maps(operator, [fitted(*pair) for pair in zip(sums.gram, sums.step, strict=True)], far)


class Residuals:
    """Σ (y − K x) xᵀ over the pairs (x, y) of neighbouring depths of all rows that arrived."""

    def __init__(self, operator: np.ndarray, measure: str) -> None:
        self.operator, self.measure = operator, measure
        self.cross = np.zeros_like(operator)

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples."""
        for states in pieces(part, self.measure):
            features = states.shape[-1]
            start = states[:-1].reshape(-1, features)
            self.cross += (states[1:].reshape(-1, features) - start @ self.operator.T).T @ start

    def merge(self, later: Residuals) -> None:
        """Take in the samples of ``later``."""
        self.cross += later.cross


def corrected(operator: np.ndarray, inputs: Inputs, traj: xr.DataArray, measure: str) -> np.ndarray:
    """Return K after one step of iterative refinement, from residuals of the states themselves.

    It takes the error of the normal equations from the square of the inputs' condition number to about its first power
    (corrected semi-normal equations, Björck 1987, doi:10.1016/0024-3795(87)90101-7).
    """
    residuals = accumulated(traj, partial(Residuals, operator, measure))
    better: np.ndarray = operator + inputs.map_of(residuals.cross - inputs.alpha * operator)
    return better
