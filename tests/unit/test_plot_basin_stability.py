"""The share of each basin with its interval, beside its two nulls."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from depthflow import plot
from depthflow.errors import ParameterError


def stability(shift: float = 0.0) -> xr.Dataset:
    shares = {
        "basin_stability": [0.9, 0.5, np.nan],
        "low": [0.8, 0.2, np.nan],
        "high": [0.95, 0.8, np.nan],
        "carried_stability": [1.0, 0.4, np.nan],
    }
    return xr.Dataset({name: ("basin", np.array(values) - shift) for name, values in shares.items()})


def test_shares_intervals_and_what_no_answer_gives() -> None:
    ax = plot.basin_stability(stability())
    marks, bars = ax.containers[0].lines[0], ax.lines[-1]
    np.testing.assert_array_equal(marks.get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(marks.get_ydata(), [0.9, 0.5, np.nan])
    (interval,) = ax.containers[0].lines[2]
    first = interval.get_segments()[1]
    np.testing.assert_allclose(first, [[1, 0.2], [1, 0.8]])
    np.testing.assert_array_equal(bars.get_ydata(), [1.0, 0.4, np.nan])
    assert bars.get_marker() == "_"
    assert ax.get_ylim()[0] == 0


def test_the_null_stands_beside_and_has_bars_of_its_own() -> None:
    ax = plot.basin_stability(stability(), null=stability(0.1), label="trained", null_label="twin")
    mine, theirs = (container.lines[0] for container in ax.containers)
    assert (mine.get_xdata() < theirs.get_xdata()).all()
    np.testing.assert_allclose(theirs.get_ydata(), [0.8, 0.4, np.nan])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(texts) == ["if no block answered", "trained", "twin"]
    bars = [line for line in ax.lines if line.get_marker() == "_"]
    np.testing.assert_allclose([bar.get_ydata()[1] for bar in bars], [0.4, 0.3])


def test_without_the_carried_shares_there_are_no_bars() -> None:
    ax = plot.basin_stability(stability().drop_vars("carried_stability"))
    assert not [line for line in ax.lines if line.get_marker() == "_"]


def test_what_is_no_stability_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"plot.basin_stability needs the variable 'low', which `depthflow.basin"):
        plot.basin_stability(stability().drop_vars("low"))
