"""What must hold of the phases of any trajectory."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import depthflow
from tests.oracles import segment as oracle
from tests.tolerances import FLOAT64

METHODS = ("optimal", "bisection")


def states(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(9, 8, 5, 11)).cumsum(1)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6), n_phases=st.integers(1, 3), min_size=st.integers(1, 2), method=st.sampled_from(METHODS)
)
def test_phases_follow_from_the_similarity(seed, n_phases, min_size, method):
    traj = depthflow.trajectory(states(seed))
    similarity = depthflow.similarity(traj)
    got = depthflow.phases(traj, n_phases, method=method, min_size=min_size)
    xr.testing.assert_allclose(got.similarity.drop_vars("phase"), similarity, rtol=0, atol=0)
    given_matrix = depthflow.phases(similarity, n_phases, method=method, min_size=min_size)
    xr.testing.assert_identical(given_matrix.drop_attrs(), got.drop_attrs())
    weight = 1 - similarity.values
    np.fill_diagonal(weight, 0)
    if method == "optimal":
        expected = oracle.best(weight, n_phases, min_size)[0]
    else:
        expected = oracle.bisected(weight, n_phases, min_size)[-1]
    assert tuple(got.boundary.values) == expected
    assert got.phase.values.tolist() == (1 + np.searchsorted(got.boundary.values, got.block.values)).tolist()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), metric=st.sampled_from(("cosine", "cka", "procrustes")), rows=st.integers(1, 9))
def test_chunked_equals_whole_and_a_seed_fixes_all_draws(seed, metric, rows):
    traj = depthflow.trajectory(states(seed))
    kwargs = {"metric": metric, "n_boot": 7, "n_null": 6, "seed": seed}
    whole = depthflow.phases(traj, 3, **kwargs)
    xr.testing.assert_identical(whole, depthflow.phases(traj, 3, **kwargs))
    chunked = depthflow.phases(traj.chunk(sample=rows), 3, **kwargs)
    for name in whole.data_vars:
        np.testing.assert_allclose(chunked[name], whole[name], **FLOAT64)


@pytest.mark.parametrize("metric", ["cosine", "procrustes"])
def test_resamples_are_the_measure_of_resampled_samples(metric):
    traj = depthflow.trajectory(states(0))
    got = depthflow.phases(traj, 3, metric=metric, n_boot=40, seed=5)
    rng, contrasts, ends = np.random.default_rng([5, 0]), [], np.zeros(7)
    for _ in range(40):
        drawn = depthflow.phases(traj.isel(sample=rng.integers(9, size=9)), 3, metric=metric)
        contrasts.append(drawn.contrast.item())
        ends += np.isin(drawn.block, drawn.boundary)
    np.testing.assert_allclose([got.contrast_low, got.contrast_high], np.percentile(contrasts, [2.5, 97.5]), **FLOAT64)
    np.testing.assert_allclose(got.boundary_probability, ends / 40, **FLOAT64)


def test_the_null_does_not_depend_on_the_resamples():
    traj = depthflow.trajectory(states(1))
    one, other = (depthflow.phases(traj, 2, n_boot=n, n_null=9) for n in (0, 8))
    np.testing.assert_array_equal(one.null_contrast, other.null_contrast)
    assert one.p_value == (1 + (one.null_contrast >= one.contrast).sum()) / 10
