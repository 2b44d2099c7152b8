"""Singular values of matrices, and the effective dimensions that follow from them.

Spectra come from the smaller Gram matrix in float64, at half the cost of an SVD, wherever that can be right: forming
the Gram matrix squares the condition number, so where its least eigenvalue lies so low that rounding would show,
LAPACK's SVD takes over.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import entr

from depthflow.kernels._lanczos import stable_ranks

RESOLVED = 1e-9
"""Least eigenvalue of a Gram matrix, relative to its largest, whose root still has a relative error below 1e-6."""

ORDINARY = 1e60
"""Up to this entry, and down to its inverse, a Gram matrix neither over- nor underflows."""

TIE = 1e-12
"""Share of the energy by which modes may miss the share asked for, so that rounding does not add a mode."""


def singular_values(matrices: np.ndarray, *, exact: bool = False) -> np.ndarray:
    """Return the singular values of ``matrices`` (…, row, column), largest first, in float64.

    Those above 1e-6 of the largest agree with LAPACK's SVD of the float64 matrix to a relative 1e-5 or better.

    Parameters
    ----------
    matrices : numpy.ndarray
        Finite values, float32 or float64.
    exact : bool
        Use LAPACK's SVD always.

    Returns
    -------
    numpy.ndarray
        (…, min(rows, columns)), ≥ 0.

    Notes
    -----
    Work space: the matrices and their Gram matrices in float64.
    """
    *outer, rows, columns = matrices.shape
    scaled, scale = _scaled(matrices.reshape(-1, rows, columns))
    values = np.zeros((len(scaled), min(rows, columns)))
    left = scale > 0
    if not exact:
        across = scaled.transpose(0, 2, 1)
        values, resolved = singular_values_of_grams(scaled @ across if rows <= columns else across @ scaled)
        left &= ~resolved
    values[left] = np.linalg.svd(scaled[left], compute_uv=False)
    found: np.ndarray = (values * scale[:, None]).reshape(*outer, -1)
    return found


def singular_values_of_grams(grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the roots of the eigenvalues of ``grams`` (matrix, n, n), largest first, and where they are resolved.

    Where rounding would show in the smallest root, there are zeros instead.
    """
    squares = np.linalg.eigvalsh(grams)[:, ::-1]
    resolved = squares[:, -1] > RESOLVED * squares[:, 0]
    return np.sqrt(np.where(resolved[:, None], squares, 0.0)), resolved


def without_mean(matrices: np.ndarray) -> np.ndarray:
    """Return matrices of one row less, with the singular values of ``matrices`` (…, row, column) less their mean row.

    A Householder reflection takes the constant vector to the first axis, which is then left out. Subtracting the mean
    instead would leave a singular value of zero, which the Gram matrix cannot resolve.
    """
    count = matrices.shape[-2]
    mirror = np.full(count, 1 / math.sqrt(count))
    mirror[0] += 1
    shadow = (mirror @ matrices) / mirror[0]
    reflected: np.ndarray = matrices[..., 1:, :] - mirror[1:, None] * shadow[..., None, :]
    return reflected


def ranks(values: np.ndarray, energy: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the stable, effective, participation and energy rank of each spectrum in ``values`` (…, mode).

    ``values`` are singular values, largest first. A spectrum of zeros has no rank: NaN.
    """
    top = values[..., :1]
    with np.errstate(invalid="ignore"):
        relative = values / top
    square = relative**2
    total = square.sum(-1)
    stable = total
    effective = np.exp(entr(relative / relative.sum(-1, keepdims=True)).sum(-1))
    participation = total**2 / (square**2).sum(-1)
    missing = np.cumsum(square, -1) < (energy - TIE) * total[..., None]
    enough = np.where(np.isnan(total), np.nan, 1.0 + missing.sum(-1))
    return stable, effective, participation, enough


def stable_rank(matrices: np.ndarray) -> np.ndarray:
    """Return ‖U‖_F²/‖U‖₂² of each matrix, without the rest of its spectrum.

    The largest singular value comes from Lanczos iteration on UᵀU with full re-orthogonalisation, in float64, until the
    residual of its square is below 1e-8 of it; the error is at most that, and as a rule its square.

    Parameters
    ----------
    matrices : numpy.ndarray
        (matrix, row, column), finite float32 or float64.

    Returns
    -------
    numpy.ndarray
        One a matrix, in [1, min(rows, columns)]; NaN for a matrix of zeros.

    Notes
    -----
    Each step reads the matrix once; 20 to 40 steps are usual. Work space of one basis vector a step and thread.
    """
    out = np.empty(len(matrices))
    stable_ranks(np.ascontiguousarray(matrices), out)
    return out


def _scaled(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each matrix in float64, at a size whose square is finite and not zero, and what it was divided by.

    Matrices of an ordinary size are left as they are; that of a zero matrix is 0.
    """
    largest = np.maximum(matrices.max((1, 2)), -matrices.min((1, 2))).astype(np.float64)
    ordinary = (largest > 1 / ORDINARY) & (largest < ORDINARY)
    scale = np.where(ordinary, 1.0, np.where(largest > 0, np.exp2(np.frexp(largest)[1] - 1.0), 0.0))
    if ordinary.all():
        return matrices.astype(np.float64, copy=False), scale
    scaled: np.ndarray = matrices / np.where(scale > 0, scale, 1.0)[:, None, None]
    return scaled, scale
