"""Similarity of layers against pair-by-pair implementations, in time and in memory."""

from __future__ import annotations

import tracemalloc

import numpy as np

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, ratio
from depthflow.kernels import similarity as kernels

TOLERANCE = 1e-6


def hsic(one: np.ndarray, other: np.ndarray) -> float:
    """Return unbiased HSIC of two Gram matrices without their diagonals (Song et al. 2012)."""
    count = len(one)
    whole = np.vdot(one, other) + one.sum() * other.sum() / ((count - 1) * (count - 2))
    return (whole - 2 / (count - 2) * one.sum(0) @ other.sum(0)) / (count * (count - 3))


def gram(states: np.ndarray) -> np.ndarray:
    """Return the Gram matrix without its diagonal."""
    product = states @ states.T
    np.fill_diagonal(product, 0)
    return product


def pair(one: np.ndarray, other: np.ndarray) -> float:
    """Return debiased CKA of two layers by itself, as libraries that compare two layers at a time do."""
    k, m = gram(one), gram(other)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def cosine_of_all(states: np.ndarray) -> np.ndarray:
    """Return the mean cosine of all pairs of layers as a NumPy expression."""
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    flat = unit.transpose(1, 0, 2, 3).reshape(states.shape[1], -1)
    return flat @ flat.T / (states.shape[0] * states.shape[2])


def agreement(got: np.ndarray, expected: np.ndarray) -> str:
    """Return the largest difference, or raise."""
    error = float(np.abs(got - expected).max())
    if not error <= TOLERANCE:
        raise Disagreement(f"difference {error:.1e} above {TOLERANCE}")
    return f"{error:.0e} absolute"


def rows(smoke: bool) -> Rows:
    """Yield the rows of CKA's time and memory and of cosine's time."""
    count, layers, features = (60, 4, 24) if smoke else (2000, 25, 768)
    repeats = 1 if smoke else 5
    states = np.random.default_rng(0).normal(size=(count, layers, features)).astype(np.float32).cumsum(1)
    size = f"n={count}, D={features}, L={layers}"
    double = [states[:, layer].astype(np.float64) for layer in range(2)]
    close = agreement(kernels.cka(states)[0, 1], pair(*double))
    traj = depthflow.trajectory(states, dims=("sample", "depth", "feature"))
    one_pair = ratio(
        lambda: depthflow.similarity(traj, metric="cka", include_input=True), lambda: pair(*double), repeats
    )
    pairs = layers * (layers - 1) // 2
    yield Row("similarity, cka", size, f"one pair at a time, × {pairs}", pairs / one_pair, 10.0, True, close)
    tracemalloc.start()
    kernels.cka(states)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bound = 2 * count * (count + features) * 8
    yield Row("similarity, cka, memory", size, "one pair's states and Gram matrices", peak / bound, 1.0, False, close)

    shape = (3, 5, 7, 16) if smoke else (48, 13, 197, 384)
    states = np.random.default_rng(1).normal(size=shape).astype(np.float32).cumsum(1)
    traj = depthflow.trajectory(states)
    close = agreement(depthflow.similarity(traj, include_input=True).values, cosine_of_all(states.astype(np.float64)))
    measured = ratio(lambda: depthflow.similarity(traj, include_input=True), lambda: cosine_of_all(states), repeats)
    yield Row("similarity, cosine", "×".join(map(str, shape)), "NumPy expression", 1 / measured, None, True, close)
