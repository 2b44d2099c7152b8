"""Directions on the sphere by definition: loops over samples, angles by the chord, mpmath's Bessel functions."""

from __future__ import annotations

import mpmath
import numpy as np

DIGITS = 50


def angle(a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def mean_direction(states: np.ndarray) -> np.ndarray:
    total = sum(state / np.linalg.norm(state) for state in states.astype(np.float64))
    return total / np.linalg.norm(total)


def nearest(state: np.ndarray, centers: np.ndarray) -> tuple[int, float]:
    """Return the nearest center, and the angle to the second-nearest minus that to it."""
    angles = [angle(state, center) for center in centers]
    ordered = sorted(angles)
    return int(np.argmin(angles)), ordered[1] - ordered[0] if len(ordered) > 1 else np.nan


def commitment(path: np.ndarray, depths: np.ndarray) -> int:
    """Return the first depth from which the entries of ``path`` equal its last one."""
    for at, depth in enumerate(depths):
        if all(path[at:] == path[-1]):
            return int(depth)
    raise AssertionError


def label_angles(rows: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    same, different = [], []
    for i in range(len(rows)):
        for j in range(len(rows)):
            if i != j:
                (same if label[i] == label[j] else different).append(angle(rows[i], rows[j]))
    return (float(np.mean(same)) if same else np.nan), (float(np.mean(different)) if different else np.nan)


def silhouette(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    result = []
    for i, unit in enumerate(units):
        apart = {
            cluster: [0.5 * np.sum((unit - units[j]) ** 2) for j in np.flatnonzero(label == cluster) if j != i]
            for cluster in set(label.tolist())
        }
        inner = apart.pop(int(label[i]))
        if not inner:
            result.append(0.0)
            continue
        a, b = np.mean(inner), min(np.mean(values) for values in apart.values())
        result.append((b - a) / max(a, b) if max(a, b) > 0 else 0.0)
    return np.array(result)


def inertia(rows: np.ndarray, centers: np.ndarray) -> float:
    return float(sum(min(1 - np.cos(angle(row, center)) for center in centers) for row in rows))


def purity(label: np.ndarray, basin: np.ndarray) -> float:
    held = [label[basin == cluster] for cluster in np.unique(basin)]
    return sum(max(np.sum(part == value) for value in part) for part in held) / len(label)


def log_normalizer(dimension: int, kappa: float) -> float:
    """Return ln C_D(κ) + κ to full precision."""
    with mpmath.workdps(DIGITS):
        order, x = mpmath.mpf(dimension) / 2 - 1, mpmath.mpf(kappa)
        if kappa == 0:
            return float(mpmath.loggamma(order + 1) - mpmath.log(2) - (order + 1) * mpmath.log(mpmath.pi))
        log_bessel = mpmath.log(mpmath.besseli(order, x))
        return float(order * mpmath.log(x) - (order + 1) * mpmath.log(2 * mpmath.pi) - log_bessel + x)


def mean_resultant(dimension: int, kappa: float) -> tuple[float, float]:
    """Return A_D(κ) and 1 − A_D(κ) to full precision."""
    with mpmath.workdps(DIGITS):
        order, x = mpmath.mpf(dimension) / 2 - 1, mpmath.mpf(kappa)
        ratio = mpmath.besseli(order + 1, x) / mpmath.besseli(order, x) if kappa else mpmath.mpf(0)
        return float(ratio), float(1 - ratio)


def draw(mean: np.ndarray, kappa: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return von Mises–Fisher directions by rejection (Wood 1994, doi:10.1080/03610919408813161)."""
    size = len(mean) - 1
    b = size / (2 * kappa + np.sqrt(4 * kappa**2 + size**2))
    x = (1 - b) / (1 + b)
    c = kappa * x + size * np.log(1 - x**2)
    along: list[float] = []
    while len(along) < count:
        z = rng.beta(size / 2, size / 2)
        w = (1 - (1 + b) * z) / (1 - (1 - b) * z)
        if kappa * w + size * np.log(1 - x * w) - c >= np.log(rng.random()):
            along.append(w)
    across = rng.normal(size=(count, len(mean)))
    across -= np.outer(across @ mean, mean)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    w = np.array(along)[:, None]
    return w * mean + np.sqrt(1 - w**2) * across


def basis(features: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` orthonormal rows."""
    return np.linalg.qr(rng.normal(size=(features, count)))[0].T
