"""Similarities of layers from their definitions, pair by pair."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import scipy.linalg


def cosine(states: np.ndarray) -> np.ndarray:
    """Return mean ⟨u_ℓ, u_m⟩ (layer, layer) of states (sample, layer, token, feature)."""
    unit = states.astype(np.longdouble)
    unit = unit / np.sqrt((unit**2).sum(-1, keepdims=True))
    layers = states.shape[1]
    return np.array([[(unit[:, i] * unit[:, j]).sum(-1).mean() for j in range(layers)] for i in range(layers)], float)


def hsic(one: np.ndarray, other: np.ndarray) -> float:
    """Return the U-statistic of Song et al. 2012 over all ordered quadruples of samples."""
    k, m = one @ one.T, other @ other.T
    quadruples = list(permutations(range(len(k)), 4))
    return float(np.mean([k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in quadruples]))


def cka(states: np.ndarray) -> np.ndarray:
    """Return debiased linear CKA (layer, layer) of states (sample, layer, feature)."""
    layers = states.shape[1]
    joint = np.array([[hsic(states[:, i], states[:, j]) for j in range(layers)] for i in range(layers)])
    return joint / np.sqrt(np.outer(np.diag(joint), np.diag(joint)))


def procrustes(states: np.ndarray) -> np.ndarray:
    """Return 1 − (2/π)·angle (layer, layer), the angle that the best rotation of one layer leaves to the other."""
    centered = states - states.mean(0)
    layers = states.shape[1]
    similarity = np.eye(layers)
    for i in range(layers):
        for j in range(layers):
            if i != j:
                rotation, _ = scipy.linalg.orthogonal_procrustes(centered[:, i], centered[:, j])
                turned = centered[:, i] @ rotation
                cosine = (turned * centered[:, j]).sum() / np.linalg.norm(turned) / np.linalg.norm(centered[:, j])
                similarity[i, j] = 1 - 2 / np.pi * np.arccos(cosine)
    return similarity
