"""Clusters of the final directions: how many, which, how concentrated, and how well each sample lies in its own."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from depthflow.errors import ParameterError
from depthflow.kernels import sphere
from depthflow.measures._estimator import CHUNK
from depthflow.measures._mixture import LEAST_MEMBERS, Units, cluster_sums, maximised
from depthflow.measures._threads import Threads, threads
from depthflow.measures.spherical_kmeans import SphericalKMeans
from depthflow.measures.von_mises_fisher import VonMisesFisherMixture


class Clusters(NamedTuple):
    """``label`` (sample), unit ``centers`` (basin, feature) and ``concentration`` (basin)."""

    label: np.ndarray
    centers: np.ndarray
    concentration: np.ndarray


def choose_number(end: Units, max_basins: int, n_init: int, seed: int) -> tuple[int, np.ndarray]:
    """Return the number of components of least BIC, all of which hold samples, and the whole curve from 1."""
    most = min(max_basins, max(1, len(end.rows) // 2))
    curve, filled = np.empty(most), np.empty(most, dtype=bool)
    for number in range(1, most + 1):
        model = VonMisesFisherMixture(number, n_init=n_init, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(end.rows)
        curve[number - 1] = model.bic(end.rows)
        filled[number - 1] = len(np.unique(model.predict(end.rows))) == number
    return int(np.argmin(np.where(filled, curve, np.inf))) + 1, curve


def cluster(end: Units, n_basins: int, method: str, n_init: int, seed: int) -> Clusters:
    """Return the clusters in their canonical order."""
    if method == "vmf":
        mixture = VonMisesFisherMixture(n_basins, n_init=n_init, random_state=seed).fit(end.rows)
        label, centers = mixture.predict(end.rows), mixture.means_
    else:
        kmeans = SphericalKMeans(n_basins, n_init=n_init, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "SphericalKMeans found", ConvergenceWarning)
            kmeans.fit(end.rows)
        label, centers = kmeans.labels_, kmeans.cluster_centers_
    held, first = np.unique(label, return_index=True)
    if len(held) < n_basins:
        raise ParameterError(
            f"basins was asked for n_basins={n_basins}, but no more than {len(held)} hold samples"
            f"{': there are no more distinct directions' if method == 'kmeans' else ' by this mixture'}. "
            f"Ask for at most {len(held)}."
        )
    order = np.lexsort((first, -np.bincount(label)))
    label, centers = np.argsort(order)[label], centers[order]
    if method == "vmf":
        return Clusters(label, centers, mixture.concentrations_[order])
    with threads() as run:
        counts, sums = cluster_sums(end, label, n_basins, run)
    return Clusters(label, centers, maximised(counts, sums, centers, counts < LEAST_MEMBERS).concentrations)


def silhouette(end: Units, label: np.ndarray, n_basins: int, run: Threads) -> np.ndarray:
    """Return the silhouettes by 1 − cos, from no more than the clusters' mean vectors m.

    The mean of 1 − ⟨u, u_j⟩ = ½‖u − u_j‖² over a cluster is ½‖u − m‖² plus the cluster's own mean of ½‖u_j − m‖².
    """
    if n_basins == 1:
        return np.full(len(label), np.nan)
    counts, sums = cluster_sums(end, label, n_basins, run)
    means = sums / counts[:, None]
    apart = np.empty((len(label), n_basins))
    run.map(lambda part: sphere.mean_half_squares(end.part(part), means, apart[part]), len(label), CHUNK)
    own = np.take_along_axis(apart, label[:, None], axis=1)[:, 0]
    apart += np.bincount(label, own, minlength=n_basins) / counts
    members = counts[label]
    inner = np.take_along_axis(apart, label[:, None], axis=1)[:, 0] * members / np.maximum(members - 1, 1)
    np.put_along_axis(apart, label[:, None], np.inf, axis=1)
    outer = apart.min(axis=1)
    larger = np.maximum(inner, outer)
    defined = (members > 1) & (larger > 0)
    return np.where(defined, (outer - inner) / np.where(defined, larger, 1.0), 0.0)
