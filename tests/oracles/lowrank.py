"""Ranks of a matrix from its definitions, one matrix at a time."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg


def spectrum(matrix: np.ndarray) -> np.ndarray:
    """Return the singular values by Golub–Kahan QR iteration, in float64."""
    return scipy.linalg.svd(matrix.astype(np.float64), compute_uv=False, lapack_driver="gesvd")


def ranks(values: np.ndarray, energy: float) -> tuple[float, float, float, float]:
    """Return the stable, effective, participation and energy rank of singular values, largest first."""
    squares = [float(value) ** 2 for value in values]
    total = math.fsum(squares)
    if total == 0:
        return (math.nan,) * 4
    share = [value / math.fsum(values) for value in values]
    entropy = -math.fsum(p * math.log(p) for p in share if p > 0)
    participation = total**2 / math.fsum(square**2 for square in squares)
    enough = next(r for r in range(1, len(squares) + 1) if math.fsum(squares[:r]) >= energy * total * (1 - 1e-12))
    return total / squares[0], math.exp(entropy), participation, float(enough)


def with_spectrum(values: np.ndarray, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Return Q·diag(values)·Vᵀ (row, column) with random orthonormal Q and V."""
    left = np.linalg.qr(rng.normal(size=(rows, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(columns, len(values))))[0]
    return (left * values) @ right.T
