import itertools
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from depthflow import plot
from depthflow.plot._layout import integer_ticks
from depthflow.plot._style import GREY, MAX_GROUPS, TOKEN_STYLES, group_style
from depthflow.schema import TOKEN_TYPES
from tests.unit.plot_results import (
    basins_result,
    coherence_result,
    convergence_result,
    curve_result,
    phases_result,
    scores_result,
    spectra_result,
)

DRAWINGS = {
    "convergence": lambda ax: plot.convergence(convergence_result(), null=convergence_result(1), ax=ax),
    "coherence": lambda ax: plot.coherence(coherence_result(), null=coherence_result(1), ax=ax),
    "ranks": lambda ax: plot.update_spectra(spectra_result(), null=spectra_result(1), ax=ax),
    "spectra": lambda ax: plot.update_spectra(spectra_result(), variable="singular_value", ax=ax),
    "similarity": lambda ax: plot.similarity(phases_result(), ax=ax),
    "basins": lambda ax: plot.basins(basins_result(), color="label", ax=ax),
    "agreement": lambda ax: plot.agreement(basins_result(), null=basins_result(), ax=ax),
    "surrogate": lambda ax: plot.surrogate(scores_result(), null=scores_result(1), ax=ax),
    "recurrence": lambda ax: plot.recurrence_curve(curve_result(), null=curve_result(1), ax=ax),
}

LIGHTNESS_STEP = 9.0
"""CIE L* by which two token types differ at least: several times what the eye can just tell apart side by side."""

every_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def linear(color):
    channel = np.array(to_rgb(color))
    return np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)


def lightness(color):
    """CIE L* of an sRGB colour, from its relative luminance."""
    luminance = linear(color) @ [0.2126, 0.7152, 0.0722]
    return 116 * np.cbrt(luminance) - 16 if luminance > (6 / 29) ** 3 else luminance * (29 / 3) ** 3


@every_drawing
def test_a_drawing_without_axes_makes_one_figure_of_column_width_and_changes_no_setting(draw):
    before = dict(mpl.rcParams)
    ax = draw(None)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == [ax.figure.number]
    assert ax.figure.get_figwidth() == 3.4
    ax.figure.draw_without_rendering()


@every_drawing
def test_a_drawing_into_given_axes_touches_neither_pyplot_nor_settings(draw):
    before = dict(mpl.rcParams)
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    assert draw(ax) is ax
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before
    figure.draw_without_rendering()


@every_drawing
def test_nothing_sticks_out_of_the_figure(draw):
    figure = draw(None).figure
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    slack = 0.02
    assert box.x0 > -slack
    assert box.y0 > -slack
    assert box.x1 < figure.get_figwidth() + slack
    assert box.y1 < figure.get_figheight() + slack


@every_drawing
def test_no_two_tick_labels_overlap(draw):
    figure = draw(None).figure
    figure.draw_without_rendering()
    for ax in figure.axes:
        for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
            boxes = [label.get_window_extent() for label in labels if label.get_text()]
            assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


@pytest.mark.parametrize(
    "name", ["convergence", "coherence", "ranks", "agreement", "basins", "surrogate", "recurrence"]
)
def test_the_legend_lies_above_the_data_and_a_title_above_the_legend(name):
    ax = DRAWINGS[name](None)
    ax.set_title("A title")
    ax.figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    assert legend.y0 >= ax.get_window_extent().y1 - 1
    assert ax.title.get_window_extent().y0 >= legend.y1 - 1


def test_without_a_layout_engine_the_legend_stays_inside():
    ax = DRAWINGS["convergence"](Figure().subplots())
    ax.figure.draw_without_rendering()
    inside, box = ax.get_window_extent(), ax.get_legend().get_window_extent()
    assert inside.x0 <= box.x0 < box.x1 <= inside.x1
    assert inside.y0 <= box.y0 < box.y1 <= inside.y1


def test_long_labels_fold_within_the_axis():
    figure = DRAWINGS["coherence"](None).figure
    figure.draw_without_rendering()
    label = figure.axes[0].yaxis.label.get_window_extent()
    assert label.height <= figure.axes[0].get_window_extent().height


def test_every_token_type_has_a_lightness_and_a_marker_of_its_own():
    assert set(TOKEN_STYLES) == set(TOKEN_TYPES)
    light = [lightness(style.color) for style in TOKEN_STYLES.values()]
    assert np.diff(light).min() >= LIGHTNESS_STEP
    assert max(light) < 85
    drawn_together = [style.marker for kind, style in TOKEN_STYLES.items() if kind != "token"]
    assert len(set(drawn_together)) == len(drawn_together)


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ],
    ids=["deuteranopia", "protanopia"],
)
def test_token_colours_stay_apart_without_red_or_green_receptors(matrix):
    # Machado, Oliveira & Fernandes 2009, doi:10.1109/TVCG.2009.113, severity 1.
    seen = [np.clip(np.array(matrix) @ linear(style.color), 0, 1) for style in TOKEN_STYLES.values()]
    for one, other in itertools.combinations(seen, 2):
        assert np.abs(np.cbrt(one) - np.cbrt(other)).max() > 0.1


def test_groups_are_told_apart_by_colour_and_marker_together():
    styles = [group_style(index) for index in range(MAX_GROUPS)]
    assert len({(style.color, style.marker) for style in styles}) == MAX_GROUPS
    assert len({style.marker for style in styles[:10]}) == 10
    assert max(lightness(style.color) for style in styles) < 75


def test_the_null_is_lighter_than_the_observed_single_curve():
    assert lightness(GREY) - lightness(TOKEN_STYLES["token"].color) > 40


@pytest.mark.parametrize(
    ("first", "last", "most", "expected"),
    [
        (0, 12, 13, list(range(13))),
        (1, 12, 14, list(range(1, 13))),
        (0, 24, 13, list(range(0, 25, 2))),
        (1, 24, 8, [1, 5, 10, 15, 20, 24]),
        (0, 48, 6, [0, 10, 20, 30, 40, 48]),
        (1, 31, 8, [1, 5, 10, 15, 20, 25, 31]),
    ],
)
def test_integer_ticks_begin_and_end_with_the_data(first, last, most, expected):
    assert integer_ticks(np.arange(first, last + 1), most).tolist() == expected


def test_importing_plot_loads_no_matplotlib_until_a_function_is_used():
    code = (
        "import sys, depthflow.plot as plot; assert 'matplotlib' not in sys.modules; "
        "plot.agreement; plot.basins; plot.convergence; import depthflow.plot._basins; "
        "assert 'matplotlib' in sys.modules and callable(plot.basins) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_plot_offers_is_listed():
    of_states = {"agreement", "basins", "coherence", "convergence", "dmd", "similarity", "update_spectra"}
    of_models = {"basin_stability", "jacobian", "perturb", "recurrence_curve", "surrogate", "swap_blocks"}
    assert set(plot.__all__) == of_states | of_models
