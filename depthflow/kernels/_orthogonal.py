"""QR and SVD of small sets of rows: triangular by Householder reflections, orthogonal by Jacobi rotations.

LAPACK's own would fight for the cores where each of many small sets has a thread of its own.
"""

from __future__ import annotations

import math

import numpy as np

from depthflow.kernels._compile import kernel

ORTHOGONAL = 1e-14
"""Cosine up to which two rows count as orthogonal; the error of a singular value is of that relative size."""

SWEEPS = 60
"""Bound on Jacobi's sweeps, of which about six are needed."""


@kernel()
def _mirror(row: np.ndarray, normal: np.ndarray) -> float:
    """Turn ``row`` onto the first axis by a Householder mirror; write its normal, return half the normal's square."""
    square = 0.0
    for i in range(len(row)):
        normal[i] = row[i]
        square += row[i] * row[i]
        row[i] = 0.0
    length = math.sqrt(square)
    row[0] = -length if normal[0] > 0.0 else length
    normal[0] -= row[0]
    half: float = -row[0] * normal[0]
    return half


@kernel()
def _reflect(row: np.ndarray, normal: np.ndarray, half: float) -> float:
    """Reflect ``row`` in the mirror with this normal; return what is left of its square beyond the first axis."""
    product = 0.0
    for i in range(len(row)):
        product += normal[i] * row[i]
    product /= half
    row[0] -= product * normal[0]
    # Slices, as an index that starts at 1 would keep the loop from becoming vector code.
    rest, beyond, normal_beyond = 0.0, row[1:], normal[1:]
    for i in range(len(beyond)):
        beyond[i] -= product * normal_beyond[i]
        rest += beyond[i] * beyond[i]
    return rest


@kernel()
def triangulate(rows: np.ndarray, order: np.ndarray, pivot: bool) -> None:
    """Replace ``rows`` by their coordinates in an orthonormal basis in which, taken in ``order``, they are triangular.

    With ``pivot`` the order is chosen, the row farthest from the span of those before it next; else it is kept. All
    entries beyond min(rows, columns) are zero afterwards, up to rounding.
    """
    count, columns = rows.shape
    normal, rest = np.empty(columns), np.zeros(count)
    if pivot:
        for j in range(count):
            order[j] = j
            for i in range(columns):
                rest[j] += rows[j, i] * rows[j, i]
    for k in range(min(count, columns)):
        if pivot:
            farthest = k
            for j in range(k + 1, count):
                if rest[order[j]] > rest[order[farthest]]:
                    farthest = j
            order[k], order[farthest] = order[farthest], order[k]
        half = _mirror(rows[order[k], k:], normal[k:])
        if half > 0.0:
            for j in range(k + 1, count):
                rest[order[j]] = _reflect(rows[order[j], k:], normal[k:], half)


@kernel()
def orthogonalize(rows: np.ndarray) -> None:
    """Rotate pairs of ``rows`` until all are orthogonal: Hestenes' one-sided Jacobi iteration."""
    count, columns = rows.shape
    square = np.empty(count)
    for _ in range(SWEEPS):
        for p in range(count):
            total = 0.0
            for i in range(columns):
                total += rows[p, i] * rows[p, i]
            square[p] = total
        settled = True
        for p in range(count - 1):
            for q in range(p + 1, count):
                one, other = rows[p], rows[q]
                product = 0.0
                for i in range(columns):
                    product += one[i] * other[i]
                if abs(product) <= ORTHOGONAL * math.sqrt(square[p]) * math.sqrt(square[q]):
                    continue
                settled = False
                ratio = (square[q] - square[p]) / (2.0 * product)
                tangent = math.copysign(1.0, ratio) / (abs(ratio) + math.sqrt(1.0 + ratio * ratio))
                cosine = 1.0 / math.sqrt(1.0 + tangent * tangent)
                sine = cosine * tangent
                for i in range(columns):
                    a, b = one[i], other[i]
                    one[i] = cosine * a - sine * b
                    other[i] = sine * a + cosine * b
                square[p] = max(square[p] - tangent * product, 0.0)
                square[q] += tangent * product
        if settled:
            break
