"""What `plot.jacobian` draws, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import depthflow
from depthflow.errors import ParameterError
from tests.figures import close_figures  # noqa: F401
from tests.tolerances import EXACT


def result(start: Any = (0, 1, 2, 3)) -> xr.Dataset:
    rng = np.random.default_rng(0)
    stop = np.arange(1, 5)
    return xr.Dataset(
        {
            "singular_value": (("sample", "span", "mode"), rng.uniform(0.5, 2, (6, 4, 2))),
            "rms_gain": (("sample", "span"), rng.uniform(0.5, 2, (6, 4))),
        },
        {
            "span": stop,
            "start": ("span", np.broadcast_to(start, 4)),
            "stop": ("span", stop),
            "mode": [1, 2],
            "label": ("sample", [0, 1] * 3),
        },
    )


@pytest.mark.parametrize("mode", [1, 2])
def test_the_median_over_samples_of_one_mode_against_the_block(mode: int) -> None:
    ds = result()
    ax = depthflow.plot.jacobian(ds, mode=mode)
    line = next(line for line in ax.lines if len(line.get_xdata()) == 4)
    assert_allclose(line.get_xdata(), [1, 2, 3, 4], **EXACT)
    assert_allclose(line.get_ydata(), np.median(ds.singular_value.sel(mode=mode), axis=0), **EXACT)
    assert ax.get_xlabel() == "block"
    assert f"mode {mode}" in ax.get_ylabel()
    assert any(set(line.get_ydata()) == {1.0} for line in ax.lines), "the line below which changes shrink"


def test_longer_spans_lie_at_the_depth_where_they_end() -> None:
    ax = depthflow.plot.jacobian(result(start=0), variable="rms_gain")
    assert ax.get_xlabel() == "depth"
    assert "mode" not in ax.get_ylabel()


def test_groups_and_null() -> None:
    ds = result()
    ax = depthflow.plot.jacobian(ds, variable="rms_gain", by="label", null=ds, null_label="twin")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"0", "1"} <= set(texts)
    assert any("twin" in text for text in texts)


def test_results_from_states_alone() -> None:
    flow = depthflow.synthetic.rotation(n_features=6)
    rng = np.random.default_rng(0)
    draws = [flow + 0.01 * float(rng.normal()) * flow[:, :1].values for _ in range(2)]
    ax = depthflow.plot.jacobian(depthflow.finite_jacobian(flow, draws), by="token_type")
    assert ax.get_xlabel() == "block"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": 3}, r"asked for mode 3; this result has the modes \[1, 2\]"),
        ({"variable": "gain"}, "needs the variable 'gain', which `depthflow.jacobian` makes"),
        ({"by": "row"}, "by='row'"),
    ],
)
def test_what_is_not_there(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        depthflow.plot.jacobian(result(), **options)
