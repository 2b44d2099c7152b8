"""How alike the layers arrange the samples: debiased linear CKA, and angular Procrustes similarity."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from depthflow.kernels.lowrank import singular_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Each: TypeAlias = "Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]"
"""A way to apply a function to each of a sequence, in order, as :func:`map` does."""

TILE = 256
"""Samples a side of one tile of the Gram matrices; a tile of all layers is what :func:`cka` holds at a time."""

ROUNDING = 1e-13
"""Share of their norm by which states that are all the same may seem to vary."""

UNDEFINED = 1e-12
"""Share of Σ K² below which HSIC of a layer with itself is rounding: all samples are equally far from each other."""


def cka(states: np.ndarray, each: Each = map) -> np.ndarray:
    """Return the debiased linear CKA of all pairs of layers.

    With K = XXᵀ of the centered states X of a layer, diagonal left out, the unbiased HSIC of Song et al. (2012)
    depends on the pair through ‖X_ℓᵀX_m‖_F² = Σ_ij K_ij^ℓ K_ij^m alone; centering makes the rest of it sums of K's
    diagonal.

    Parameters
    ----------
    states : numpy.ndarray
        (sample, layer, feature), at least four samples.
    each : callable
        As :func:`map`; deals the work out to threads.

    Returns
    -------
    numpy.ndarray
        (layer, layer), exactly symmetric with a diagonal of ones; NaN beside a layer that does not vary.

    Notes
    -----
    Time layers·samples²·features (all Gram matrices once, tile by tile) or layers²·samples·features²/2 (products of
    features), whichever is less. Work space, one a thread: a tile of every layer's Gram matrix, or a pair of layers.
    """
    count, layers, features = states.shape
    mean = states.mean(0, dtype=np.float64)
    by_samples = count * (features + layers) <= (layers + 1) * features * features
    squared = _squared_norms(states, mean)
    joint = (_products_of_samples if by_samples else _products_of_features)(states, mean, each)
    own = squared @ squared.T
    trace = squared.sum(1)
    hsic = joint - own + np.outer(trace, trace) / ((count - 1) * (count - 2)) - 2 / (count - 2) * own
    return _aligned(hsic, _varies(trace, mean, count) & (np.diag(hsic) > UNDEFINED * np.diag(joint)))


def cka_resampled(states: np.ndarray, times: np.ndarray, each: Each = map) -> np.ndarray:
    """Return debiased linear CKA of resamples of the samples, pairs of one sample with itself left out.

    Debiasing leaves out each sample's product with itself; repeats in a resample would bring it back. Unbiased HSIC is
    a mean over pairs of samples of products of U-centered Gram matrices (Székely & Rizzo 2014); resampling weights
    pairs.

    Parameters
    ----------
    states : numpy.ndarray
        (sample, layer, feature), at least four samples.
    times : numpy.ndarray
        (resample, sample), how often each resample holds each sample; at least two samples each.
    each : callable
        As :func:`map`; deals the work out to threads.

    Returns
    -------
    numpy.ndarray
        (resample, layer, layer), as :func:`cka` gives them; a resample that holds every sample once gives its result.

    Notes
    -----
    Time layers·samples²·features, and resamples·layers²·samples².
    """
    count, layers, _ = states.shape
    mean = states.mean(0, dtype=np.float64)
    squared = _squared_norms(states, mean)
    offset = squared / (count - 2) - squared.sum(1, keepdims=True) / (2 * (count - 1) * (count - 2))

    def weighted(down: slice, across: slice) -> np.ndarray:
        tile = _gram_tile(states, mean, down, across)
        tile += offset[:, down, None] + offset[:, None, across]
        if down == across:
            tile[:, np.arange(tile.shape[1]), np.arange(tile.shape[1])] = 0.0
        flat = tile.reshape(layers, -1)
        twice = 1 if down == across else 2
        pairs = (twice * np.outer(often[down], often[across]).ravel() for often in times)
        return np.stack([(flat * pair) @ flat.T for pair in pairs])

    hsic = _sum_over_tiles(weighted, count, each)
    varies = _varies(squared.sum(1), mean, count)
    return np.stack([_aligned(joint, varies & (np.diag(joint) > 0)) for joint in hsic])


def procrustes(states: np.ndarray, each: Each = map) -> np.ndarray:
    """Return the angular Procrustes similarity of all pairs of layers.

    It is 1 − (2/π)·arccos(‖X_ℓᵀX_m‖_* / (‖X_ℓ‖_F ‖X_m‖_F)), from the angle that the best rotation of the one layer's
    centered states X leaves to the other's (Williams et al. 2021, arXiv:2110.14739).

    Parameters
    ----------
    states : numpy.ndarray
        (sample, layer, feature), at least two samples.
    each : callable
        As :func:`map`; deals the work out to threads.

    Returns
    -------
    numpy.ndarray
        (layer, layer) in [0, 1], exactly symmetric with a diagonal of ones; NaN beside a layer that does not vary.

    Notes
    -----
    Time layers²/2 singular value decompositions of a side of min(samples, features). Work space: the states in float64.
    """
    count, layers, features = states.shape
    mean = states.mean(0, dtype=np.float64)
    factors = np.empty((layers, count, min(count, features)))
    square = np.empty(layers)
    for layer in range(layers):
        centered = _centered(states, mean, layer)
        square[layer] = np.vdot(centered, centered)
        factors[layer] = centered if features <= count else np.asarray(np.linalg.qr(centered.T, mode="r")).T
    varies = _varies(square, mean, count)
    factors /= np.sqrt(np.where(varies, square, 1.0))[:, None, None]

    def alike(pair: tuple[int, int]) -> float:
        nuclear = min(1.0, singular_values(factors[pair[0]].T @ factors[pair[1]]).sum())
        return 1 - 2 / math.pi * math.acos(nuclear)

    similarity = _symmetric(each(alike, list(_pairs(layers))), layers)
    np.fill_diagonal(similarity, 1.0)
    similarity[~varies] = similarity[:, ~varies] = np.nan
    return similarity


def _centered(states: np.ndarray, mean: np.ndarray, layer: int, rows: slice = slice(None)) -> np.ndarray:
    centered: np.ndarray = states[rows, layer] - mean[layer]
    return centered


def _squared_norms(states: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the squared norm of each centered state (layer, sample)."""
    layers = (_centered(states, mean, layer) for layer in range(states.shape[1]))
    return np.stack([np.einsum("sf,sf->s", centered, centered) for centered in layers])


def _varies(square: np.ndarray, mean: np.ndarray, count: int) -> np.ndarray:
    """Return for each layer whether its centered states, of squared norm ``square``, are more than rounding."""
    varies: np.ndarray = square > ROUNDING**2 * count * (mean**2).sum(1)
    return varies


def _aligned(hsic: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Return ``hsic`` over the roots of its diagonal, exactly symmetric, NaN beside a layer that is not ``defined``."""
    scale = np.sqrt(np.where(defined, np.diag(hsic), np.nan))
    similarity: np.ndarray = hsic / np.outer(scale, scale)
    similarity = (similarity + similarity.T) / 2
    np.fill_diagonal(similarity, np.where(defined, 1.0, np.nan))
    return similarity


def _products_of_samples(states: np.ndarray, mean: np.ndarray, each: Each = map) -> np.ndarray:
    """Return Σ_ij K_ij^ℓ K_ij^m (layer, layer) of the layers' Gram matrices K (sample, sample)."""

    def products(down: slice, across: slice) -> np.ndarray:
        flat = _gram_tile(states, mean, down, across).reshape(states.shape[1], -1)
        joint: np.ndarray = (1 if down == across else 2) * (flat @ flat.T)
        return joint

    return _sum_over_tiles(products, len(states), each)


def _sum_over_tiles(work: Callable[[slice, slice], np.ndarray], count: int, each: Each) -> np.ndarray:
    """Return the sum of ``work`` over the tiles (rows, columns) of the lower half of a (sample, sample) matrix."""
    slices = [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]
    total: Any = 0
    for row, down in enumerate(slices):
        for part in each(partial(work, down), slices[: row + 1]):
            total = total + part
    return np.asarray(total)


def _gram_tile(states: np.ndarray, mean: np.ndarray, down: slice, across: slice) -> np.ndarray:
    """Return a tile (layer, row, column) of the Gram matrices of all layers' centered states."""
    layers = range(states.shape[1])
    tile = np.empty((len(layers), down.stop - down.start, across.stop - across.start))
    for layer in layers:
        np.matmul(_centered(states, mean, layer, down), _centered(states, mean, layer, across).T, out=tile[layer])
    return tile


def _products_of_features(states: np.ndarray, mean: np.ndarray, each: Each = map) -> np.ndarray:
    """Return ‖X_ℓᵀX_m‖_F² (layer, layer), pair by pair."""
    layers = states.shape[1]

    def squared(pair: tuple[int, int]) -> float:
        product = _centered(states, mean, pair[0]).T @ _centered(states, mean, pair[1])
        return float(np.vdot(product, product))

    return _symmetric(each(squared, list(_pairs(layers))), layers)


def _pairs(layers: int) -> Iterator[tuple[int, int]]:
    """Give the pairs of layers, each once, those of a layer with itself too."""
    return ((one, other) for one in range(layers) for other in range(one + 1))


def _symmetric(values: Iterable[float], layers: int) -> np.ndarray:
    """Return the symmetric matrix of one value for each of :func:`_pairs`."""
    matrix = np.empty((layers, layers))
    for (one, other), value in zip(_pairs(layers), values, strict=True):
        matrix[one, other] = matrix[other, one] = value
    return matrix
