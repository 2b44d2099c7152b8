import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color

import depthflow
from depthflow import plot
from depthflow.errors import ParameterError
from depthflow.plot._style import GREY
from tests.figures import close_figures  # noqa: F401
from tests.tolerances import FLOAT64

NAMES = {
    "identity": "error_identity",
    "one operator": "error",
    "map of the horizon": "error_endpoint",
    "map of each block": "error_per_step",
}


@pytest.fixture
def result(traj):
    return depthflow.dmd(traj, ridge=0.1)


@pytest.mark.parametrize("kind", ["cls", "patch"])
def test_each_error_is_a_curve_of_the_chosen_tokens(result, kind):
    ax = plot.dmd(result, token_type=kind)
    assert [line.get_label() for line in ax.lines] == list(NAMES)
    for line in ax.lines:
        expected = result[NAMES[line.get_label()]].sel(token_type=kind)
        np.testing.assert_allclose(line.get_ydata(), expected, **FLOAT64)
        assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert len({(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in ax.lines}) == 4
    assert ax.get_title() == kind
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("horizon [blocks]", "relative error")
    assert ax.get_ylim()[0] == 0
    assert ax.get_xticks().tolist() == [1, 2, 3, 4, 5]


def test_the_first_type_by_default_and_no_title_where_types_are_unknown(result, traj):
    assert plot.dmd(result).get_title() == "cls"
    assert plot.dmd(result, label="digits").get_title() == "digits, cls"
    assert plot.dmd(depthflow.dmd(traj.drop_vars("token_type"), ridge=0.1)).get_title() == ""


def test_a_baseline_that_is_not_determined_has_no_curve(traj):
    flat = traj.copy(deep=True)
    flat[:, 0] = traj[0, 0, 0]
    ax = plot.dmd(depthflow.dmd(flat))
    assert [line.get_label() for line in ax.lines] == ["identity", "one operator", "map of the horizon"]
    assert np.isnan(ax.lines[2].get_ydata()).tolist() == [False] * 4 + [True]


def test_the_null_is_grey_and_behind(result, traj):
    null = depthflow.dmd(depthflow.shuffle_depth(traj, seed=1), ridge=0.1)
    ax = plot.dmd(result, null=null, null_label="shuffled", token_type="patch")
    line = ax.lines[-1]
    assert line.get_label() == "shuffled, one operator"
    assert same_color(line.get_color(), GREY)
    assert line.get_zorder() < min(other.get_zorder() for other in ax.lines[:-1])
    np.testing.assert_allclose(line.get_ydata(), null.error.sel(token_type="patch"), **FLOAT64)


def test_eigenvalues_lie_in_the_plane_with_the_unit_circle_and_areas_by_amplitude(result):
    ax = plot.dmd(result, variable="eigenvalue")
    (points,) = ax.collections
    values = result.eigenvalue.values
    np.testing.assert_allclose(points.get_offsets(), np.c_[values.real, values.imag], **FLOAT64)
    assert np.argmax(points.get_sizes()) == np.argmax(result.amplitude.values)
    circle = ax.lines[-1]
    np.testing.assert_allclose(np.hypot(circle.get_xdata(), circle.get_ydata()), 1.0, **FLOAT64)
    assert ax.get_aspect() == 1
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for value in [*values, 0, 1]:
        assert left < value.real < right
        assert low < value.imag < high
    assert ax.get_legend() is None


def test_eigenvalues_of_the_null_are_crosses_within_the_picture(result, traj):
    null = depthflow.dmd(3 * traj, span=(2, 5), ridge=0.01)
    null["eigenvalue"] = null.eigenvalue * 4
    ax = plot.dmd(result, variable="eigenvalue", null=null, label="digits")
    assert ax.get_title() == "digits"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["observed", "null"]
    crosses = ax.collections[1].get_offsets()
    np.testing.assert_allclose(crosses[:, 0], null.eigenvalue.values.real, **FLOAT64)
    assert ax.get_xlim()[0] < crosses[:, 0].min() < crosses[:, 0].max() < ax.get_xlim()[1]
    assert ax.get_ylim()[0] < crosses[:, 1].min() < crosses[:, 1].max() < ax.get_ylim()[1]


def test_amplitudes_that_are_unknown_or_zero_are_drawn_all_the_same(result):
    unknown = result.assign(amplitude=result.amplitude * np.nan)
    assert np.isfinite(plot.dmd(unknown, variable="eigenvalue").collections[0].get_sizes()).all()


def test_it_draws_on_the_axes_given(result):
    _, axes = plt.subplots(1, 2)
    assert plot.dmd(result, ax=axes[0]) is axes[0]
    assert plot.dmd(result, variable="eigenvalue", ax=axes[1]) is axes[1]
    axes[0].figure.canvas.draw()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"variable": "growth"}, "draws variable='error' or variable='eigenvalue'; got 'growth'"),
        ({"token_type": "reg"}, r"asked for token_type='reg'; this result has \['cls', 'patch'\]"),
    ],
)
def test_arguments_out_of_range(result, kwargs, message):
    with pytest.raises(ParameterError, match=message):
        plot.dmd(result, **kwargs)


def test_other_results_are_refused(result):
    with pytest.raises(ParameterError, match=r"needs the variable 'error', which `depthflow.dmd` makes"):
        plot.dmd(result.drop_vars("error"))
    with pytest.raises(ParameterError, match=r"needs the Dataset that `depthflow.dmd` returns; got DataArray"):
        plot.dmd(result.error)
    with pytest.raises(ParameterError, match="needs the variable 'eigenvalue'"):
        plot.dmd(result, variable="eigenvalue", null=result.drop_vars("eigenvalue"))
