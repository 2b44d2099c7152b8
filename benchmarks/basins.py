"""Spherical k-means against scikit-learn's k-means and against the matrix product that neither can do without."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from benchmarks._harness import Disagreement, Row, exponent, seconds
from depthflow import SphericalKMeans

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._harness import Rows, Work

SIZES = [(20_000, 384, 50), (50_000, 768, 100)]
SMOKE_SIZES = [(600, 16, 5)]
FEW, ITERATIONS = 2, 10
SEEDS = range(5)
WORSE = 1.005
"""What is allowed of the objective, relative to scikit-learn's."""


def rows(smoke: bool) -> Rows:
    """Yield the rows of both sizes."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    for size in SMOKE_SIZES if smoke else SIZES:
        data, clusters = _directions(*size), size[2]
        label = "×".join(map(str, size[:2])) + f" float32, k={clusters}"
        repeats = 1 if smoke else 5
        yield from _per_iteration(data, clusters, label, repeats)
        yield _objective(data, clusters, label, 4 if smoke else 1)
    yield _growth([300, 600, 1200] if smoke else [10_000, 20_000, 40_000], 16 if smoke else 384)


def _directions(samples: int, features: int, clusters: int) -> np.ndarray:
    """Return unit vectors of clusters that overlap, so that no run ends before its iterations are done."""
    rng = np.random.default_rng(0)
    centers = 0.2 * rng.normal(size=(clusters, features))
    states = centers[rng.integers(clusters, size=samples)] + rng.normal(size=(samples, features))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    return states.astype(np.float32)


def _per_iteration(data: np.ndarray, clusters: int, size: str, repeats: int) -> Rows:
    start = data[np.random.default_rng(1).choice(len(data), clusters, replace=False)]

    def ours(iterations: int) -> SphericalKMeans:
        return SphericalKMeans(clusters, init=start, max_iter=iterations, tol=0)

    def theirs(iterations: int) -> KMeans:
        return KMeans(clusters, init=start, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")

    share = _against(ours(FEW + ITERATIONS), theirs(FEW + ITERATIONS), data)
    said = f"objective {share:.4f}× after {FEW + ITERATIONS} iterations"
    if share > WORSE:
        raise Disagreement(f"SphericalKMeans, {size}: {said}")
    columns = np.ascontiguousarray(start.T)
    times = np.array(
        [(_each(ours, data), _each(theirs, data), seconds(lambda: data @ columns)) for _ in range(repeats)]
    )
    own, sklearn, product = np.median(times, axis=0)
    name = "SphericalKMeans, per iteration"
    yield Row(name, size, 'KMeans(algorithm="lloyd")', float(own / sklearn), 0.5, False, said)
    yield Row(name, size, "the bare matrix product", float(own / product), 1.2, False, said)


def _each(model: Callable[[int], SphericalKMeans | KMeans], data: np.ndarray) -> float:
    """Return the time of one iteration: that of many less that of a few, without what is done once."""
    some, more = (seconds(lambda count=count: model(count).fit(data)) for count in (FEW, FEW + ITERATIONS))
    return (more - some) / ITERATIONS


def _objective(data: np.ndarray, clusters: int, size: str, starts: int) -> Row:
    worst = max(
        _against(
            SphericalKMeans(clusters, n_init=starts, random_state=seed),
            KMeans(clusters, n_init=starts, random_state=seed),
            data,
        )
        for seed in SEEDS
    )
    return Row(
        f"SphericalKMeans, objective, worst of {len(SEEDS)} seeds",
        size,
        "KMeans on unit vectors, re-projected",
        worst,
        WORSE,
        False,
        "the ratio is the check",
    )


def _against(ours: SphericalKMeans, theirs: KMeans, data: np.ndarray) -> float:
    """Fit both and return our objective Σ (1 − cos) over that of their centers made unit vectors."""
    centers = theirs.fit(data).cluster_centers_.astype(np.float64)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    reached = sum(float((1 - (part @ centers.T).max(axis=1)).sum()) for part in np.array_split(data, 20))
    return float(ours.fit(data).inertia_ / reached)


def _growth(samples: list[int], features: int) -> Row:
    data = _directions(samples[-1], features, 20)

    def fit(count: int) -> Work:
        model = SphericalKMeans(20, init=data[:20], max_iter=ITERATIONS, tol=0)
        return lambda: model.fit(data[:count])

    size = f"n = {', '.join(map(str, samples))}; D={features}, k=20"
    return Row("SphericalKMeans, exponent of time in n", size, "linear", exponent(samples, fit), 1.1, False, "–")
