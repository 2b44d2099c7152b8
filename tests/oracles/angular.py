"""Angles along paths, pair by pair in NumPy's extended precision: slow, and by the definitions alone."""

from __future__ import annotations

import numpy as np


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return ∠(a, b) from the unit vectors' chord; NaN where one of them has no direction."""
    a, b = a.astype(np.longdouble), b.astype(np.longdouble)
    lengths = np.sqrt(np.sum(a**2)), np.sqrt(np.sum(b**2))
    if not all(0 < length < np.inf for length in lengths):
        return np.nan
    unit_a, unit_b = a / lengths[0], b / lengths[1]
    return float(2 * np.arctan2(np.sqrt(np.sum((unit_a - unit_b) ** 2)), np.sqrt(np.sum((unit_a + unit_b) ** 2))))


def paths(states: np.ndarray, directions: np.ndarray, tolerance: float) -> dict[str, np.ndarray]:
    """Return every quantity of ``convergence`` for states (sample, depth, token, feature).

    ``directions`` (sample, token, feature) are the references; ``settling_depth`` counts depths from 0.
    """
    samples, depths, tokens, _ = states.shape
    per_depth, per_block = (samples, depths, tokens), (samples, depths - 1, tokens)
    result = {name: np.full(per_depth, np.nan) for name in ("norm", "alignment", "angle")}
    result |= {name: np.full(per_block, np.nan) for name in ("speed", "turning", "update_norm", "radial_fraction")}
    result |= {name: np.full((samples, tokens), np.nan) for name in ("path_length", "straightness", "settling_depth")}
    for sample, token in np.ndindex(samples, tokens):
        path = states[sample, :, token].astype(np.longdouble)
        updates = path[1:] - path[:-1]
        at = (sample, slice(None), token)
        result["norm"][at] = np.sqrt((path**2).sum(axis=1))
        result["update_norm"][at] = np.sqrt((updates**2).sum(axis=1))
        result["angle"][at] = [angle(state, directions[sample, token]) for state in path]
        result["alignment"][at] = np.cos(result["angle"][at])
        result["speed"][at] = [angle(path[depth], path[depth + 1]) for depth in range(depths - 1)]
        result["turning"][sample, 1:, token] = [angle(updates[b - 1], updates[b]) for b in range(1, depths - 1)]
        result["radial_fraction"][at] = [np.cos(angle(updates[b], path[b])) for b in range(depths - 1)]
        length = result["speed"][at].sum()
        result["path_length"][sample, token] = length
        if length > 0:
            result["straightness"][sample, token] = angle(path[0], path[-1]) / length
        for depth in range(depths):
            if np.all(result["angle"][sample, depth:, token] <= tolerance):
                result["settling_depth"][sample, token] = depth
                break
    return result
