"""The tolerances of the whole suite, each with its reason; no test states one of its own.

Each is a mapping for ``numpy.testing.assert_allclose``.
"""

EXACT = {"rtol": 0.0, "atol": 0.0}
"""Integers, copies, and arithmetic that is the same on both sides."""

FLOAT64 = {"rtol": 1e-10, "atol": 1e-12}
"""The same quantity by two float64 routes: rounding times the number of terms."""

FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}
"""A quantity of float32 states, against float64 arithmetic on the same numbers: the accuracy that is promised."""

SMALL_ANGLE = {"rtol": 1e-5, "atol": 1e-9}
"""Angles of 1e-4 rad and above: the relative accuracy that is promised; below, the absolute one of rounded states."""

ITERATIVE = {"rtol": 1e-4, "atol": 1e-6}
"""Results of an iteration that stops at a tolerance."""

STOCHASTIC = {"rtol": 0.1, "atol": 0.05}
"""Means over finitely many random draws, against their expectation."""

SINGULAR_VALUE = {"rtol": 1e-5, "atol": 0.0}
"""Singular values down to 1e-6 of the largest: the relative accuracy that is promised, at every size."""

ROUNDED_STATES = {"rtol": 1e-8, "atol": 1e-10}
"""States that were rotated or rescaled in float64: their own rounding, at angles from 1e-2 rad up."""

FINITE_DIFFERENCE = {"rtol": 1e-3, "atol": 0.0}
"""Ratios of differences of float32 states a hundredth of their size: a rounding of 1e-7 by that share, 1e-5 a
direction, times the condition number of the directions and of the map."""

GRADIENT = {"rtol": 1e-4, "atol": 1e-5}
"""Gradients of a float32 loss by two orders of summation, over their largest entry: rounding times depths."""

REDUCED_PRECISION = {"rtol": 2e-2, "atol": 0.0}
"""A mean over many values of which each is rounded to 8 bits (bfloat16) or 11 (float16), several times on its way."""

TRAINED = {"rtol": 1e-3, "atol": 1e-6}
"""Losses after a few optimiser steps along gradients that differ by rounding, of which the smallest are magnified."""
