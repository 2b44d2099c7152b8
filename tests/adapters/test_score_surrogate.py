"""A surrogate of every family: what it is before any training is its teacher's blocks repeated, by another route."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest

import depthflow
from depthflow.models.detect import adapt
from depthflow.surrogate.recurrent import Plan, RecurrentSurrogate
from tests.adapters.families import CASES, WIDTH, Case
from tests.adapters.runs import given
from tests.snapshot import Snapshot
from tests.tolerances import FLOAT32, ITERATIVE

RECURRENT = "hf ALBERT", "weight-tied"
"""These have no blocks that a surrogate could do with fewer of."""


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in RECURRENT], ids=lambda case: case.name)
def test_an_untrained_surrogate_is_the_repetition(case: Case) -> None:
    model = case.model()
    names = adapt(model, given(case, model)).names
    medoids = (1, case.depth)
    phases = tuple(accumulate([1, *[0] * (case.depth - 2), 1]))
    plan = Plan(tuple(names), phases, medoids, WIDTH, depth_scale=False, writers=((), ()))
    surrogate = RecurrentSurrogate(model, plan)
    before = Snapshot(model.train()), Snapshot(surrogate)
    got = depthflow.score_surrogate(surrogate, model, case.batch(), blocks=given(case, model), progress=False)
    before[0].require(model)
    before[1].require(surrogate)
    assert "repeated" not in got.attrs
    repeated = got.sel(baseline="repeated", drop=True)
    for name in ("r2", "cosine", "relative_error"):
        np.testing.assert_allclose(repeated[f"baseline_{name}"], got[name], **ITERATIVE)
    assert got.token_type.values[0] == "all"
    assert set(got.token_type.values[1:]) == set(case.types)
    assert np.isfinite(got.epsilon)
    assert got.epsilon > 0
    np.testing.assert_allclose(got.relative_error.sel(depth=1), 0.0, **FLOAT32, err_msg="the teacher's first block")
