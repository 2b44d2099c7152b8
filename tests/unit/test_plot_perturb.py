"""The picture of a push: what is drawn, where it starts, and what each mistake is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from depthflow import plot
from depthflow.errors import ParameterError
from depthflow.schema import describe
from tests.figures import close_figures  # noqa: F401
from tests.tolerances import FLOAT64
from tests.unit.plot_results import DEPTHS, SAMPLES, TOKENS, TYPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWS, PUSHED, ANGLE = 2, 2, 0.05


def perturb_result(seed: int = 0) -> xr.Dataset:
    angle = np.random.default_rng(seed).uniform(0.01, 0.1, size=(DRAWS, SAMPLES, DEPTHS, TOKENS))
    angle[:, :, :PUSHED] = 0
    result = xr.Dataset(
        {
            "angle": (("draw", "sample", "depth", "token"), angle),
            "gain": (("draw", "sample", "depth"), angle[..., 0] / ANGLE),
            "growth_rate": ("block", [np.nan, np.nan, 0.1, -0.2, 0.3]),
            "recovery": ("sample", np.zeros(SAMPLES)),
        },
        {
            "depth": np.arange(DEPTHS),
            "block": np.arange(1, DEPTHS),
            "token_type": ("token", np.array(TYPES, dtype=np.dtypes.StringDType())),
            "label": ("sample", [4, 9, 4]),
        },
        {"pushed_depth": PUSHED, "pushed_angle": ANGLE},
    )
    return describe(result, "perturb")


def texts(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_the_gain_is_the_median_over_draws_and_samples_from_the_push_on() -> None:
    ds = perturb_result()
    ax = plot.perturb(ds)
    expected = np.median(ds.gain.values.reshape(-1, DEPTHS), axis=0)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [np.nan, np.nan, *expected[PUSHED:]], **FLOAT64)
    assert ax.lines[0].get_xdata().tolist() == list(range(DEPTHS))
    assert ax.get_ylabel().replace("\n", " ") == "angle of the pushed tokens over that of the push"
    assert ax.get_xlabel() == "depth"
    assert texts(ax) == ["as pushed", "push"]
    assert ax.get_ylim()[0] == 0


def test_angles_are_parted_by_token_type() -> None:
    ds = perturb_result()
    ax = plot.perturb(ds, variable="angle")
    assert texts(ax) == ["cls", "reg", "patch", "as pushed", "push"]
    patches = np.median(ds.angle.values[..., 2:].transpose(2, 0, 1, 3).reshape(DEPTHS, -1), axis=1)
    np.testing.assert_allclose(ax.lines[2].get_ydata()[PUSHED:], patches[PUSHED:], **FLOAT64)
    assert ax.get_ylabel().replace("\n", " ") == "angle between the perturbed and the unperturbed state [rad]"


@pytest.mark.parametrize(("variable", "level"), [("gain", 1.0), ("angle", ANGLE), ("growth_rate", 0.0)])
def test_lines_mark_the_push_and_what_passing_it_on_would_be(variable: str, level: float) -> None:
    ax = plot.perturb(perturb_result(), variable=variable)
    marks = {line.get_label(): line for line in ax.lines}
    assert list(marks["as pushed"].get_ydata()) == [level, level]
    if variable == "growth_rate":
        assert "push" not in marks
        assert ax.get_xlabel() == "block"
    else:
        assert list(marks["push"].get_xdata()) == [PUSHED, PUSHED]


def test_the_gain_without_an_answer_is_drawn_where_it_is_known() -> None:
    ds = perturb_result()
    ds["carried_gain"] = ds.gain / 2
    ax = plot.perturb(ds)
    assert texts(ax) == ["as pushed", "if no block answered", "push"]
    drawn = next(line for line in ax.lines if line.get_label() == "if no block answered")
    np.testing.assert_allclose(drawn.get_ydata(), ax.lines[0].get_ydata() / 2, **FLOAT64)
    assert texts(plot.perturb(ds, variable="growth_rate")) == ["as pushed"]


def test_the_null_is_drawn_behind_from_its_own_push_on() -> None:
    null = perturb_result(1)
    null.attrs["pushed_depth"] = 3
    ax = plot.perturb(perturb_result(), null=null, null_label="untrained")
    assert texts(ax)[:2] == ["observed", "untrained"]
    assert np.isnan(ax.lines[1].get_ydata()).tolist() == [True] * 3 + [False] * 3
    assert ax.lines[1].get_zorder() < ax.lines[0].get_zorder()


def test_curves_by_label_in_the_callers_axes() -> None:
    _, mine = plt.subplots()
    assert plot.perturb(perturb_result(), by="label", ax=mine) is mine
    assert texts(mine)[:2] == ["4", "9"]


def test_the_result_is_not_changed() -> None:
    ds = perturb_result()
    plot.perturb(ds, variable="angle")
    xr.testing.assert_identical(ds, perturb_result())


def test_what_cannot_be_drawn() -> None:
    ds = perturb_result()
    with pytest.raises(ParameterError, match=r"'recovery' has the dims.*among \['angle', 'gain', 'growth_rate'\]"):
        plot.perturb(ds, variable="recovery")
    with pytest.raises(ParameterError, match=r"needs the variable 'gain', which `depthflow.perturb` makes"):
        plot.perturb(ds[["angle"]])
    with pytest.raises(ParameterError, match=r"needs the Dataset that `depthflow.perturb` returns; got DataArray"):
        plot.perturb(ds.gain)
    with pytest.raises(ParameterError, match="asked for by='kind'"):
        plot.perturb(ds, by="kind")
