import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import same_color

from depthflow import plot
from depthflow.errors import ParameterError
from depthflow.plot._curves import quartiles
from depthflow.plot._style import GREY, TOKEN_STYLES
from tests.tolerances import FLOAT64
from tests.unit.plot_results import (
    BLOCKS,
    DEPTHS,
    SAMPLES,
    TOKENS,
    TYPES,
    coherence_result,
    convergence_result,
    spectra_result,
)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def median_of(values, keep):
    """Plain Python's way to a median over samples and tokens, NaN left out."""
    result = []
    for position in range(values.shape[1]):
        known = sorted(
            values[sample, position, token]
            for sample in range(values.shape[0])
            for token in keep
            if not np.isnan(values[sample, position, token])
        )
        half = len(known) // 2
        result.append(np.nan if not known else known[half] if len(known) % 2 else (known[half - 1] + known[half]) / 2)
    return result


@pytest.mark.parametrize(("variable", "along", "first"), [("angle", "depth", 0), ("speed", "block", 1)])
def test_a_curve_is_the_median_over_samples_and_the_tokens_of_its_type(variable, along, first):
    ds = convergence_result()
    ax = plot.convergence(ds, variable=variable)
    assert labels(ax) == ["cls", "reg", "patch"]
    for line, kind in zip(ax.lines, ["cls", "reg", "patch"], strict=True):
        keep = [index for index, name in enumerate(TYPES) if name == kind]
        np.testing.assert_allclose(line.get_ydata(), median_of(ds[variable].values, keep), **FLOAT64)
        assert line.get_xdata().tolist() == list(range(first, DEPTHS))
        assert same_color(line.get_color(), TOKEN_STYLES[kind].color)
    assert ax.get_xticks().tolist() == list(range(first, DEPTHS))
    assert ax.get_xlabel() == along


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("angle", "angle to the reference direction [rad]"),
        ("speed", "angular speed [rad/block]"),
        ("alignment", "cosine to the reference direction"),
    ],
)
def test_the_axis_names_the_quantity_and_its_unit_unless_it_is_a_plain_number(variable, expected):
    ax = plot.convergence(convergence_result(), variable=variable)
    assert ax.get_ylabel().replace("\n", " ") == expected


def test_units_come_from_the_schema_where_a_result_has_lost_its_attrs():
    ds = convergence_result()
    ds["speed"].attrs.clear()
    assert plot.convergence(ds, variable="speed").get_ylabel().replace("\n", " ") == "angular speed [rad/block]"


def test_the_band_lies_between_the_quartiles():
    ds = convergence_result()
    ax = plot.convergence(ds.isel(token=[0]))
    vertices = ax.collections[0].get_paths()[0].vertices
    for depth in range(DEPTHS):
        low, _, high = np.sort(ds["angle"].values[:, depth, 0])
        middle = np.median(ds["angle"].values[:, depth, 0])
        ends = vertices[vertices[:, 0] == depth, 1]
        # Of three values the quartiles lie halfway to the middle one.
        np.testing.assert_allclose([ends.min(), ends.max()], [(low + middle) / 2, (middle + high) / 2], **FLOAT64)


def test_a_block_of_nothing_but_nan_leaves_a_gap():
    ax = plot.convergence(convergence_result(), variable="turning")
    for line in ax.lines:
        assert np.isnan(line.get_ydata()).tolist() == [True] + [False] * (BLOCKS - 1)


def test_nan_takes_no_part_in_the_quartiles():
    values = xr.DataArray([[1.0, np.nan, 3.0, 2.0], [np.nan] * 4], dims=("depth", "sample"))
    np.testing.assert_allclose(quartiles(values, "depth"), [[1.5, np.nan], [2, np.nan], [2.5, np.nan]], **FLOAT64)


def test_curves_by_label_and_pooled():
    ds = convergence_result()
    by_label = plot.convergence(ds, by="label")
    assert labels(by_label) == ["4", "9"]
    np.testing.assert_allclose(
        by_label.lines[1].get_ydata(), median_of(ds["angle"].values[1:2], range(TOKENS)), **FLOAT64
    )
    pooled = plot.convergence(ds, by=None)
    np.testing.assert_allclose(pooled.lines[0].get_ydata(), median_of(ds["angle"].values, range(TOKENS)), **FLOAT64)
    assert pooled.get_legend() is None


def test_without_token_types_all_tokens_are_one_curve():
    assert len(plot.convergence(convergence_result().drop_vars("token_type")).lines) == 1


def test_a_result_without_samples_or_tokens_is_a_line_without_a_band():
    ds = convergence_result()[["angle"]].isel(sample=0, token=2)
    ax = plot.convergence(ds)
    assert len(ax.collections) == 0
    np.testing.assert_allclose(ax.lines[0].get_ydata(), ds["angle"], **FLOAT64)
    assert labels(ax) == ["patch"]


def test_an_interval_that_the_result_carries_is_the_band():
    angle = xr.DataArray([0.9, 0.5, 0.1], dims="depth")
    ds = xr.Dataset({"angle": angle, "angle_low": angle - 0.1, "angle_high": angle + 0.2})
    ends = plot.convergence(ds).collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([ends[:, 1].min(), ends[:, 1].max()], [0.0, 1.1], **FLOAT64)


def test_depths_that_were_recorded_in_steps_stand_where_they_are():
    ds = convergence_result()
    ds = ds.drop_dims("block").assign_coords(depth=[0, 2, 4, 6, 9, 12])
    ax = plot.convergence(ds)
    assert ax.get_xticks().tolist() == [0, 2, 4, 6, 9, 12]
    assert ax.lines[0].get_xdata().tolist() == [0, 2, 4, 6, 9, 12]


def test_dims_in_another_order_draw_the_same():
    ds = coherence_result()
    straight, turned = plot.coherence(ds), plot.coherence(ds.transpose())
    assert straight.lines[0].get_ydata().tolist() == turned.lines[0].get_ydata().tolist()


def test_a_dask_backed_result_draws_the_same():
    ds = convergence_result()
    whole, chunked = plot.convergence(ds), plot.convergence(ds.chunk(sample=1))
    assert [line.get_ydata().tolist() for line in whole.lines] == [line.get_ydata().tolist() for line in chunked.lines]


@pytest.mark.parametrize(
    ("draw", "result"),
    [
        (plot.convergence, convergence_result),
        (plot.coherence, coherence_result),
        (plot.update_spectra, spectra_result),
    ],
)
def test_the_null_is_grey_dashed_behind_and_named(draw, result):
    null = result(1)
    ax = draw(result(), null=null, label="trained", null_label="untrained")
    observed = [line for line in ax.lines if line.get_label().startswith("trained")]
    behind = [line for line in ax.lines if line.get_label().startswith("untrained")]
    assert len(behind) == len(observed) > 0
    for line in behind:
        assert same_color(line.get_color(), GREY)
        assert line.is_dashed()
        assert line.get_zorder() < min(other.get_zorder() for other in observed)
    assert draw(result(), null=null).get_legend() is not None


def test_nulls_of_several_types_keep_the_markers_of_their_types():
    ax = plot.convergence(convergence_result(), null=convergence_result(1))
    assert labels(ax) == ["cls", "reg", "patch", "null, cls", "null, reg", "null, patch"]
    assert [line.get_marker() for line in ax.lines[:3]] == [line.get_marker() for line in ax.lines[3:]]


def test_observed_and_null_are_both_named_where_there_is_one_curve():
    assert labels(plot.update_spectra(spectra_result(), null=spectra_result(1))) == ["observed", "null"]


def test_a_mean_resultant_length_stands_on_its_whole_scale_beside_the_isotropic_one():
    ax = plot.coherence(coherence_result())
    low, high = ax.get_ylim()
    assert low <= 0 <= 1 <= high
    isotropic = next(line for line in ax.lines if "isotropic" in line.get_label())
    np.testing.assert_allclose(isotropic.get_ydata(), 1 / np.sqrt(TOKENS), **FLOAT64)


def test_other_quantities_of_coherence_have_no_isotropic_line():
    ax = plot.coherence(coherence_result(), variable="angle_to_mean")
    assert len(ax.lines) == 1


def test_spectra_are_shares_of_the_first_with_one_curve_a_block_and_the_block_in_the_colour_bar():
    ds = spectra_result()
    ax = plot.update_spectra(ds, variable="singular_value")
    assert len(ax.lines) == BLOCKS
    values = ds["singular_value"].values
    for block, line in enumerate(ax.lines):
        shares = [np.sort(values[:, block, mode] / values[:, block, 0])[SAMPLES // 2] for mode in range(TOKENS)]
        np.testing.assert_allclose(line.get_ydata(), shares, **FLOAT64)
        assert line.get_xdata().tolist() == list(range(1, TOKENS + 1))
    assert ax.get_yscale() == "log"
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "block"
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in bar.get_yticklabels()] == [str(block) for block in range(1, DEPTHS)]


def test_spectra_below_what_is_accurate_are_not_shown():
    ds = spectra_result()
    ds["singular_value"][..., -1] = 1e-17
    assert plot.update_spectra(ds, variable="singular_value").get_ylim()[0] == pytest.approx(1e-6)


def test_modes_that_centering_leaves_at_zero_are_not_drawn():
    ds, null = spectra_result(), spectra_result(1)
    for one in (ds, null):
        one["singular_value"][..., -1] = 0.0
    for line in plot.update_spectra(ds, variable="singular_value", null=null).lines:
        assert np.isnan(line.get_ydata()[-1])
        assert np.isfinite(line.get_ydata()[:-1]).all()


def test_a_null_far_below_is_in_the_picture():
    null = spectra_result(1)
    null["singular_value"][..., 1:] *= 1e-4
    ax = plot.update_spectra(spectra_result(), variable="singular_value", null=null)
    assert ax.get_ylim()[0] < min(ax.lines[-1].get_ydata())


def test_a_block_that_updates_nothing_has_no_share_of_its_spectrum():
    ds = spectra_result()
    ds["singular_value"][0] = 0.0
    ax = plot.update_spectra(ds, variable="singular_value")
    expected = (ds["singular_value"] / ds["singular_value"][:, :, 0])[1:, 0].mean("sample")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected, **FLOAT64)


def test_a_spectrum_without_its_first_mode_has_no_shares():
    ds = spectra_result().assign_coords(mode=np.arange(1, TOKENS + 1)).isel(mode=slice(2, None))
    with pytest.raises(ParameterError, match=r"begins with mode 3\. Give it all modes"):
        plot.update_spectra(ds, variable="singular_value")


def test_a_pooled_spectrum_needs_no_samples():
    ax = plot.update_spectra(spectra_result().isel(sample=0), variable="singular_value", null=spectra_result(1))
    assert len(ax.lines) == BLOCKS + 1
    assert labels(ax) == ["null"]


def test_a_second_result_in_the_same_axes_is_added():
    ax = plot.coherence(coherence_result(), label="one")
    same = plot.coherence(coherence_result(1), label="two", ax=ax)
    assert same is ax
    assert [name for name in labels(ax) if "isotropic" not in name] == ["one", "two"]


@pytest.mark.parametrize(
    ("draw", "measure"),
    [(plot.convergence, "convergence"), (plot.coherence, "coherence"), (plot.update_spectra, "update_spectra")],
)
def test_a_missing_variable_is_an_error_that_names_the_measure(draw, measure):
    with pytest.raises(
        ParameterError, match=rf"plot\.{measure} needs the variable .*`depthflow\.{measure}` makes.*foo"
    ):
        draw(xr.Dataset({"foo": ("depth", [1.0])}))
    with pytest.raises(ParameterError, match=rf"needs the Dataset that `depthflow\.{measure}` returns; got ndarray"):
        draw(np.ones(3))
    assert plt.get_fignums() == []


def test_a_variable_that_is_no_curve_is_an_error_that_lists_those_that_are():
    with pytest.raises(
        ParameterError, match=r"'straightness' has the dims \('sample', 'token'\).*'alignment', 'angle'"
    ):
        plot.convergence(convergence_result(), variable="straightness")


def test_labels_have_no_median():
    ds = xr.Dataset({"basin_at_depth": (("sample", "depth"), np.zeros((3, 6), dtype=int))})
    with pytest.raises(ParameterError, match="draws a quantity along depth or block"):
        plot.coherence(ds, variable="basin_at_depth")


def test_by_must_be_a_coord_of_samples_or_tokens():
    with pytest.raises(ParameterError, match=r"by='kind', but 'angle' has the coords .*'label'"):
        plot.convergence(convergence_result(), by="kind")
    with pytest.raises(ParameterError, match=r"'depth' has the dims \('depth',\)"):
        plot.convergence(convergence_result(), by="depth")


def test_too_many_groups_are_refused():
    angle = xr.DataArray(np.ones((21, 3)), dims=("sample", "depth"), coords={"label": ("sample", np.arange(21))})
    with pytest.raises(ParameterError, match="at most 20 groups apart; 'label' has 21"):
        plot.convergence(angle.to_dataset(name="angle"), by="label")
