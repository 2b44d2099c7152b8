"""The modified Bessel functions behind the von Mises–Fisher distribution, at any dimension and concentration.

On the unit sphere of R^D the density is C_D(κ) exp(κ⟨μ, x⟩). With ν = D/2 − 1, its normaliser needs I_ν(κ) and its mean
resultant length is A_D(κ) = I_{ν+1}(κ) / I_ν(κ). I_ν itself under- and overflows, so that everything here is written
in the quantities that do not:

    g_ν(κ) = ln(I_ν(κ) exp(−κ) κ^{−ν}),   q_ν(κ) = A_D(κ)/κ,   d_ν(κ) = 1 − A_D(κ),

which are finite at κ = 0 and keep their relative accuracy as κ → ∞. They come from the uniform asymptotic expansion for
large order (DLMF 10.41.3) at an order of at least 40, and for smaller orders from there by the recurrence
I_{j−1} = I_{j+1} + (2j/κ) I_j, which is stable downwards.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from depthflow.kernels._compile import kernel

TERMS = 12
LEAST_ORDER = 40.0
MAX_CONCENTRATION = 1e10
"""Beyond it float64 directions cannot tell concentrations apart; a component without any spread has this one."""

NEWTON_STEPS = 60
NEWTON_TOLERANCE = 1e-13


def _expansion_coefficients(terms: int) -> np.ndarray:
    """Return V (order, power) with U_k(p) = p^k Σ_i V[k, i] p^{2i}, the polynomials of DLMF 10.41.9."""
    polynomial = {0: Fraction(1)}
    result = np.zeros((terms, terms))
    for order in range(terms):
        for power, value in polynomial.items():
            result[order, (power - order) // 2] = float(value)
        successor: dict[int, Fraction] = {}
        for power, value in polynomial.items():
            rise, twice = power + 1, power + 3
            successor[rise] = successor.get(rise, Fraction(0)) + value * (Fraction(power, 2) + Fraction(1, 8 * rise))
            successor[twice] = successor.get(twice, Fraction(0)) - value * (Fraction(power, 2) + Fraction(5, 8 * twice))
        polynomial = successor
    return result


COEFFICIENTS = _expansion_coefficients(TERMS)


@kernel()
def bessel(order: float, x: float) -> tuple[float, float, float]:
    """Return g, q and d (see the module) of I_``order`` at ``x`` ≥ 0, for ``order`` ≥ 0."""
    steps = max(0, math.ceil(LEAST_ORDER - order))
    top = order + steps
    s = math.hypot(top, x)
    t = (top / s) ** 2
    series = 0.0
    slope = 0.0
    scale = 1.0
    for k in range(TERMS):
        value = 0.0
        derivative = 0.0
        for i in range(k, -1, -1):
            derivative = derivative * t + value
            value = value * t + COEFFICIENTS[k, i]
        series += scale * value
        slope += scale * (k * value + 2.0 * t * derivative)
        scale /= s
    tail = slope / series + 0.5
    g = top * top / (s + x) - top * math.log(top + s) - 0.5 * math.log(2.0 * math.pi * s) + math.log(series)
    q = 1.0 / (top + s) - tail / (s * s)
    d = top * top / (s * (s + x)) + x * (top / (s * (top + s)) + tail / (s * s))
    for step in range(steps):
        j = top - step
        d = (2.0 * j - x * d) / (2.0 * j + x * (1.0 - d))
        q = 1.0 / (2.0 * j + x * x * q)
        g -= math.log(q)
    return g, q, d


@kernel()
def log_normalizer(dimension: int, kappa: float) -> float:
    """Return ln(C_D(κ) exp(κ)), so that the log density is this plus κ(cos − 1)."""
    g, _, _ = bessel(0.5 * dimension - 1.0, kappa)
    return -0.5 * dimension * math.log(2.0 * math.pi) - g


@kernel()
def mean_resultant(dimension: int, kappa: float) -> float:
    """Return A_D(κ), the mean resultant length of directions of concentration ``kappa``."""
    _, q, _ = bessel(0.5 * dimension - 1.0, kappa)
    return kappa * q


@kernel()
def concentration(dimension: int, resultant: float) -> float:
    """Return κ with A_D(κ) = ``resultant``, the maximum-likelihood concentration, at most ``MAX_CONCENTRATION``.

    Newton's method in ln κ, on ln A_D where the directions are spread and on ln(1 − A_D) where they are concentrated:
    both are nearly straight lines there.
    """
    spread = 1.0 - resultant
    _, _, least = bessel(0.5 * dimension - 1.0, MAX_CONCENTRATION)
    if resultant <= 0.0:
        return 0.0
    if spread <= least:
        return MAX_CONCENTRATION
    kappa = min(MAX_CONCENTRATION, resultant * (dimension - resultant**2) / (spread * (1.0 + resultant)))
    for _ in range(NEWTON_STEPS):
        _, q, d = bessel(0.5 * dimension - 1.0, kappa)
        derivative = d * (2.0 - d) - (dimension - 1.0) * q
        if resultant < 0.5:
            step = -math.log(kappa * q / resultant) * q / derivative
        else:
            step = math.log(d / spread) * d / (kappa * derivative)
        kappa = min(MAX_CONCENTRATION, kappa * math.exp(min(max(step, -2.0), 2.0)))
        if abs(step) < NEWTON_TOLERANCE:
            break
    return kappa
