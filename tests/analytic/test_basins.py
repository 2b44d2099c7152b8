"""Basins of trajectories whose clusters, margins and commitments are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

import depthflow
from tests.oracles import sphere as oracle
from tests.tolerances import EXACT, FLOAT32, FLOAT64, STOCHASTIC

FEATURES = 11
COUNTS = (9, 6, 5)
DEPTHS = 6


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def exact_directions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three orthonormal directions, each sample's one, and the samples at any norm."""
    directions = oracle.basis(FEATURES, 3, rng)
    own = rng.permutation(np.repeat(np.arange(3), COUNTS))
    return directions, own, directions[own] * rng.uniform(0.5, 3, size=(len(own), 1))


def on_arc(start: np.ndarray, end: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return the unit vectors at ``angle`` from ``start`` towards ``end``, of orthogonal unit vectors."""
    return np.cos(angle)[:, None] * start + np.sin(angle)[:, None] * end


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_at_exact_directions(dtype: type, rng: np.random.Generator) -> None:
    directions, own, rows = exact_directions(rng)
    model = depthflow.SphericalKMeans(3, random_state=0).fit(rows.astype(dtype))
    np.testing.assert_allclose(model.inertia_, 0, **FLOAT64)
    order = [model.labels_[own == cluster][0] for cluster in range(3)]
    np.testing.assert_array_equal(np.asarray(order)[own], model.labels_)
    np.testing.assert_allclose(
        model.cluster_centers_[order], directions, **(FLOAT32 if dtype is np.float32 else FLOAT64)
    )


@pytest.mark.parametrize("method", ["kmeans", "vmf"])
def test_paths_that_turn_from_one_direction_to_another(method: str, rng: np.random.Generator) -> None:
    """On the arc between orthogonal centers the margin at angle t is |π/2 − 2t|; the first is nearest up to π/4."""
    directions, own, ends = exact_directions(rng)
    angle = np.linspace(np.pi / 2, 0, DEPTHS)
    paths = np.stack([on_arc(directions[a], directions[(a + 1) % 3], angle) for a in own])
    paths[:, -1] = ends
    result = depthflow.basins(
        depthflow.trajectory(paths, dims=("sample", "depth", "feature"), label=own), 3, method=method
    )
    np.testing.assert_array_equal(result.basin, own)
    np.testing.assert_allclose(result.occupancy, np.array(COUNTS) / sum(COUNTS), **EXACT)
    np.testing.assert_allclose(result.center, directions, **FLOAT64)
    np.testing.assert_allclose(result.direction, directions[own], **FLOAT64)
    np.testing.assert_array_equal(
        result.basin_at_depth, np.where(angle < np.pi / 4, own[:, None], (own[:, None] + 1) % 3)
    )
    margin = np.broadcast_to(np.abs(np.pi / 2 - 2 * angle), (sum(COUNTS), DEPTHS))
    np.testing.assert_allclose(result.margin, margin, **FLOAT64)
    np.testing.assert_array_equal(result.commitment_depth, np.flatnonzero(angle < np.pi / 4)[0])
    np.testing.assert_allclose(result.silhouette, 1, **FLOAT64)
    for score in ("purity", "nmi", "ari"):
        np.testing.assert_allclose(result[score], 1, **FLOAT64)
    np.testing.assert_allclose(result.within_angle, 0, **FLOAT64)
    np.testing.assert_allclose(result.between_angle[[0, -1]], np.pi / 2, **FLOAT64)


def test_commitment_follows_the_last_change(rng: np.random.Generator) -> None:
    directions, own, _ = exact_directions(rng)
    visits = np.repeat(own[:, None], DEPTHS, axis=1)
    last_change = np.arange(len(own)) % DEPTHS
    for sample, change in enumerate(last_change):
        if change:
            visits[sample, change - 1] = (own[sample] + 1) % 3
    traj = depthflow.trajectory(directions[visits], dims=("sample", "depth", "feature"))
    later = traj.assign_coords(depth=[0, 2, 3, 5, 8, 13])
    np.testing.assert_array_equal(depthflow.basins(traj, 3).commitment_depth, last_change)
    np.testing.assert_array_equal(depthflow.basins(later, 3).commitment_depth, later.depth.values[last_change])


def test_angles_between_and_within_labels_in_the_plane() -> None:
    """Label 0 at angles ±a and label 1 at π/2 ± b: within (2a + 2b)/2, between π/2 by symmetry while a + b < π/2."""
    a, b = 0.3, 0.1
    turn = np.array([-a, a, np.pi / 2 - b, np.pi / 2 + b])
    states = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    traj = depthflow.trajectory(
        np.stack([states, 2 * states], axis=1), dims=("sample", "depth", "feature"), label=list("xxyy")
    )
    result = depthflow.basins(traj, 2)
    np.testing.assert_allclose(result.within_angle, a + b, **FLOAT64)
    np.testing.assert_allclose(result.between_angle, np.pi / 2, **FLOAT64)


@pytest.mark.parametrize(("features", "kappa"), [(3, 2.0), (11, 50.0), (64, 1e3), (384, 5e4)])
def test_concentration_is_recovered(features: int, kappa: float, rng: np.random.Generator) -> None:
    mean = oracle.basis(features, 1, rng)[0]
    rows = oracle.draw(mean, kappa, 2000, rng)
    model = depthflow.VonMisesFisherMixture(random_state=0).fit(rows)
    np.testing.assert_allclose(model.concentrations_ / kappa, 1, **STOCHASTIC)
    np.testing.assert_allclose(model.means_ @ mean, 1, **STOCHASTIC)
    resultant = np.linalg.norm(rows.mean(axis=0))
    np.testing.assert_allclose(oracle.mean_resultant(features, model.concentrations_[0])[0], resultant, **FLOAT64)


def test_mixture_of_unequal_components_is_recovered(rng: np.random.Generator) -> None:
    means, kappa, counts = oracle.basis(64, 3, rng), np.array([300.0, 2e3, 4e4]), np.array([600, 300, 100])
    rows = np.vstack([oracle.draw(*draw, rng) for draw in zip(means, kappa, counts, strict=True)])
    model = depthflow.VonMisesFisherMixture(3, random_state=0).fit(rng.permutation(rows))
    order = np.argsort(-model.weights_)
    np.testing.assert_allclose(model.weights_[order], counts / 1000, **FLOAT64)
    np.testing.assert_allclose(model.concentrations_[order] / kappa, 1, **STOCHASTIC)
    np.testing.assert_allclose(np.abs(np.sum(model.means_[order] * means, axis=1)), 1, **STOCHASTIC)


@pytest.mark.parametrize("clusters", [1, 2, 4])
@pytest.mark.parametrize("method", ["kmeans", "vmf"])
def test_the_number_of_separate_caps_is_found(clusters: int, method: str, rng: np.random.Generator) -> None:
    means = oracle.basis(64, clusters, rng)
    own = np.repeat(np.arange(clusters), 30)
    ends = np.vstack([oracle.draw(mean, 400.0, 30, rng) for mean in means])
    traj = depthflow.trajectory(np.stack([ends, ends], axis=1), dims=("sample", "depth", "feature"), label=own)
    result = depthflow.basins(traj, max_basins=8, method=method)
    assert result.sizes["basin"] == clusters
    assert int(result.bic.idxmin()) == clusters
    np.testing.assert_allclose(result.ari, 1, **FLOAT64)
    np.testing.assert_array_equal(result.n_basins, np.arange(1, 9))


def test_lone_samples_do_not_raise_the_number_of_basins(rng: np.random.Generator) -> None:
    """A component of a single sample has an unbounded likelihood, which must not count."""
    ends = np.vstack([oracle.draw(mean, 200.0, 15, rng) for mean in oracle.basis(64, 2, rng)])
    traj = depthflow.trajectory(np.stack([ends, ends], axis=1), dims=("sample", "depth", "feature"))
    assert depthflow.basins(traj).sizes["basin"] == 2


def test_bic_counts_the_parameters(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(40, 11))
    model = depthflow.VonMisesFisherMixture(3, random_state=0).fit(rows)
    parameters = 3 * 10 + 3 + 2
    expected = -2 * model.score_samples(rows).sum() + parameters * np.log(40)
    np.testing.assert_allclose(model.bic(rows), expected, **FLOAT64)


def test_log_density_is_the_formula(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(20, 5))
    model = depthflow.VonMisesFisherMixture(2, random_state=0).fit(rows)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    density = sum(
        weight * np.exp(oracle.log_normalizer(5, kappa) + kappa * (units @ mean - 1))
        for weight, kappa, mean in zip(model.weights_, model.concentrations_, model.means_, strict=True)
    )
    np.testing.assert_allclose(model.score_samples(rows), np.log(density), **FLOAT64)


def test_uniform_directions_have_the_density_of_the_sphere() -> None:
    rows = np.vstack([np.eye(3), -np.eye(3)])
    model = depthflow.VonMisesFisherMixture().fit(rows)
    np.testing.assert_allclose(model.concentrations_, 0, **FLOAT64)
    np.testing.assert_allclose(model.score(rows), -np.log(4 * np.pi), **FLOAT64)
