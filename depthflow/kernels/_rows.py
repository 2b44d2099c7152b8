"""Angles of single rows of states that are right at any size."""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from depthflow.kernels._compile import kernel

SMALL = 1e-2
"""Below this angle (rad), and as near to π, the arccosine of a float64 cosine has lost four digits or more."""

# arcsin(√z)/√z on 0 ≤ z ≤ 1/4, which is all that the arccosine needs; Horner's order, highest power first. Interpolated
# at Chebyshev's points its error falls 14-fold with each degree, so that degree 14 is right to rounding.
_SERIES = np.ascontiguousarray(
    Chebyshev.interpolate(lambda z: np.arcsin(np.sqrt(z)) / np.sqrt(z), 14, domain=[0.0, 0.25])
    .convert(kind=Polynomial, domain=[-1.0, 1.0])
    .coef[::-1]
)
_TERMS = len(_SERIES)


@kernel()
def arccos(x: float) -> float:
    """Return arccos x to 1e-14 relative, without a call, so that a loop over cosines becomes vector code."""
    size = abs(x)
    near = size > 0.5
    z = 0.5 * (1.0 - size) if near else x * x
    root = math.sqrt(z) if near else size
    series = 0.0
    for term in range(_TERMS):
        series = series * z + _SERIES[term]
    arcsine = root * series
    angle = 2.0 * arcsine if near else 0.5 * math.pi - arcsine
    return angle if x >= 0.0 else math.pi - angle


@kernel()
def cosine(product: float, norm: float, other: float) -> float:
    """Return ⟨a, b⟩/(‖a‖‖b‖) within [−1, 1], which rounding may leave; NaN where a norm is zero or not finite."""
    scale = norm * other
    if not 0.0 < scale < math.inf:
        return math.nan
    return min(max(product / scale, -1.0), 1.0)


@kernel()
def is_extreme(angle: float, small: float) -> bool:
    """Return whether the angle lies within ``small`` of 0 or π; NaN does not."""
    return angle < small or angle > math.pi - small


@kernel()
def chord_angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return ∠(a, b) = 2·atan2(‖â − b̂‖, ‖â + b̂‖), accurate at any angle, and exactly 0 for identical rows.

    The rows are brought to one length by the ratio of their norms, which is exactly 1 for identical rows.
    """
    aa = 0.0
    bb = 0.0
    for i in range(a.size):
        aa += np.float64(a[i]) * np.float64(a[i])
        bb += np.float64(b[i]) * np.float64(b[i])
    scale = math.sqrt(bb / aa)
    minus = 0.0
    plus = 0.0
    for i in range(a.size):
        difference = np.float64(b[i]) - scale * np.float64(a[i])
        total = np.float64(b[i]) + scale * np.float64(a[i])
        minus += difference * difference
        plus += total * total
    return 2.0 * math.atan2(math.sqrt(minus), math.sqrt(plus))


@kernel()
def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Return ∠(a, b) of two rows, by whichever formula is accurate there."""
    aa = 0.0
    bb = 0.0
    ab = 0.0
    for i in range(a.size):
        aa += np.float64(a[i]) * np.float64(a[i])
        bb += np.float64(b[i]) * np.float64(b[i])
        ab += np.float64(a[i]) * np.float64(b[i])
    angle = arccos(cosine(ab, math.sqrt(aa), math.sqrt(bb)))
    return chord_angle(a, b) if is_extreme(angle, SMALL) else angle


@kernel()
def to_angles(cosines: np.ndarray) -> None:
    """Replace cosines by their angles."""
    for i in range(cosines.size):
        cosines[i] = arccos(cosines[i])


@kernel()
def load(row: np.ndarray, out: np.ndarray) -> float:
    """Copy ``row`` to ``out`` in float64 and return its norm."""
    square = 0.0
    for i in range(out.size):
        value = np.float64(row[i])
        out[i] = value
        square += value * value
    return math.sqrt(square)


@kernel()
def subtract(after: np.ndarray, before: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` with after − before, in float64."""
    for i in range(out.size):
        out[i] = np.float64(after[i]) - np.float64(before[i])
