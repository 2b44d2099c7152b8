"""Scores of states do not depend on batches, on axes, on units, or on the order of samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from depthflow.surrogate.baselines import Moments
from depthflow.surrogate.nearness import Groups, Nearness, Spread
from tests.tolerances import FLOAT32, FLOAT64, ROUNDED_STATES

DEPTHS, TOKENS, FEATURES = 2, 4, 5
TYPES = ["cls", "patch", "patch", "pad"]

seeds = st.integers(0, 2**32 - 1)
cuts = st.lists(st.integers(1, 8), max_size=4, unique=True).map(sorted)


def states(seed: int, samples: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Return states (sample, depth, token, feature) and others near them, far from zero."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(samples, DEPTHS, TOKENS, FEATURES)) + rng.normal(scale=3, size=FEATURES)
    return own, own + rng.uniform(0, 1) * rng.normal(size=own.shape)


def scores(found: np.ndarray, wanted: np.ndarray, at: list[int]) -> dict[str, np.ndarray]:
    """Return the scores of batches that end before the samples ``at``."""
    groups = Groups.of(TYPES)
    near, spread = Nearness(DEPTHS, groups), Spread(DEPTHS, groups, FEATURES)
    for one, other in zip(np.split(found, at), np.split(wanted, at), strict=True):
        paths = [list(torch.from_numpy(np.ascontiguousarray(part)).unbind(1)) for part in (one, other)]
        near.add(*paths)
        spread.add(paths[1])
    return near.scores(spread)


@settings(max_examples=15, deadline=None)
@given(seeds, cuts)
def test_batches_do_not_matter(seed: int, at: list[int]) -> None:
    wanted, found = states(seed)
    whole = scores(found, wanted, [])
    for name, values in scores(found, wanted, at).items():
        np.testing.assert_allclose(values, whole[name], **FLOAT64, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(1e-3, 1e3))
def test_a_rotation_and_a_change_of_units_do_not_matter(seed: int, unit: float) -> None:
    wanted, found = states(seed)
    turn = unit * ortho_group.rvs(FEATURES, random_state=seed)
    plain = scores(found, wanted, [])
    for name, values in scores(found @ turn, wanted @ turn, []).items():
        np.testing.assert_allclose(values, plain[name], **ROUNDED_STATES, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_the_order_of_samples_does_not_matter(seed: int) -> None:
    wanted, found = states(seed)
    order = np.random.default_rng(seed).permutation(len(wanted))
    plain = scores(found, wanted, [4])
    for name, values in scores(found[order], wanted[order], [4]).items():
        np.testing.assert_allclose(values, plain[name], **FLOAT64, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_states_that_are_the_teachers_are_exact_and_their_mean_explains_nothing(seed: int) -> None:
    wanted, _ = states(seed)
    own = scores(wanted, wanted, [3])
    for name, expected in (("r2", 1.0), ("cosine", 1.0), ("relative_error", 0.0)):
        np.testing.assert_allclose(own[name], expected, **FLOAT64)
    kinds = np.array(TYPES)
    mean = wanted.copy()
    for kind in ("cls", "patch", "pad"):
        mean[:, :, kinds == kind] = wanted[:, :, kinds == kind].mean(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(scores(mean, wanted, [3])["r2"][:, 1:], 0.0, **FLOAT64)
    mean[:, :, kinds != "pad"] = wanted[:, :, kinds != "pad"].mean(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(scores(mean, wanted, [3])["r2"][:, 0], 0.0, **FLOAT64)


@settings(max_examples=15, deadline=None)
@given(seeds, cuts, st.sampled_from([0.0, 1e6]))
def test_the_best_affine_map_does_not_depend_on_batches_or_the_origin(seed: int, at: list[int], origin: float) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.normal(size=(2, 60, FEATURES))
    expected = np.linalg.lstsq(before - before.mean(0), after - after.mean(0), rcond=None)[0].T
    moments = Moments()
    for start, stop in zip(np.split(before + origin, at), np.split(after, at), strict=True):
        moments.add(torch.from_numpy(start), torch.from_numpy(stop))
    operator, constant = (part.numpy() for part in moments.solved())
    np.testing.assert_allclose(operator, expected, **FLOAT32)
    predicted = (before - before.mean(0)) @ expected.T + after.mean(0)
    np.testing.assert_allclose((before + origin) @ operator.T + constant, predicted, **FLOAT32)


def test_what_is_not_zero_has_no_relative_error_to_zero() -> None:
    wanted, found = states(0)
    wanted[3, :, 0] = 0
    got = scores(found, wanted, [])
    for name in ("cosine", "relative_error"):
        assert np.isnan(got[name][:, 1]).all(), "the class token of one sample is zero"
    assert np.isfinite(got["relative_error"][:, [0, 2, 3]]).all()
    assert np.isfinite(got["cosine"][:, 2:]).all()


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_inputs_that_do_not_vary_predict_the_mean(value: float) -> None:
    moments = Moments()
    after = torch.randn(8, FEATURES, dtype=torch.float64)
    moments.add(torch.full((8, FEATURES), value, dtype=torch.float64), after)
    operator, constant = moments.solved()
    predicted = operator @ torch.full((FEATURES,), value, dtype=torch.float64) + constant
    np.testing.assert_allclose(predicted, after.mean(dim=0), **FLOAT64)
