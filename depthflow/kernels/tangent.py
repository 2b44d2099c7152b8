"""What each step does to small deviations from a path: the map restricted to their span, and their growth.

Deviations are rows here. One triangular factor a depth, E = factor·Qᵀ, holds all that is needed: as Q is orthogonal it
drops out of every singular value and length, so it is never formed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from depthflow.kernels._compile import kernel
from depthflow.kernels._orthogonal import orthogonalize, triangulate

ORDINARY = 1000
"""States are brought to ordinary size by powers of two up to this one, which itself neither over- nor underflows."""


class DeviationMaps(NamedTuple):
    """What :func:`deviation_maps` returns, in float64."""

    singular_value: np.ndarray
    rank: np.ndarray
    exponent: np.ndarray


def deviation_maps(
    reference: np.ndarray, perturbed: np.ndarray, *, n_modes: int, rcond: float, eps: float
) -> DeviationMaps:
    """Return what each block does to the deviations of perturbed paths from their reference.

    Parameters
    ----------
    reference : numpy.ndarray
        (sample, depth, token, feature), C-contiguous, finite, float32 or float64.
    perturbed : numpy.ndarray
        (sample, draw, depth, token, feature), of the same dtype.
    n_modes : int
        How many modes to return, at most min(draws, features).
    rcond : float
        Size, relative to the largest deviation of that path and depth, up to which a direction is dropped.
    eps : float
        Relative spacing of the numbers in which the states were written down. A direction that their rounding could
        have made, up to eps·√draws·(‖x‖ + ‖x'‖), is dropped too.

    Returns
    -------
    DeviationMaps
        ``singular_value`` (sample, block, token, mode) of the block's map restricted to the deviations before it,
        largest first, 0 where the image cannot be told from rounding, NaN beyond the rank; ``rank`` (sample, block,
        token), the directions kept before the block; ``exponent`` (sample, block, token, mode), the mean logarithmic
        growth since the path's first deviation, NaN where it is not resolved.

    Notes
    -----
    Time a path and depth: draws² × feature for the factor, and some ten times draws³ for the singular values. Memory
    beside the outputs: the deviations of one path and depth a thread.
    """
    return DeviationMaps(*_deviation_maps(reference, perturbed, n_modes, rcond, eps))


@kernel()
def _deviations(reference: np.ndarray, perturbed: np.ndarray, eps: float, out: np.ndarray) -> tuple[int, float]:
    """Write x'/2ᵖ − x/2ᵖ of all draws to ``out``; return p, of the largest entry, and what rounding could make of it.

    Dividing by a power of two is exact, and keeps squares from over- and underflowing.
    """
    draws, features = perturbed.shape
    largest = 0.0
    for i in range(features):
        largest = max(largest, abs(np.float64(reference[i])))
    for r in range(draws):
        for i in range(features):
            largest = max(largest, abs(np.float64(perturbed[r, i])))
    power = min(max(math.frexp(largest)[1], -ORDINARY), ORDINARY)
    inverse = math.ldexp(1.0, -power)
    own = 0.0
    for i in range(features):
        value = reference[i] * inverse
        own += value * value
    most = 0.0
    for r in range(draws):
        square = 0.0
        for i in range(features):
            value = perturbed[r, i] * inverse
            square += value * value
            out[r, i] = value - reference[i] * inverse
        most = max(most, square)
    return power, eps * math.sqrt(draws) * (math.sqrt(own) + math.sqrt(most))


@kernel()
def _images(before: np.ndarray, order: np.ndarray, rank: int, after: np.ndarray) -> np.ndarray:
    """Return Zᵀ, what the map makes of the basis Q: of the first ``rank`` rows, before = LQᵀ and after = LZᵀ."""
    images = np.empty((rank, after.shape[1]))
    for k in range(rank):
        lower, image, row = before[order[k]], images[k], after[order[k]]
        for i in range(len(image)):
            image[i] = row[i]
        for j in range(k):
            share, other = lower[j], images[j]
            for i in range(len(image)):
                image[i] -= share * other[i]
        for i in range(len(image)):
            image[i] /= lower[k]
    return images


@kernel()
def _effort(before: np.ndarray, order: np.ndarray, vector: np.ndarray) -> float:
    """Return ‖w‖ with Lᵀw = vector, which is overwritten: how much of the rows of ``before`` it takes to make it."""
    square = 0.0
    for k in range(len(vector) - 1, -1, -1):
        lower = before[order[k], : k + 1]
        weight = vector[k] / lower[k]
        square += weight * weight
        for j in range(len(lower)):
            vector[j] -= weight * lower[j]
    return math.sqrt(square)


@kernel()
def _gains(before: np.ndarray, order: np.ndarray, rank: int, after: np.ndarray, noise: float) -> np.ndarray:
    """Return the singular values, largest first, of the map that takes the first ``rank`` rows of ``before`` to after.

    Triangulated first, Jacobi's iteration on Zᵀ settles sooner; its rows are then σ·v with Z's right singular vectors
    v. The combination w of deviations that makes v has the image σ: where that is at most noise·‖w‖, rounding could
    have made it, and it is 0.
    """
    images = _images(before, order, rank, after)
    triangulate(images, np.empty(rank, np.int64), True)
    vectors = np.empty((rank, rank))
    for m in range(rank):
        for k in range(rank):
            vectors[m, k] = images[k, m]
    orthogonalize(vectors)
    gains = np.empty(rank)
    for m in range(rank):
        square = 0.0
        for k in range(rank):
            square += vectors[m, k] * vectors[m, k]
        gains[m] = math.sqrt(square) if square > noise * _effort(before, order, vectors[m]) else 0.0
    gains.sort()
    return gains[::-1]


@kernel()
def _lengths(factor: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the distance of each row of ``factor``, in ``order``, from the span of those before it."""
    rows = factor[order]
    triangulate(rows, np.arange(len(order)), False)
    lengths = np.empty(len(order))
    for k in range(len(order)):
        lengths[k] = abs(rows[k, k])
    return lengths


@kernel()
def _follow(
    reference: np.ndarray,
    perturbed: np.ndarray,
    rcond: float,
    eps: float,
    singular_value: np.ndarray,
    rank: np.ndarray,
    exponent: np.ndarray,
) -> None:
    """Write singular values (block, mode), ranks (block,) and exponents (block, mode) of one path (depth, feature)."""
    draws, depths, features = perturbed.shape
    modes, limit = min(draws, features), exponent.shape[1]
    rows, order = np.empty((draws, features)), np.empty(draws, np.int64)
    before, before_order, before_power, kept = rows, order, 0, 0
    first, first_length, first_power, start = order, np.empty(0), 0, -1
    for depth in range(depths):
        power, noise = _deviations(reference[depth], perturbed[:, depth], eps, rows)
        triangulate(rows, order, True)
        factor = rows[:, :modes].copy()
        lowest = max(rcond * abs(factor[order[0], 0]), noise)
        if depth > 0:
            rank[depth - 1] = kept
            gains = _gains(before, before_order, kept, factor, noise)
            lengths = _lengths(factor, first[: len(first_length)])
            alive = 0
            while alive < len(lengths) and lengths[alive] > lowest:
                alive += 1
            first_length = first_length[:alive]
            doublings = (power - first_power) * math.log(2.0)
            for mode in range(limit):
                singular_value[depth - 1, mode] = exponent[depth - 1, mode] = math.nan
                if mode < kept:
                    singular_value[depth - 1, mode] = math.ldexp(gains[mode], power - before_power)
                if mode < alive:
                    grown = math.log(lengths[mode] / first_length[mode]) + doublings
                    exponent[depth - 1, mode] = grown / (depth - start)
        kept = 0
        while kept < modes and abs(factor[order[kept], kept]) > lowest:
            kept += 1
        before, before_order, before_power = factor, order.copy(), power
        if start < 0 and kept > 0:
            start, first, first_power = depth, before_order, power
            first_length = np.empty(kept)
            for k in range(kept):
                first_length[k] = abs(factor[order[k], k])


@kernel(parallel=True)
def _deviation_maps(
    reference: np.ndarray, perturbed: np.ndarray, limit: int, rcond: float, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    samples, depths, tokens, _ = reference.shape
    singular_value = np.empty((samples, depths - 1, tokens, limit))
    rank = np.empty((samples, depths - 1, tokens))
    exponent = np.empty((samples, depths - 1, tokens, limit))
    for unit in prange(samples * tokens):
        s, t = unit // tokens, unit % tokens
        outputs = singular_value[s, :, t], rank[s, :, t], exponent[s, :, t]
        _follow(reference[s, :, t], perturbed[s, :, :, t], rcond, eps, *outputs)
    return singular_value, rank, exponent
