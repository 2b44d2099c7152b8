"""What `plot.surrogate` and `plot.recurrence_curve` draw, and what they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from depthflow import plot
from depthflow.errors import ParameterError
from tests.figures import close_figures  # noqa: F401
from tests.tolerances import EXACT, FLOAT64
from tests.unit.plot_results import coherence_result, curve_result, scores_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASELINES = ["identity", "linear", "truncated", "repeated"]


def curves(ax: Axes) -> dict[str, Any]:
    return {str(line.get_label()): line for line in ax.lines}


# surrogate


@pytest.mark.parametrize("variable", ["r2", "cosine", "relative_error"])
def test_the_surrogates_curves_and_the_baselines(variable: str) -> None:
    ds = scores_result()
    drawn = curves(plot.surrogate(ds, variable=variable))
    assert set(drawn) - {"ε"} == {"surrogate", "cls", "patch", *BASELINES}, "padding has no curve"
    own = {"surrogate": "all", "cls": "cls", "patch": "patch"}
    for name, kind in own.items():
        assert_allclose(drawn[name].get_ydata(), ds[variable].sel(token_type=kind), **EXACT)
    for name in BASELINES:
        expected = ds[f"baseline_{variable}"].sel(baseline=name, token_type="all")
        assert_allclose(drawn[name].get_ydata(), expected, **EXACT)
        assert_allclose(drawn[name].get_xdata(), [1, 2, 3, 4, 5], **EXACT)
    looks = {(line.get_color(), line.get_marker()) for name, line in drawn.items() if name != "ε"}
    assert len(looks) == 7
    assert len({(line.get_marker(), line.get_markerfacecolor() == "white") for line in drawn.values()}) >= 7


def test_only_the_relative_error_marks_epsilon() -> None:
    ds = scores_result()
    line = curves(plot.surrogate(ds, variable="relative_error"))["ε"]
    assert set(line.get_ydata()) == {ds.epsilon.item()}
    assert "ε" not in curves(plot.surrogate(ds))


def test_one_type_of_token_has_no_curve_beside_all() -> None:
    ds = scores_result().sel(token_type=["all", "pad", "patch"])
    assert set(curves(plot.surrogate(ds))) == {"surrogate", *BASELINES}


def test_a_baseline_that_is_missing_has_no_curve() -> None:
    ds = scores_result()
    ds["baseline_r2"].loc[{"baseline": "repeated"}] = np.nan
    assert "repeated" not in curves(plot.surrogate(ds))


def test_phases_are_shaded_by_turns_and_numbered() -> None:
    ax = plot.surrogate(scores_result())
    assert [(text.get_text(), text.get_position()[0]) for text in ax.texts] == [("1", 1.5), ("2", 3.5), ("3", 5.0)]
    (shade,) = ax.patches
    assert (shade.get_x(), shade.get_width()) == (2.5, 2.0)
    scattered = scores_result().assign_coords(phase=("depth", [1, 2, 1, 2, 2]))
    assert [text.get_text() for text in plot.surrogate(scattered).texts] == ["1", "2", "1", "2"]


def test_far_baselines_leave_the_picture_and_the_surrogate_never_does() -> None:
    ds = scores_result()
    ds["baseline_r2"].loc[{"baseline": "repeated"}] = -40.0
    assert plot.surrogate(ds).get_ylim()[0] == -1.05
    ds["r2"].loc[{"depth": 2}] = -3.0
    assert plot.surrogate(ds).get_ylim()[0] < -3
    ds["baseline_relative_error"].loc[{"baseline": "repeated"}] = 40.0
    assert plot.surrogate(ds, variable="relative_error").get_ylim()[1] < 2
    ds["relative_error"].loc[{"depth": 2}] = 3.0
    assert plot.surrogate(ds, variable="relative_error").get_ylim()[1] > 3


def test_the_title_tells_epsilon_and_recovery() -> None:
    ds = scores_result()
    said = plot.surrogate(ds).get_title()
    assert said.startswith(f"ε = {ds.epsilon.item():.3g} at depth {ds.epsilon_depth.item()}\n")
    assert said.endswith("recovery 0.951 [0.930, 0.970] (0.943 of 0.992)")
    probes = ds.drop_vars([name for name in ds.data_vars if "recovery" in str(name)])
    probes = probes.assign(probe_recovery=0.5, teacher_probe_accuracy=0.8, surrogate_probe_accuracy=0.4)
    assert plot.surrogate(probes).get_title().endswith("\nprobe recovery 0.500 (0.400 of 0.800)")
    assert "\n" not in plot.surrogate(probes.drop_vars("probe_recovery")).get_title()


def test_a_null_of_all_tokens() -> None:
    null = scores_result(1)
    line = curves(plot.surrogate(scores_result(), null=null, null_label="random phases"))["random phases"]
    assert_allclose(line.get_ydata(), null.r2.sel(token_type="all"), **EXACT)


@pytest.mark.parametrize(
    ("ds", "options", "words"),
    [
        (scores_result(), {"variable": "epsilon"}, r"draws one of \('r2', .*; got variable='epsilon'"),
        (coherence_result(), {}, "needs the variable 'r2', which `depthflow.score_surrogate` makes"),
        (scores_result().drop_vars("baseline_r2"), {}, "needs the variable 'baseline_r2'"),
        (
            scores_result().expand_dims(seed=2),
            {},
            r"draws the scores of one surrogate, .*'r2' has the dims .*Select one, such as",
        ),
        ([1], {}, "got list"),
    ],
)
def test_what_is_no_score(ds: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=rf"plot\.surrogate.*{words}"):
        plot.surrogate(ds, **options)


# recurrence_curve


@pytest.mark.parametrize("variable", ["epsilon", "recovery"])
def test_mean_band_and_dots_over_seeds(variable: str) -> None:
    ds = curve_result()
    ax = plot.recurrence_curve(ds, variable=variable)
    drawn, values = curves(ax), ds[variable].values
    assert_allclose(drawn["surrogate"].get_xdata(), [1, 2, 3, 6], **EXACT)
    assert_allclose(drawn["surrogate"].get_ydata(), values.mean(axis=1), **FLOAT64)
    band, dots = ax.collections
    corners = band.get_paths()[0].vertices
    for count, row in zip([1, 2, 3, 6], values, strict=True):
        heights = corners[corners[:, 0] == count, 1]
        assert {heights.min(), heights.max()} == {row.min(), row.max()}
    assert sorted(map(tuple, dots.get_offsets())) == sorted(
        zip(np.repeat([1, 2, 3, 6], 3), values.ravel(), strict=True)
    )
    for name in ("identity", "repeated"):
        expected = ds[f"baseline_{variable}"].sel(baseline=name).mean("seed")
        assert_allclose(drawn[name].get_ydata(), expected, **FLOAT64)
    assert ("as the model" in drawn) == (variable == "recovery")
    assert ax.get_ylim()[0] == 0
    assert ax.get_xlabel() == "number of phases k"


def test_one_seed_has_no_band() -> None:
    ax = plot.recurrence_curve(curve_result().isel(seed=[0]))
    assert len(ax.collections) == 1


def test_the_mean_of_a_null() -> None:
    null = curve_result(1)
    line = curves(plot.recurrence_curve(curve_result(), null=null))["null"]
    assert_allclose(line.get_ydata(), null.epsilon.mean("seed"), **FLOAT64)


def test_far_baselines_leave_the_picture_of_errors() -> None:
    ds = curve_result()
    ds["baseline_epsilon"].loc[{"baseline": "repeated"}] = 40.0
    assert plot.recurrence_curve(ds).get_ylim()[1] == 1.5
    ds["epsilon"].loc[{"n_phases": 1}] = 3.0
    assert plot.recurrence_curve(ds).get_ylim()[1] > 3


def test_without_baselines_of_a_score() -> None:
    ds = curve_result().assign(probe_recovery=curve_result().recovery)
    assert set(curves(plot.recurrence_curve(ds, variable="probe_recovery"))) == {"surrogate", "as the model"}


@pytest.mark.parametrize(
    ("ds", "options", "words"),
    [
        (curve_result(), {"variable": "r2"}, r"draws one of \('epsilon', .*; got variable='r2'"),
        (
            curve_result(),
            {"variable": "probe_recovery"},
            "needs the variable 'probe_recovery', which `depthflow.recurr",
        ),
        (scores_result(), {}, r"along the dims \('n_phases', 'seed'\); 'epsilon' has \(\)\. Give the whole result"),
    ],
)
def test_what_is_no_curve(ds: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=rf"plot\.recurrence_curve.*{words}"):
        plot.recurrence_curve(ds, **options)
