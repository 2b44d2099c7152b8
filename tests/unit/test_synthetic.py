"""The synthetic flows are what they claim, by plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import depthflow
from depthflow.errors import ParameterError
from tests.tolerances import FLOAT64


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_spherical_sink_shrinks_every_angle_by_the_rate():
    flow = depthflow.synthetic.spherical_sink(rate=0.4, n_depths=5, n_samples=9, n_sinks=3)
    direction = unit(flow.values)
    for sink in range(3):
        members = direction[flow.label.values == sink]
        axis = unit(np.linalg.svd(members[:, -1].reshape(-1, 16), full_matrices=False)[2][0])
        assert np.abs(members[:, -1] @ axis).min() > 0.9
    step = np.arccos((direction[:, 1:] * direction[:, :-1]).sum(-1))
    np.testing.assert_allclose(step[:, 1:] / step[:, :-1], 0.6, **FLOAT64)
    norm = np.linalg.norm(flow.values, axis=-1)
    np.testing.assert_allclose(norm, norm[:, :1].repeat(5, axis=1), **FLOAT64)


def test_rotation_turns_by_its_angle_and_grows():
    flow = depthflow.synthetic.rotation(angle=0.2, growth=1.5, n_depths=4)
    direction = unit(flow.values)
    np.testing.assert_allclose(np.arccos((direction[:, 1:] * direction[:, :-1]).sum(-1)), 0.2, **FLOAT64)
    np.testing.assert_allclose(np.linalg.norm(flow.values, axis=-1)[0, :, 0], 1.5 ** np.arange(4), **FLOAT64)


def test_phased_depth_is_similar_within_phases_only():
    flow = depthflow.synthetic.phased_depth(lengths=(2, 3), spread=0.1)
    mean = unit(flow.values.mean(axis=(0, 2)))
    gram = mean @ mean.T
    phase = np.array([0, 1, 1, 2, 2, 2])
    same = phase[:, None] == phase
    assert gram[same].min() > 0.98
    assert np.abs(gram[~same]).max() < 0.1


def test_low_rank_drift_has_its_rank():
    flow = depthflow.synthetic.low_rank_drift(rank=3)
    rank = np.linalg.matrix_rank(np.diff(flow.values, axis=1), rtol=1e-10)
    assert set(rank.ravel().tolist()) == {3}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.spherical_sink(rate=1.0), r"a rate in \(0, 1\); got 1.0"),
        (lambda s: s.spherical_sink(n_features=3), r"more features than sinks; got 3 and 3"),
        (lambda s: s.rotation(growth=0.0), r"positive growth; got 0.0"),
        (lambda s: s.phased_depth(lengths=(3, 0)), r"at least one block each; got lengths \(3, 0\)"),
        (lambda s: s.low_rank_drift(rank=18), r"a rank in 1…17; got 18"),
    ],
)
def test_impossible_flows(call, message):
    with pytest.raises(ParameterError, match=message):
        call(depthflow.synthetic)
