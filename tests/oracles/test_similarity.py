"""The similarity kernels against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from depthflow.kernels import similarity as kernels
from depthflow.kernels.cosine import cosine
from tests.oracles import similarity as oracle
from tests.tolerances import EXACT, FLOAT32, FLOAT64


def drift(*shape: int) -> np.ndarray:
    """Return states (sample, layer, …) that change from layer to layer and lie off the origin."""
    return np.random.default_rng(0).normal(size=shape).cumsum(1) + 2


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, FLOAT32), (np.float64, FLOAT64)])
def test_cosine(dtype, tolerance):
    states = drift(3, 6, 7, 11).astype(dtype)
    each = cosine(states)
    assert each.shape == (3, 6, 6)
    for sample in range(3):
        np.testing.assert_allclose(each[sample], oracle.cosine(states[sample : sample + 1]), **tolerance)
    np.testing.assert_allclose(each, each.transpose(0, 2, 1), **EXACT)
    np.testing.assert_allclose(each.diagonal(axis1=1, axis2=2), 1.0, **EXACT)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_cosine_neither_overflows_nor_vanishes(size):
    states = drift(2, 3, 1, 5)
    np.testing.assert_allclose(cosine(states * size), cosine(states), **FLOAT64)


def test_cosine_marks_layers_without_direction():
    states = drift(2, 3, 4, 5)
    states[1, 2, 3] = 0.0
    each = cosine(states)
    assert np.isfinite(each[0]).all()
    assert np.isnan(each[1, 2]).all()
    assert np.isfinite(each[1, :2, :2]).all()


@pytest.mark.parametrize("features", [3, 11])
def test_cka_is_the_ratio_of_unbiased_statistics(features):
    states = drift(7, 4, features)
    np.testing.assert_allclose(kernels.cka(states), oracle.cka(states), **FLOAT64)


def test_cka_by_samples_and_by_features_agree(monkeypatch):
    states = drift(29, 4, 5)
    mean = states.mean(0)
    by_features = kernels._products_of_features(states, mean)
    np.testing.assert_allclose(kernels._products_of_samples(states, mean), by_features, **FLOAT64)
    monkeypatch.setattr(kernels, "TILE", 8)
    np.testing.assert_allclose(kernels._products_of_samples(states, mean), by_features, **FLOAT64)


def test_cka_of_resamples_counts_each_pair_of_samples_as_often_as_it_came(monkeypatch):
    monkeypatch.setattr(kernels, "TILE", 4)
    states = drift(9, 3, 5)
    once = kernels.cka_resampled(states, np.ones((1, 9)))
    np.testing.assert_allclose(once[0], kernels.cka(states), **FLOAT64)
    times = np.array([2, 0, 1, 3, 0, 1, 1, 0, 1])
    total = np.zeros((3, 3))
    grams = [(lambda x: x @ x.T)(states[:, layer] - states[:, layer].mean(0)) for layer in range(3)]
    centered = [_u_centered(gram) for gram in grams]
    for i in range(9):
        for j in range(9):
            at = np.array([gram[i, j] for gram in centered])
            total += times[i] * times[j] * np.outer(at, at)
    scale = np.sqrt(np.diag(total))
    np.testing.assert_allclose(kernels.cka_resampled(states, times[None])[0], total / np.outer(scale, scale), **FLOAT64)


def _u_centered(gram: np.ndarray) -> np.ndarray:
    count = len(gram)
    hollow = gram - np.diag(np.diag(gram))
    rows = hollow.sum(1) / (count - 2)
    result = hollow - rows[:, None] - rows[None, :] + hollow.sum() / ((count - 1) * (count - 2))
    return result - np.diag(np.diag(result))


@pytest.mark.parametrize("features", [3, 11])
def test_procrustes_is_the_angle_after_the_best_rotation(features):
    states = drift(7, 4, features)
    np.testing.assert_allclose(kernels.procrustes(states), oracle.procrustes(states), **FLOAT64)


@pytest.mark.parametrize("metric", [kernels.cka, kernels.procrustes])
def test_a_layer_that_does_not_vary_is_undefined(metric):
    states = drift(6, 3, 5).astype(np.float32)
    states[:, 1] = 0.1
    undefined = np.isnan(metric(states))
    assert undefined[1].all()
    assert undefined[:, 1].all()
    assert undefined.sum() == 5
