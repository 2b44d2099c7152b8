"""The spherical k-means iteration on directions that are held less their mean.

With u = u' + m the cosines' differences between centers are those of u'·c' + m·c': no digits are lost to the part that
all samples share, so that float32 is enough even where all directions lie in a narrow cap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthflow.kernels import sphere
from depthflow.measures._estimator import CHUNK

if TYPE_CHECKING:
    from depthflow.measures._threads import Threads

CANCELLED = 1e-12
"""Directions whose mean is no longer than this cancel: what is left is rounding."""


class Directions(NamedTuple):
    """Unit vectors less their ``mean``: ``values`` (sample, feature) in the precision given; ``half_square`` ½‖·‖²."""

    values: np.ndarray
    mean: np.ndarray
    half_square: np.ndarray


class Partition(NamedTuple):
    """One run's outcome; ``centers`` are unit vectors and ``settled`` says that it stopped before ``max_iter``."""

    labels: np.ndarray
    centers: np.ndarray
    inertia: float
    n_iter: int
    settled: bool


def directions(rows: np.ndarray, norm: np.ndarray, run: Threads, mean: np.ndarray | None = None) -> Directions:
    """Return the directions of ``rows`` less ``mean``, by default their own."""
    length, features = rows.shape
    if mean is None:
        totals = np.zeros((-(-length // CHUNK), features))
        run.map(lambda part: sphere.add_units(rows[part], norm[part], totals[part.start // CHUNK]), length, CHUNK)
        mean = totals.sum(axis=0) / length
    values = np.empty_like(rows)
    half_square = np.empty(length)
    origin, nowhere = np.zeros((1, features)), np.zeros(length, dtype=np.int64)

    def center(part: slice) -> None:
        sphere.centered_units(rows[part], norm[part], mean, values[part])
        sphere.half_squares(values[part], origin, nowhere[part], half_square[part])

    run.map(center, length, CHUNK)
    return Directions(values, mean, half_square)


def assign(data: Directions, centers: np.ndarray, run: Threads) -> np.ndarray:
    """Return the index of the center at the largest cosine to each sample."""
    labels = np.empty(len(data.values), dtype=np.int64)
    shifted = centers - data.mean
    offset = shifted @ data.mean
    offset = (offset - offset.max()).astype(data.values.dtype)
    columns = np.ascontiguousarray(shifted.T.astype(data.values.dtype))
    run.map(lambda part: sphere.largest(data.values[part] @ columns, offset, labels[part]), len(labels), CHUNK)
    return labels


def spread(data: Directions, centers: np.ndarray, labels: np.ndarray, run: Threads) -> np.ndarray:
    """Return 1 − cos of each sample to its center."""
    result = np.empty(len(labels))
    shifted = centers - data.mean
    run.map(
        lambda part: sphere.half_squares(data.values[part], shifted, labels[part], result[part]), len(labels), CHUNK
    )
    return result


def seed_centers(data: Directions, count: int, rng: np.random.Generator, run: Threads) -> np.ndarray:
    """Return ``count`` samples' directions by greedy k-means++ on 1 − cos (Arthur and Vassilvitskii 2007).

    Each new center is the best of 2 + ⌊ln ``count``⌋ candidates, drawn with probability proportional to 1 − cos to the
    nearest center so far.
    """
    values, half_square = data.values, data.half_square
    length = len(values)
    trials = 2 + int(np.log(count))
    closest = np.full(length, np.inf)
    nearer = np.empty((length, trials))
    chosen = []
    for step in range(count):
        total = np.cumsum(closest) if step else None
        if total is None or total[-1] <= 0:
            candidates = rng.integers(length, size=trials if step else 1)
        else:
            candidates = np.minimum(np.searchsorted(total, rng.random(trials) * total[-1], side="right"), length - 1)

        columns = np.ascontiguousarray(values[candidates].T)
        offset = half_square[candidates]

        def distances(
            part: slice, columns: np.ndarray = columns, offset: np.ndarray = offset, closest: np.ndarray = closest
        ) -> np.ndarray:
            apart = half_square[part, None] + offset - values[part] @ columns
            kept = nearer[part, : len(offset)]
            np.minimum(closest[part, None], np.maximum(apart, 0.0), out=kept)
            potential: np.ndarray = kept.sum(axis=0)
            return potential

        best = int(np.argmin(np.sum(run.map(distances, length, CHUNK), axis=0)))
        closest = nearer[:, best].copy()
        closest[candidates[best]] = 0.0
        chosen.append(candidates[best])
    centers = values[chosen] + data.mean
    unit: np.ndarray = centers / np.linalg.norm(centers, axis=1, keepdims=True)
    return unit


def iterate(data: Directions, centers: np.ndarray, max_iter: int, tol: float, run: Threads) -> Partition:
    """Return the partition that Lloyd's iteration reaches from ``centers``.

    It stops when no label changes, or when no center has turned by more than ``tol`` rad. The sums of a cluster are
    corrected, in float64, for the samples that change only.
    """
    length, features = data.values.shape
    width = -(-features // run.count)
    labels = np.full(length, -1, dtype=np.int64)
    sums = np.zeros_like(centers)
    for n_iter in range(1, max_iter + 1):
        new = assign(data, centers, run)
        counts = _reseed(data, centers, new, run)
        if np.array_equal(new, labels):
            return Partition(labels, centers, float(spread(data, centers, labels, run).sum()), n_iter, True)

        def move(part: slice, old: np.ndarray = labels, new: np.ndarray = new) -> None:
            sphere.move_sums(data.values, old, new, part.start, part.stop, sums)

        run.map(move, features, width)
        labels = new
        moved = _center_directions(sums + counts[:, None] * data.mean, counts, centers)
        turn = np.linalg.norm(moved - centers, axis=1).max()
        centers = moved
        if turn <= tol:
            break
    labels = assign(data, centers, run)
    inertia = float(spread(data, centers, labels, run).sum())
    return Partition(labels, centers, inertia, n_iter, bool(turn <= tol))


def _center_directions(sums: np.ndarray, counts: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return the sums' directions; a cluster that is empty, or whose samples cancel, keeps its center."""
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    kept = (counts[:, None] == 0) | (length <= CANCELLED * counts[:, None])
    return np.where(kept, centers, sums / np.where(kept, 1.0, length))


def _reseed(data: Directions, centers: np.ndarray, labels: np.ndarray, run: Threads) -> np.ndarray:
    """Give each empty cluster the sample farthest from its center, in place, and return the clusters' counts.

    Samples that share their center's direction are left: where there are fewer directions than clusters, some of
    those stay empty.
    """
    counts = np.bincount(labels, minlength=len(centers))
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        apart = spread(data, centers, labels, run)
        resolution = (4 * np.finfo(data.values.dtype).eps) ** 2
        farthest = iter(np.argsort(-apart, kind="stable"))
        for cluster in empty:
            sample = next((s for s in farthest if apart[s] <= resolution or counts[labels[s]] > 1), None)
            if sample is None or apart[sample] <= resolution:
                break
            counts[labels[sample]] -= 1
            counts[cluster] = 1
            labels[sample] = cluster
    return counts
