"""Directions on the unit sphere: means, nearest centers, sums over clusters, and angles over all pairs.

None is parallel by itself: each works on one chunk without the GIL, and the caller deals the chunks out to threads.
Angles use ∠(a, b) = 2·atan2(‖â − b̂‖, ‖â + b̂‖), which is right at any angle.
"""

from __future__ import annotations

import math

import numpy as np

from depthflow.kernels._compile import kernel

DUPLICATE = 1e-11
"""Above a cosine of 1 − this, the arccosine of a float64 dot product has lost too many digits."""


@kernel()
def norms(states: np.ndarray, out: np.ndarray) -> None:
    """Write the float64 norm of each row of ``states`` (row, feature) to ``out``."""
    for i in range(states.shape[0]):
        total = 0.0
        for f in range(states.shape[1]):
            total += np.float64(states[i, f]) * np.float64(states[i, f])
        out[i] = math.sqrt(total)


@kernel()
def mean_directions(states: np.ndarray, norm: np.ndarray, out: np.ndarray) -> None:
    """Write each path's mean direction over its tokens, a unit vector, to ``out`` (sample, depth, feature).

    ``states`` is (sample, depth, token, feature) and ``norm`` (sample, depth, token). Where the mean is shorter than
    rounding allows, it has no direction and NaN is written.
    """
    samples, depths, tokens, features = states.shape
    total = np.empty(features)
    for s in range(samples):
        for d in range(depths):
            total[:] = 0.0
            for t in range(tokens):
                scale = 1.0 / norm[s, d, t]
                for f in range(features):
                    total[f] += states[s, d, t, f] * scale
            square = 0.0
            for f in range(features):
                square += total[f] * total[f]
            length = math.sqrt(square)
            if not length > 1e-13 * tokens:
                length = math.nan
            for f in range(features):
                out[s, d, f] = total[f] / length


@kernel()
def add_units(states: np.ndarray, norm: np.ndarray, total: np.ndarray) -> None:
    """Add the unit vectors of the rows of ``states`` to ``total`` (feature), in float64."""
    for i in range(states.shape[0]):
        scale = 1.0 / norm[i]
        for f in range(states.shape[1]):
            total[f] += states[i, f] * scale


@kernel()
def centered_units(states: np.ndarray, norm: np.ndarray, mean: np.ndarray, out: np.ndarray) -> None:
    """Write the unit vectors of the rows of ``states``, less ``mean``, to ``out``, rounded once."""
    for i in range(states.shape[0]):
        scale = 1.0 / norm[i]
        for f in range(states.shape[1]):
            out[i, f] = states[i, f] * scale - mean[f]


@kernel()
def largest(products: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """Write the column where each row of ``products`` + ``offset`` is largest to ``out``; the first one of equals."""
    for i in range(products.shape[0]):
        best = products[i, 0] + offset[0]
        at = 0
        for k in range(1, products.shape[1]):
            value = products[i, k] + offset[k]
            if value > best:
                best = value
                at = k
        out[i] = at


@kernel()
def move_sums(rows: np.ndarray, old: np.ndarray, new: np.ndarray, first: int, last: int, sums: np.ndarray) -> None:
    """Bring ``sums`` (cluster, feature) from labels ``old`` to ``new`` for the features ``first`` to ``last`` − 1.

    Labels of −1 belong to no cluster. Rows are taken in order, so each sum is the same however features are dealt out.
    """
    for i in range(rows.shape[0]):
        if old[i] != new[i]:
            row = rows[i, first:last]
            if old[i] >= 0:
                left = sums[old[i], first:last]
                for f in range(row.shape[0]):
                    left[f] -= row[f]
            if new[i] >= 0:
                joined = sums[new[i], first:last]
                for f in range(row.shape[0]):
                    joined[f] += row[f]


@kernel()
def half_squares(rows: np.ndarray, centers: np.ndarray, labels: np.ndarray, out: np.ndarray) -> None:
    """Write ½‖row − its center‖², which is 1 − cos for unit vectors, to ``out``, in float64."""
    for i in range(rows.shape[0]):
        center = centers[labels[i]]
        total = 0.0
        for f in range(rows.shape[1]):
            difference = rows[i, f] - center[f]
            total += difference * difference
        out[i] = 0.5 * total


@kernel()
def mean_half_squares(rows: np.ndarray, means: np.ndarray, out: np.ndarray) -> None:
    """Write ½‖row − mean‖² of every row and every mean to ``out`` (row, mean), in float64."""
    for i in range(rows.shape[0]):
        for k in range(means.shape[0]):
            total = 0.0
            for f in range(rows.shape[1]):
                difference = rows[i, f] - means[k, f]
                total += difference * difference
            out[i, k] = 0.5 * total


@kernel()
def _angle(row: np.ndarray, scale: float, unit: np.ndarray) -> float:
    """Return the angle between ``row`` × ``scale`` and ``unit``, both of length one."""
    apart = 0.0
    along = 0.0
    for f in range(row.shape[0]):
        value = row[f] * scale
        apart += (value - unit[f]) ** 2
        along += (value + unit[f]) ** 2
    return 2.0 * math.atan2(math.sqrt(apart), math.sqrt(along))


@kernel()
def two_nearest(
    states: np.ndarray, norm: np.ndarray, centers: np.ndarray, nearest: np.ndarray, margin: np.ndarray
) -> None:
    """Write each row's nearest center, and its angle to the second-nearest minus that to the nearest.

    ``states`` is (row, feature), ``centers`` (center, feature) of unit rows. With a single center the margin is NaN.
    Of centers at the same angle the first one is nearest.
    """
    for i in range(states.shape[0]):
        scale = 1.0 / norm[i]
        best = -math.inf
        second = -math.inf
        first_at = 0
        second_at = -1
        for k in range(centers.shape[0]):
            cosine = 0.0
            for f in range(states.shape[1]):
                cosine += states[i, f] * centers[k, f]
            if cosine > best:
                second = best
                second_at = first_at
                best = cosine
                first_at = k
            elif cosine > second:
                second = cosine
                second_at = k
        margin[i] = math.nan
        if centers.shape[0] > 1:
            near = _angle(states[i], scale, centers[first_at])
            far = _angle(states[i], scale, centers[second_at])
            if far < near or (far == near and second_at < first_at):
                first_at, near, far = second_at, far, near
            margin[i] = far - near
        nearest[i] = first_at


@kernel()
def pair_angles(units: np.ndarray, label: np.ndarray, cosine: np.ndarray, total: np.ndarray, count: np.ndarray) -> None:
    """Add the angles of the pairs (i, j) with j > i to ``total``, and their number to ``count``.

    ``cosine`` (i, j) holds the dot products of the first rows of ``units`` with all of them. Entry 0 is for pairs of
    different labels and entry 1 for pairs of the same one.
    """
    for i in range(cosine.shape[0]):
        different = 0.0
        same = 0.0
        same_count = 0
        for j in range(i + 1, cosine.shape[1]):
            if cosine[i, j] > 1.0 - DUPLICATE:
                angle = _angle(units[i], 1.0, units[j])
            else:
                angle = math.acos(max(cosine[i, j], -1.0))
            if label[i] == label[j]:
                same += angle
                same_count += 1
            else:
                different += angle
        total[0] += different
        total[1] += same
        count[0] += cosine.shape[1] - i - 1 - same_count
        count[1] += same_count
