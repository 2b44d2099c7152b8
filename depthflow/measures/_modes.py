"""Eigenvalues and modes of a real operator, in an order and with phases that rounding does not decide."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import eig

DIGITS = 10
"""Moduli and angles that agree to so many digits count as equal when modes are put in order."""


class Modes(NamedTuple):
    """Eigenvalues (mode), unit right eigenvectors (mode, feature), and the amplitude (mode) of each."""

    eigenvalue: np.ndarray
    vector: np.ndarray
    amplitude: np.ndarray


def modes(operator: np.ndarray, basis: np.ndarray | None, moment: np.ndarray) -> Modes:
    """Return the eigenvalues of K, largest first, with their modes and amplitudes.

    Parameters
    ----------
    operator : numpy.ndarray
        K (feature, feature).
    basis : numpy.ndarray or None
        V (feature, rank), orthonormal columns with K = K V Vᵀ, if K is of low rank: the eigenvalues are those of
        Vᵀ K V, and K V w is K's eigenvector where w is that matrix's (Tu et al. 2014).
    moment : numpy.ndarray
        (feature, feature): the mean of x xᵀ over the states whose modal coordinates are wanted.
    """
    image = operator if basis is None else operator @ basis
    eigenvalue, left, right = eig(image if basis is None else basis.T @ image, left=True, right=True)
    if basis is not None:
        outside, inside = image @ right, basis @ right
        # Of an eigenvalue zero, what K V w leaves is rounding, and V w is the mode.
        vanishes = np.linalg.norm(outside, axis=0) <= np.finfo(np.float64).eps * len(image) * np.linalg.norm(image)
        right, left = np.where(vanishes, inside, outside), basis @ left
    right = right / np.linalg.norm(right, axis=0)
    order = _order(eigenvalue)
    eigenvalue, left, right = eigenvalue[order], left[:, order], right[:, order]
    largest = np.take_along_axis(right, np.abs(right).argmax(0)[None], axis=0)
    right = right * (largest.conj() / np.abs(largest))
    overlap = np.abs(np.einsum("fm,fm->m", left.conj(), right))
    squares = np.einsum("fm,fm->m", left.conj(), moment @ left).real.clip(0.0)
    # Left and right eigenvectors at a right angle: a defective eigenvalue, whose mode has no coordinate of its own.
    known = overlap > np.finfo(np.float64).eps * np.linalg.norm(left, axis=0)
    amplitude = np.full(len(overlap), np.nan)
    amplitude[known] = np.sqrt(squares[known]) / overlap[known]
    return Modes(eigenvalue, right.T, amplitude)


def _order(eigenvalue: np.ndarray) -> np.ndarray:
    """Return the order by falling modulus, then rising frequency, then the positive one of a pair first."""
    modulus = np.abs(eigenvalue)
    largest = modulus.max()
    size = np.round(modulus / largest if largest > 0 else modulus, DIGITS)
    turn = np.round(np.abs(np.angle(eigenvalue)), DIGITS)
    return np.lexsort((eigenvalue.imag < 0, turn, -size))
