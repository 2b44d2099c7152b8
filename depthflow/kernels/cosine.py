"""How alike the directions of different layers are."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from depthflow.kernels._compile import kernel


def cosine(states: np.ndarray) -> np.ndarray:
    """Return the mean over tokens of ⟨u_ℓ, u_m⟩ for each sample.

    Parameters
    ----------
    states : numpy.ndarray
        (sample, layer, token, feature), float32 or float64.

    Returns
    -------
    numpy.ndarray
        (sample, layer, layer), exactly symmetric with a diagonal of ones; NaN beside a layer that has a token of zero
        or non-finite norm.
    """
    samples, layers = states.shape[:2]
    out = np.empty((samples, layers, layers))
    _cosine(np.ascontiguousarray(states), out)
    return out


@kernel(parallel=True)
def _cosine(states: np.ndarray, out: np.ndarray) -> None:
    samples, layers, tokens, features = states.shape
    for s in prange(samples):
        unit = np.empty((layers, features))
        out[s] = 0.0
        for t in range(tokens):
            for i in range(layers):
                _normalize(states[s, i, t], unit[i])
            _add_products(unit, out[s])
        for i in range(layers):
            out[s, i, i] = 1.0 if out[s, i, i] > 0 else math.nan
            for j in range(i):
                out[s, i, j] /= tokens
                if abs(out[s, i, j]) > 1.0:
                    out[s, i, j] = math.copysign(1.0, out[s, i, j])
                out[s, j, i] = out[s, i, j]


@kernel()
def _normalize(state: np.ndarray, out: np.ndarray) -> None:
    largest = 0.0
    for f in range(len(state)):
        out[f] = state[f]
        largest = max(largest, abs(out[f]))
    total, inverse = 0.0, 1.0 / largest
    for f in range(len(state)):
        out[f] *= inverse
        total += out[f] * out[f]
    scale = 1.0 / math.sqrt(total)
    for f in range(len(state)):
        out[f] *= scale


@kernel()
def _add_products(unit: np.ndarray, out: np.ndarray) -> None:
    """Add the products of the rows of ``unit`` to the lower triangle of ``out``, four at a time."""
    layers, features = unit.shape
    for i in range(layers):
        row = unit[i]
        whole = (i + 1) - (i + 1) % 4
        for j in range(0, whole, 4):
            first, second, third, fourth = unit[j], unit[j + 1], unit[j + 2], unit[j + 3]
            a = b = c = d = 0.0
            for f in range(features):
                a += row[f] * first[f]
                b += row[f] * second[f]
                c += row[f] * third[f]
                d += row[f] * fourth[f]
            out[i, j] += a
            out[i, j + 1] += b
            out[i, j + 2] += c
            out[i, j + 3] += d
        for j in range(whole, i + 1):
            a = 0.0
            for f in range(features):
                a += row[f] * unit[j, f]
            out[i, j] += a
