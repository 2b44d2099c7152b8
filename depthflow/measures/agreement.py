"""How well a partition agrees with labels, and how far apart directions of equal and of different labels lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from depthflow.errors import TrajectoryError
from depthflow.kernels import sphere

if TYPE_CHECKING:
    import xarray as xr

    from depthflow.measures._directions import Paths
    from depthflow.measures._threads import Threads

PAIR_ROWS = 128


def purity(label: np.ndarray, basin: np.ndarray) -> float:
    """Return the share of samples that carry the commonest label of their basin."""
    return float(contingency_matrix(label, basin).max(axis=0).sum() / len(label))


def agreement(label: np.ndarray, basin: np.ndarray) -> tuple[float, float, float]:
    """Return the purity, the normalised mutual information and the adjusted Rand index of two partitions.

    The mutual information is divided by the mean of the two entropies (Vinh et al., JMLR 11, 2010); the Rand index is
    adjusted for chance (Hubert and Arabie 1985, doi:10.1007/BF01908075).
    """
    return (
        purity(label, basin),
        float(normalized_mutual_info_score(label, basin)),
        float(adjusted_rand_score(label, basin)),
    )


def label_angles(units: np.ndarray, label: np.ndarray, run: Threads) -> tuple[float, float]:
    """Return the mean angle (rad) over all pairs of one label, and over all pairs of two; NaN where there is no pair.

    ``units`` (sample, feature) are unit vectors in float64 and ``label`` (sample) integers. O(n²D) time, in chunks of
    the Gram matrix.
    """

    def pairs(part: slice) -> tuple[np.ndarray, np.ndarray]:
        total, count = np.zeros(2), np.zeros(2, dtype=np.int64)
        rest = units[part.start :]
        sphere.pair_angles(rest, label[part.start :], units[part] @ rest.T, total, count)
        return total, count

    totals, counts = zip(*run.map(pairs, len(units), PAIR_ROWS), strict=True)
    total, count = np.sum(totals, axis=0), np.sum(counts, axis=0)
    between, within = (float(t / c) if c else float("nan") for t, c in zip(total, count, strict=True))
    return within, between


def label_codes(traj: xr.DataArray) -> np.ndarray | None:
    """Return the samples' labels as integers from 0, or None if there are none."""
    if "label" not in traj.coords or traj["label"].dims != ("sample",):
        return None
    values = traj["label"].values
    missing = np.flatnonzero(traj["label"].isnull().values)
    if len(missing):
        raise TrajectoryError(
            f"basins compares its clusters with the labels, and found a missing one, first at sample {missing[0]} "
            f"({len(missing)} in all). Fill them in, or remove them with `.drop_vars('label')`."
        )
    codes: np.ndarray = np.unique(np.array(values.tolist()), return_inverse=True)[1]
    return codes


def drawn(n_samples: int, most: int, seed: int) -> np.ndarray:
    """Return all samples, or ``most`` of them drawn at random, in order."""
    if n_samples <= most:
        return np.arange(n_samples)
    return np.sort(np.random.default_rng(seed).choice(n_samples, most, replace=False))


def against_labels(
    paths: Paths, nearest: np.ndarray, label: np.ndarray, pairwise: np.ndarray, run: Threads
) -> dict[str, Any]:
    """Return the variables that compare labels with the nearest centers, and angles with labels, at each depth.

    ``pairwise`` are the samples of which all pairs are taken.
    """
    agreed = [agreement(label, nearest[:, at]) for at in range(nearest.shape[1])]
    apart = []
    for at in range(nearest.shape[1]):
        units = paths.states[pairwise, at] / paths.norm[pairwise, at, None]
        apart.append(label_angles(units, label[pairwise], run))
    purity, nmi, ari = np.array(agreed).T
    within, between = np.array(apart).T
    return {
        "purity": ("depth", purity),
        "nmi": ("depth", nmi),
        "ari": ("depth", ari),
        "within_angle": ("depth", within),
        "between_angle": ("depth", between),
    }
