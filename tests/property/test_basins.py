"""What must hold of basins and of the clusterings whatever the states: symmetries, chunks, threads, oracles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples
from threadpoolctl import threadpool_limits

import depthflow
from tests.oracles import sphere as oracle
from tests.tolerances import EXACT, FLOAT32, FLOAT64, SMALL_ANGLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

SAMPLES, DEPTHS, TOKENS, FEATURES = 17, 6, 7, 11
SEEDS = st.integers(0, 2**32 - 1)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
few = settings(max_examples=20, deadline=None)


def random_trajectory(seed: int, dtype: type = np.float64) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=SAMPLES)
    states = rng.normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES)) + 2 * rng.normal(size=(3, 1, 1, FEATURES))[label]
    return depthflow.trajectory(states.astype(dtype), token_type=["cls"] + ["patch"] * 6, label=label)


def assert_same(
    result: xr.Dataset, expected: xr.Dataset, tolerance: dict[str, float], leave: Sequence[str] = ()
) -> None:
    assert set(result.variables) == set(expected.variables)
    for name in expected.variables:
        if name in leave:
            continue
        if np.issubdtype(expected[name].dtype, np.floating):
            np.testing.assert_allclose(result[name], expected[name], err_msg=str(name), **tolerance)
        else:
            np.testing.assert_array_equal(result[name], expected[name], err_msg=str(name))


@few
@given(SEEDS, st.sampled_from(["cls", "patch"]))
def test_every_variable_is_what_its_definition_says(seed: int, tokens: str) -> None:
    traj = random_trajectory(seed)
    result = depthflow.basins(traj, 3, tokens=tokens, seed=seed)
    chosen = depthflow.select_tokens(traj, tokens).values
    paths = np.array([[oracle.mean_direction(chosen[s, d]) for d in range(DEPTHS)] for s in range(SAMPLES)])
    basin, label = result.basin.values, traj.label.values
    expected = [[oracle.nearest(paths[s, d], result.center.values) for d in range(DEPTHS)] for s in range(SAMPLES)]
    nearest = np.array([[at for at, _ in path] for path in expected])
    np.testing.assert_array_equal(result.basin_at_depth, nearest)
    np.testing.assert_array_equal(basin, nearest[:, -1])
    np.testing.assert_allclose(result.direction, paths[:, -1], **FLOAT64)
    np.testing.assert_allclose(result.margin, [[value for _, value in path] for path in expected], **SMALL_ANGLE)
    committed = [oracle.commitment(path, traj.depth.values) for path in nearest]
    np.testing.assert_array_equal(result.commitment_depth, committed)
    for at in range(3):
        members = paths[basin == at, -1]
        np.testing.assert_allclose(result.center[at], oracle.mean_direction(members), **FLOAT64)
        assert result.occupancy[at] == len(members) / SAMPLES
    np.testing.assert_allclose(result.silhouette, oracle.silhouette(paths[:, -1], basin), **FLOAT64)
    np.testing.assert_allclose(result.silhouette, silhouette_samples(paths[:, -1], basin, metric="cosine"), **FLOAT64)
    for depth in range(DEPTHS):
        np.testing.assert_allclose(result.purity[depth], oracle.purity(label, nearest[:, depth]), **FLOAT64)
        within, between = oracle.label_angles(paths[:, depth], label)
        np.testing.assert_allclose(result.within_angle[depth], within, **FLOAT64)
        np.testing.assert_allclose(result.between_angle[depth], between, **FLOAT64)


@few
@given(SEEDS)
def test_a_rotation_of_the_features_turns_directions_alone(seed: int) -> None:
    traj = random_trajectory(seed)
    rotation = oracle.basis(FEATURES, FEATURES, np.random.default_rng(seed))
    turned = traj.copy(data=traj.values @ rotation)
    expected = depthflow.basins(traj, 3)
    result = depthflow.basins(turned, 3)
    assert_same(result, expected, SMALL_ANGLE, leave=("center", "direction"))
    for name in ("center", "direction"):
        np.testing.assert_allclose(result[name], expected[name].values @ rotation, **SMALL_ANGLE)


@few
@given(SEEDS)
def test_positive_rescaling_changes_nothing(seed: int) -> None:
    traj = random_trajectory(seed)
    scale = 2.0 ** np.random.default_rng(seed).integers(-20, 20, size=(SAMPLES, DEPTHS, TOKENS, 1))
    for tokens in ("cls", "patch"):
        expected = depthflow.basins(traj, 3, tokens=tokens)
        assert_same(depthflow.basins(traj * scale, 3, tokens=tokens), expected, EXACT)


@few
@given(SEEDS)
def test_the_order_of_patches_does_not_matter(seed: int) -> None:
    traj = random_trajectory(seed)
    order = np.r_[0, 1 + np.random.default_rng(seed).permutation(TOKENS - 1)]
    expected = depthflow.basins(traj, 3, tokens="patch")
    assert_same(depthflow.basins(traj.isel(token=order), 3, tokens="patch"), expected, SMALL_ANGLE)


@few
@given(SEEDS)
def test_the_order_of_separate_samples_permutes_the_answer(seed: int) -> None:
    """Well apart and of unequal sizes, so that the optimum and the numbering are the only ones."""
    rng = np.random.default_rng(seed)
    own = np.repeat([0, 1, 2], [8, 5, 4])
    ends = 30 * oracle.basis(FEATURES, 3, rng)[own] + rng.normal(size=(17, FEATURES))
    traj = depthflow.trajectory(
        np.stack([rng.normal(size=ends.shape), ends], axis=1), dims=("sample", "depth", "feature"), label=own
    )
    order = rng.permutation(17)
    for method in ("kmeans", "vmf"):
        expected = depthflow.basins(traj, 3, method=method)
        result = depthflow.basins(traj.isel(sample=order), 3, method=method)
        assert_same(result, expected.isel(sample=order), SMALL_ANGLE)
        np.testing.assert_array_equal(expected.basin, own)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.integers(1, SAMPLES), st.sampled_from([np.float32, np.float64]), st.sampled_from(["cls", "patch"]))
def test_chunked_equals_whole(seed: int, chunk: int, dtype: type, tokens: str) -> None:
    traj = random_trajectory(seed, dtype)
    chunked = traj.chunk(sample=chunk, depth=2, token=3, feature=4)
    for settings_ in ({"n_basins": 3}, {"method": "vmf", "max_basins": 3}):
        expected = depthflow.basins(traj, tokens=tokens, **settings_)
        assert_same(depthflow.basins(chunked, tokens=tokens, **settings_), expected, EXACT)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_number_of_threads_does_not_matter(dtype: type) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 23)).astype(dtype)
    answers = []
    for count in (1, 2, 5):
        with threadpool_limits(count, user_api="blas"):
            kmeans = depthflow.SphericalKMeans(7, max_iter=8, random_state=0).fit(rows)
            mixture = depthflow.VonMisesFisherMixture(3, max_iter=8, random_state=0).fit(rows)
        answers.append((kmeans.labels_, kmeans.cluster_centers_, kmeans.inertia_, mixture.means_, mixture.bic(rows)))
    for answer in answers[1:]:
        for value, expected in zip(answer, answers[0], strict=True):
            np.testing.assert_array_equal(value, expected)


@few
@given(SEEDS, st.integers(1, 6), st.sampled_from([np.float32, np.float64]))
def test_clusters_are_a_fixed_point(seed: int, clusters: int, dtype: type) -> None:
    """Each row is with its nearest center, each center is its rows' mean direction, and no cluster is empty."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(40, FEATURES)).astype(dtype)
    model = depthflow.SphericalKMeans(clusters, tol=0, random_state=seed).fit(rows)
    tolerance = SMALL_ANGLE if dtype == np.float64 else FLOAT32
    for at, center in enumerate(model.cluster_centers_):
        np.testing.assert_allclose(center, oracle.mean_direction(rows[model.labels_ == at]), **tolerance)
    np.testing.assert_allclose(model.inertia_, oracle.inertia(rows, model.cluster_centers_), **SMALL_ANGLE)
    np.testing.assert_allclose(model.score(rows), -model.inertia_, **FLOAT64)
    np.testing.assert_array_equal(model.predict(rows), model.labels_)
    np.testing.assert_array_equal(model.transform(rows).argmin(axis=1), model.labels_)


@few
@given(SEEDS, st.integers(1, 4))
def test_the_likelihood_never_falls(seed: int, components: int) -> None:
    """Where every component keeps a spread of its own, and the k-means that starts them has ended by itself."""
    rows = np.random.default_rng(seed).normal(size=(60, 5))
    models = [
        depthflow.VonMisesFisherMixture(components, max_iter=count, tol=0, random_state=0).fit(rows)
        for count in (15, 16, 18, 22, 30)
    ]
    assume(all(model.weights_.min() * len(rows) > 2 for model in models))
    scores = [model.score(rows) for model in models]
    rounding = FLOAT64["rtol"] * np.abs(scores[:-1])
    assert np.all(np.diff(scores) >= -rounding)
