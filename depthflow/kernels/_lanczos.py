"""The largest singular value of a matrix by Lanczos iteration, with a certificate, and the stable rank from it."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from depthflow.kernels._compile import kernel

RITZ_RESIDUAL = 1e-8
"""Residual, relative to the eigenvalue, at which the largest eigenvalue counts as found; its error is at most that."""


@kernel(parallel=True)
def stable_ranks(matrices: np.ndarray, out: np.ndarray) -> None:
    """Write the stable rank of each of ``matrices`` (matrix, row, column), contiguous, to ``out``."""
    for b in prange(matrices.shape[0]):
        out[b] = _stable_rank(matrices[b])


@kernel()
def _stable_rank(matrix: np.ndarray) -> float:
    """Return the stable rank of one matrix (row, column)."""
    rows, columns = matrix.shape
    largest = 0.0
    for r in range(rows):
        for c in range(columns):
            largest = max(largest, abs(np.float64(matrix[r, c])))
    if largest == 0.0:
        return math.nan
    frobenius = 0.0
    for r in range(rows):
        total = 0.0
        for c in range(columns):
            entry = matrix[r, c] / largest
            total += entry * entry
        frobenius += total
    limit = min(rows, columns)
    basis = np.empty((limit + 1, columns))
    diagonal, beside = np.empty(limit), np.empty(limit)
    _start(basis[0])
    theta = 0.0
    for step in range(limit):
        image = basis[step + 1]
        _apply_gram(matrix, 1.0 / largest, basis[step], image)
        diagonal[step] = _orthogonalize(basis, step)
        beside[step] = math.sqrt(_dot(image, image))
        last = step + 1 == limit or beside[step] <= 1e-15 * frobenius
        if last or step % 3 == 2:
            theta, share = _largest_ritz(diagonal[: step + 1], beside[: step + 1], theta)
            if last or beside[step] * share <= RITZ_RESIDUAL * theta:
                break
        image /= beside[step]
    return frobenius / theta


@kernel()
def _start(vector: np.ndarray) -> None:
    """Fill ``vector`` with a unit vector of fixed pseudo-random entries, to which no structure in data is blind."""
    state = np.uint64(0x9E3779B97F4A7C15)
    for c in range(len(vector)):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        vector[c] = np.float64(state >> np.uint64(11)) / 2.0**53 - 0.5
    vector /= math.sqrt(_dot(vector, vector))


@kernel()
def _dot(left: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for c in range(len(left)):
        total += left[c] * right[c]
    return total


@kernel()
def _apply_gram(matrix: np.ndarray, scale: float, vector: np.ndarray, out: np.ndarray) -> None:
    """Write (scale·U)ᵀ(scale·U)·vector to ``out``, four rows at a time while they are in cache."""
    rows, columns = matrix.shape
    square = scale * scale
    out[:] = 0.0
    whole = rows - rows % 4
    for r in range(0, whole, 4):
        first, second, third, fourth = matrix[r], matrix[r + 1], matrix[r + 2], matrix[r + 3]
        a = b = c = d = 0.0
        for i in range(columns):
            a += first[i] * vector[i]
            b += second[i] * vector[i]
            c += third[i] * vector[i]
            d += fourth[i] * vector[i]
        a, b, c, d = a * square, b * square, c * square, d * square
        for i in range(columns):
            out[i] += a * first[i] + b * second[i] + c * third[i] + d * fourth[i]
    for r in range(whole, rows):
        row = matrix[r]
        a = 0.0
        for i in range(columns):
            a += row[i] * vector[i]
        a *= square
        for i in range(columns):
            out[i] += a * row[i]


@kernel()
def _orthogonalize(basis: np.ndarray, step: int) -> float:
    """Make ``basis[step + 1]`` orthogonal to those before it; return its product with ``basis[step]``."""
    image = basis[step + 1]
    along = 0.0
    for _ in range(2):
        for k in range(step, -1, -1):
            product = _dot(image, basis[k])
            if k == step:
                along += product
            for c in range(len(image)):
                image[c] -= product * basis[k, c]
    return along


@kernel()
def _largest_ritz(diagonal: np.ndarray, beside: np.ndarray, known: float) -> tuple[float, float]:
    """Return the largest eigenvalue of a Jacobi matrix, which is ≥ ``known``, and its unit vector's last entry, ≥ 0.

    Bisection on the signs of the pivots of T − θ, all negative exactly above the spectrum. The vector comes from the
    factorisation twisted where it is largest, which keeps its smallest entries right.
    """
    size = len(diagonal)
    low, high = known, 0.0
    for k in range(size):
        before = beside[k - 1] if k > 0 else 0.0
        after = beside[k] if k + 1 < size else 0.0
        low, high = max(low, diagonal[k]), max(high, diagonal[k] + before + after)
    while high - low > 1e-15 * high:
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        pivot = diagonal[0] - middle
        above = pivot < 0
        for k in range(1, size):
            if not above:
                break
            pivot = diagonal[k] - middle - beside[k - 1] * beside[k - 1] / pivot
            above = pivot < 0
        if above:
            high = middle
        else:
            low = middle
    down, up = np.empty(size), np.empty(size)
    down[0], up[size - 1] = diagonal[0] - high, diagonal[size - 1] - high
    for k in range(1, size):
        down[k] = diagonal[k] - high - beside[k - 1] * beside[k - 1] / down[k - 1]
        m = size - 1 - k
        up[m] = diagonal[m] - high - beside[m] * beside[m] / up[m + 1]
    twist = np.argmin(np.abs(down + up - (diagonal - high)))
    total, entry = 1.0, 1.0
    for k in range(twist, 0, -1):
        entry *= -beside[k - 1] / down[k - 1]
        total += entry * entry
    entry = 1.0
    for k in range(twist, size - 1):
        entry *= -beside[k] / up[k + 1]
        total += entry * entry
    return high, abs(entry) / math.sqrt(total)
