"""Expectation–maximisation for a mixture of von Mises–Fisher distributions (Banerjee et al. 2005)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthflow.kernels.bessel import MAX_CONCENTRATION, concentration, log_normalizer
from depthflow.measures._estimator import CHUNK
from depthflow.measures._lloyd import CANCELLED, Directions, iterate, seed_centers

if TYPE_CHECKING:
    from collections.abc import Callable

    from depthflow.measures._threads import Threads

LEAST_MEMBERS = 1.5
"""A component that holds less than this many samples has no spread of its own."""


class Components(NamedTuple):
    """``means`` (component, feature) of unit vectors, ``concentrations`` and ``weights`` (component)."""

    means: np.ndarray
    concentrations: np.ndarray
    weights: np.ndarray


class Estimate(NamedTuple):
    """What was found; ``log_likelihood`` is the samples' mean at ``components``."""

    components: Components
    log_likelihood: float
    n_iter: int
    settled: bool


class _Expected(NamedTuple):
    """Components and what the samples say of them: shares summed to ``counts``, weighted directions to ``sums``."""

    components: Components
    log_likelihood: float
    counts: np.ndarray
    sums: np.ndarray


class Units(NamedTuple):
    """Rows in their own precision and their norms; :meth:`part` gives unit vectors in float64, chunk by chunk."""

    rows: np.ndarray
    norm: np.ndarray

    def part(self, part: slice) -> np.ndarray:
        """Return the directions of some rows."""
        unit: np.ndarray = self.rows[part] / self.norm[part, None]
        return unit


def log_joint(units: np.ndarray, components: Components) -> np.ndarray:
    """Return ln(w_k C(κ_k) exp(κ_k⟨μ_k, u⟩)) of each direction u (sample, component)."""
    constant = np.array([log_normalizer(units.shape[1], kappa) for kappa in components.concentrations])
    with np.errstate(divide="ignore"):
        constant += np.log(components.weights)
    result: np.ndarray = constant + components.concentrations * (units @ components.means.T - 1.0)
    return result


def normalise(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log density of each sample, and its share in each component."""
    largest = joint.max(axis=1, keepdims=True)
    share = np.exp(joint - largest)
    total = share.sum(axis=1, keepdims=True)
    return (largest + np.log(total))[:, 0], share / total


def bic(log_likelihood: float, n_samples: int, n_components: int, dimension: int) -> float:
    """Return −2 ln L + p ln n; p counts D − 1 for each mean, 1 for each concentration, and k − 1 for the weights."""
    parameters = n_components * dimension + n_components - 1
    return float(-2.0 * n_samples * log_likelihood + parameters * np.log(n_samples))


def best_estimate(
    units: Units,
    data: Directions,
    n_components: int,
    *,
    n_init: int,
    max_iter: int,
    tol: float,
    rng: np.random.Generator,
    run: Threads,
) -> Estimate:
    """Climb from that one of ``n_init`` runs of spherical k-means whose clusters make the likeliest components."""
    starts = []
    for _ in range(n_init if n_components > 1 else 1):
        centers = seed_centers(data, n_components, rng, run)
        partition = iterate(data, centers, max_iter, tol, run)
        counts, sums = cluster_sums(units, partition.labels, n_components, run)
        components = maximised(counts, sums, partition.centers, counts < LEAST_MEMBERS)
        starts.append(_Expected(components, *_expect(units, components, run)))
    return _climb(units, max(starts, key=lambda start: start.log_likelihood), max_iter, tol, run)


def _climb(units: Units, now: _Expected, max_iter: int, tol: float, run: Threads) -> Estimate:
    """Alternate maximisation and expectation until the mean log-likelihood changes by no more than ``tol``."""
    n_iter, settled = 0, False
    lone = np.zeros(len(now.counts), dtype=bool)
    while n_iter < max_iter and not settled:
        n_iter += 1
        lone |= now.counts < LEAST_MEMBERS  # for good: at the border a component would change back at every step
        components = maximised(now.counts, now.sums, now.components.means, lone)
        before, now = now.log_likelihood, _Expected(components, *_expect(units, components, run))
        settled = abs(now.log_likelihood - before) <= tol
    return Estimate(now.components, now.log_likelihood, n_iter, settled)


def _expect(units: Units, components: Components, run: Threads) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the mean log-likelihood, and the components' numbers of samples and sums of directions."""
    density = np.empty(len(units.rows))

    def share(unit: np.ndarray, part: slice) -> np.ndarray:
        density[part], shares = normalise(log_joint(unit, components))
        return shares

    counts, sums = weighted_sums(units, share, run)
    return float(density.mean()), counts, sums


def weighted_sums(
    units: Units, weigh: Callable[[np.ndarray, slice], np.ndarray], run: Threads
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over samples of the weights (component) and of the weighted directions (component, feature)."""

    def one(part: slice) -> tuple[np.ndarray, np.ndarray]:
        unit = units.part(part)
        weight = weigh(unit, part)
        return weight.sum(axis=0), weight.T @ unit

    counts, sums = zip(*run.map(one, len(units.rows), CHUNK), strict=True)
    return np.sum(counts, axis=0), np.sum(sums, axis=0)


def cluster_sums(units: Units, label: np.ndarray, n_clusters: int, run: Threads) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of samples of each cluster, and the sum of their directions (cluster, feature)."""
    one_hot = np.eye(n_clusters)
    return weighted_sums(units, lambda _, part: one_hot[label[part]], run)


def maximised(counts: np.ndarray, sums: np.ndarray, means: np.ndarray, lone: np.ndarray) -> Components:
    """Return the components of greatest likelihood, given the samples' shares.

    A component that is ``lone``, with too few samples to have a spread, takes the concentration that all components
    share, from their pooled 1 − R̄ over n − k degrees of freedom: its own likelihood would grow without bound. One whose
    samples cancel keeps its mean.
    """
    dimension = sums.shape[1]
    total, (n_components, _) = counts.sum(), sums.shape
    length = np.linalg.norm(sums, axis=1)
    kept = length <= CANCELLED * np.maximum(counts, 1.0)
    directions = np.where(kept[:, None], means, sums / np.where(kept, 1.0, length)[:, None])
    kappa = np.array([concentration(dimension, r / max(n, 1.0)) for r, n in zip(length, counts, strict=True)])
    if lone.any():
        freedom = total - n_components
        pooled = min(1.0, (total - length.sum()) / freedom) if freedom > 0 else 0.0
        kappa[lone] = concentration(dimension, 1.0 - pooled) if pooled > 0 else MAX_CONCENTRATION
    return Components(directions, kappa, counts / total)
