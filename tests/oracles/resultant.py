"""Resultant lengths and interaction energies, pair by pair in plain NumPy."""

from __future__ import annotations

import numpy as np

from tests.oracles.angular import angle


def resultants(states: np.ndarray, beta: float) -> dict[str, np.ndarray]:
    """Return every quantity of ``coherence`` for states (sample, depth, token, feature)."""
    samples, depths, tokens, _ = states.shape
    result = {
        "coherence": np.empty((samples, depths)),
        "update_coherence": np.empty((samples, depths - 1)),
        "angle_to_mean": np.empty((samples, depths, tokens)),
        "clusters_energy": np.empty((samples, depths)),
    }
    for sample, depth in np.ndindex(samples, depths):
        cloud = states[sample, depth].astype(np.float64)
        units = np.array([token / np.linalg.norm(token) for token in cloud])
        mean = sum(units) / tokens
        result["coherence"][sample, depth] = np.linalg.norm(mean)
        result["angle_to_mean"][sample, depth] = [angle(token, mean) for token in cloud]
        pairs = [np.exp(beta * (float(np.dot(one, other)) - 1)) for one in units for other in units]
        result["clusters_energy"][sample, depth] = np.mean(pairs)
        if depth:
            steps = cloud - states[sample, depth - 1].astype(np.float64)
            mean = sum(step / np.linalg.norm(step) for step in steps) / tokens
            result["update_coherence"][sample, depth - 1] = np.linalg.norm(mean)
    return result
