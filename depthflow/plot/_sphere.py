"""From unit directions in many dimensions to a flat picture of a sphere, with what is lost on the way."""

from __future__ import annotations

import numpy as np

FAR = 2.0
"""From this angle on (rad), Lambert's projection stretches shapes by more than a factor of 3 across the radius."""


def principal_sphere(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the basis (feature, 3) of the three directions that hold most of Σ‖u‖², and each u's kept share (sample,).

    The moments are taken about the origin, since it is the sphere's center; of fewer than three features the rest of
    the basis is zero.
    """
    moment = directions.T @ directions
    vectors = np.linalg.eigh(moment)[1][:, ::-1][:, :3]
    basis = np.zeros((directions.shape[1], 3))
    basis[:, : vectors.shape[1]] = vectors * _sign(vectors)
    return basis, ((directions @ basis) ** 2).sum(axis=1)


def pole(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return the unit vector at which to look: the mean direction of the unit ``points`` (sample, 3).

    Where that would leave a landmark (landmark, 3) near the antipode, which the picture pulls apart into its rim, it
    is the center of the smallest cap that holds all landmarks, to within a few degrees.
    """
    mean = points.mean(axis=0)
    length = np.linalg.norm(mean)
    if length > 1e-12 and (landmarks @ mean).min(initial=length) >= length * np.cos(FAR):
        return np.asarray(mean / length)
    candidates = _even_directions(2000)
    return np.asarray(candidates[np.argmax((candidates @ landmarks.T).min(axis=1))])


def frame(points: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) whose last row is ``up``, the first the direction across it of largest spread."""
    flat = points - np.outer(points @ up, up)
    first = np.linalg.eigh(flat.T @ flat)[1][:, -1]
    first = first - (first @ up) * up
    if np.linalg.norm(first) < 1e-12:
        first = np.eye(3)[np.argmin(np.abs(up))]
        first = first - (first @ up) * up
    first /= np.linalg.norm(first)
    first *= _sign(first)
    return np.stack([first, np.cross(up, first), up])


def lambert(points: np.ndarray) -> np.ndarray:
    """Return the azimuthal equal-area projection (sample, 2) of unit ``points`` (sample, 3) about the third axis.

    A point at angle θ from the pole lies at radius 2 sin(θ/2), so equal areas of the sphere take equal areas of the
    picture (J. P. Snyder, Map Projections, USGS Professional Paper 1395, 1987, doi:10.3133/pp1395).
    """
    across = np.hypot(points[:, 0], points[:, 1])
    angle = np.arctan2(across, points[:, 2])
    scale = np.divide(radius(angle), across, out=np.zeros_like(across), where=across > 0)
    return np.asarray(points[:, :2] * scale[:, None])


def radius(angle: np.ndarray | float) -> np.ndarray:
    """Return the picture's radius of the angle from the pole (rad)."""
    return np.asarray(2 * np.sin(np.asarray(angle) / 2))


def _even_directions(count: int) -> np.ndarray:
    """Return unit vectors (count, 3) spread evenly over the sphere along a golden spiral."""
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=1)


def _sign(vectors: np.ndarray) -> np.ndarray:
    """Return the sign that makes each column's largest entry positive: an eigenvector's own sign is arbitrary."""
    largest = np.take_along_axis(vectors, np.argmax(np.abs(vectors), axis=0, keepdims=True), axis=0)
    return np.asarray(np.where(largest < 0, -1.0, 1.0))
