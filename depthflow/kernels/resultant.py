"""Mean resultant lengths of the tokens' directions at each depth, and the tokens' interaction energy."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from depthflow.kernels._compile import kernel
from depthflow.kernels._rows import SMALL, chord_angle, cosine, is_extreme, load, subtract, to_angles

LEAST_COHERENCE = 1e-12
"""Resultant length below which the mean direction is rounding."""

GRAM_ROWS = 512
"""Tokens whose cosines to all others are in memory at once."""


class Resultants(NamedTuple):
    """What :func:`resultants` returns, in float64."""

    norm: np.ndarray
    coherence: np.ndarray
    update_coherence: np.ndarray
    angle_to_mean: np.ndarray


def resultants(states: np.ndarray) -> Resultants:
    """Return the mean resultant lengths of the tokens' directions, and each token's angle to their mean.

    Parameters
    ----------
    states : numpy.ndarray
        (sample, depth, token, feature), C-contiguous, float32 or float64.

    Returns
    -------
    Resultants
        ``norm`` (sample, depth, token), ``coherence`` (sample, depth), ``update_coherence`` (sample, block) and
        ``angle_to_mean`` (sample, depth, token) in rad. NaN where a direction that enters is not defined.

    Notes
    -----
    Time is linear in the size of ``states``; memory beside the outputs is a few rows a thread.
    """
    return Resultants(*_resultants(states))


def interaction_energy(states: np.ndarray, norm: np.ndarray, beta: float) -> np.ndarray:
    """Return mean_{t,t'} exp(β(⟨u_t, u_t'⟩ − 1)) of each cloud of tokens, over all pairs, t = t' among them.

    Parameters
    ----------
    states : numpy.ndarray
        (cloud, token, feature).
    norm : numpy.ndarray
        (cloud, token), the states' norms.
    beta : float
        Inverse temperature β.

    Returns
    -------
    numpy.ndarray
        (cloud,); NaN where a state has no direction.

    Notes
    -----
    Time is tokens² × feature a cloud, in one thread but for the BLAS's own; memory is one cloud's directions and 512 ×
    tokens cosines, in float64.
    """
    energy = np.empty(len(states))
    count = norm.shape[1]
    for cloud, (tokens, length) in enumerate(zip(states, norm, strict=True)):
        directions = tokens / np.where((length > 0) & (length < np.inf), length, np.nan)[:, np.newaxis]
        total = 0.0
        for start in range(0, count, GRAM_ROWS):
            stop = min(start + GRAM_ROWS, count)
            total += _pair_sum(directions[start:stop], directions[start:stop], beta)
            if stop < count:
                total += 2.0 * _pair_sum(directions[start:stop], directions[stop:], beta)
        energy[cloud] = total / count**2
    return energy


def _pair_sum(one: np.ndarray, other: np.ndarray, beta: float) -> float:
    """Return Σ exp(β(⟨u, v⟩ − 1)) over the rows u of ``one`` and v of ``other``."""
    cosines = one @ other.T
    np.minimum(cosines, 1.0, out=cosines)
    cosines -= 1.0
    cosines *= beta
    return float(np.exp(cosines, out=cosines).sum())


@kernel()
def _add_direction(row: np.ndarray, norm: float, total: np.ndarray) -> None:
    inverse = 1.0 / norm if 0.0 < norm < math.inf else math.nan
    for i in range(row.size):
        total[i] += row[i] * inverse


@kernel()
def _product(row: np.ndarray, other: np.ndarray) -> float:
    product = 0.0
    for i in range(row.size):
        product = product + float(row[i]) * float(other[i])
    return product


@kernel()
def _update_resultant(states: np.ndarray, before: np.ndarray, row: np.ndarray, total: np.ndarray) -> float:
    """Return the resultant length of the directions of states − before (token, feature)."""
    tokens = states.shape[0]
    total[:] = 0.0
    for t in range(tokens):
        subtract(states[t], before[t], row)
        _add_direction(row, math.sqrt(_product(row, row)), total)
    length: float = math.sqrt(_product(total, total)) / tokens
    return min(length, 1.0)


@kernel(parallel=True)
def _resultants(states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    samples, depths, tokens, features = states.shape
    norm = np.empty((samples, depths, tokens))
    coherence = np.empty((samples, depths))
    update_coherence = np.empty((samples, depths - 1))
    angle_to_mean = np.empty((samples, depths, tokens))
    for unit in prange(samples * depths):
        s, d = unit // depths, unit % depths
        row, total = np.empty(features), np.zeros(features)
        for t in range(tokens):
            norm[s, d, t] = load(states[s, d, t], row)
            _add_direction(row, norm[s, d, t], total)
        length = math.sqrt(_product(total, total))
        coherence[s, d] = min(length / tokens, 1.0)
        if coherence[s, d] < LEAST_COHERENCE:
            angle_to_mean[s, d] = math.nan
        else:
            for t in range(tokens):
                angle_to_mean[s, d, t] = cosine(_product(states[s, d, t], total), norm[s, d, t], length)
            to_angles(angle_to_mean[s, d])
            for t in range(tokens):
                if is_extreme(angle_to_mean[s, d, t], SMALL):
                    angle_to_mean[s, d, t] = chord_angle(states[s, d, t], total)
        if d > 0:
            update_coherence[s, d - 1] = _update_resultant(states[s, d], states[s, d - 1], row, total)
    return norm, coherence, update_coherence, angle_to_mean
