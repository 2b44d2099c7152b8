import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import LogNorm

from depthflow import plot
from depthflow.errors import ParameterError
from depthflow.schema import describe
from tests.figures import close_figures  # noqa: F401
from tests.tolerances import EXACT

BLOCKS = 5


def swap_result(least: float = 0.1, greatest: float = 1.5) -> xr.Dataset:
    rng = np.random.default_rng(0)
    effect = rng.uniform(least, greatest, size=(BLOCKS, BLOCKS))
    effect[0, 1], effect[3, 0] = greatest, least
    np.fill_diagonal(effect, 0.0)
    accuracy = rng.uniform(0.3, 0.8, size=(BLOCKS, BLOCKS))
    np.fill_diagonal(accuracy, 0.9)
    pairs = ("block", "block_other")
    result = xr.Dataset(
        {
            "effect": (pairs, effect),
            "accuracy": (pairs, accuracy),
            "accuracy_unswapped": 0.9,
            "within_effect": 0.3,
            "between_effect": 0.4,
            "difference": 0.102,
            "difference_low": 0.0913,
            "difference_high": 0.1134,
            "matched_difference": -0.03,
            "matched_difference_low": -0.04,
            "matched_difference_high": -0.02,
        },
        {
            "block": np.arange(1, BLOCKS + 1),
            "block_other": np.arange(1, BLOCKS + 1),
            "phase": ("block", [1, 1, 2, 2, 2]),
        },
    )
    return describe(result)


@pytest.mark.parametrize("variable", ["effect", "accuracy"])
def test_the_block_replaced_runs_down_and_the_one_put_in_across_with_a_blank_diagonal(variable):
    ds = swap_result()
    ax = plot.swap_blocks(ds, variable=variable)
    drawn = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    expected = ds[variable].values.copy()
    np.fill_diagonal(expected, np.nan)
    np.testing.assert_allclose(drawn, expected, **EXACT)
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("block replaced (i)", "block put in (j)")
    assert ax.images[0].get_extent() == [0.5, BLOCKS + 0.5, BLOCKS + 0.5, 0.5]
    assert ax.get_xticks().tolist() == ax.get_yticks().tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(ax.images[0].get_clim(), (np.nanmin(expected), np.nanmax(expected)), **EXACT)


def test_dims_in_any_order_and_the_dataset_left_as_it_was():
    ds = swap_result()
    first = plot.swap_blocks(ds).images[0].get_array()
    second = plot.swap_blocks(ds.transpose()).images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(first, -1), np.ma.filled(second, -1))
    xr.testing.assert_identical(ds, swap_result())


def test_effects_of_different_size_have_a_logarithmic_scale_with_plain_numbers():
    ax = plot.swap_blocks(swap_result())
    assert isinstance(ax.images[0].norm, LogNorm)
    bar = ax.images[0].colorbar
    bar.ax.figure.canvas.draw()
    low, high = bar.ax.get_ylim()
    shown = [
        text.get_text()
        for text, at in zip(bar.ax.get_yticklabels(), bar.ax.get_yticks(), strict=True)
        if low <= at <= high
    ]
    assert shown == ["0.1", "0.2", "0.5", "1"]
    assert bar.ax.get_ylabel().replace("\n", " ") == "change of the final direction by the swap [rad]"


def test_the_colours_are_named_for_what_is_drawn_even_where_attributes_were_lost():
    bare = swap_result().drop_attrs()
    for variable, name in (("effect", "change of the final direction by the swap [rad]"), ("accuracy", "share of")):
        label = plot.swap_blocks(bare, variable=variable).images[0].colorbar.ax.get_ylabel()
        assert label.replace("\n", " ").startswith(name)


@pytest.mark.parametrize(("least", "greatest"), [(0.5, 1.5), (0.0, 1.5)])
def test_effects_of_like_size_or_none_have_a_linear_scale(least, greatest):
    ax = plot.swap_blocks(swap_result(least, greatest))
    assert not isinstance(ax.images[0].norm, LogNorm)
    assert not isinstance(plot.swap_blocks(swap_result(), variable="accuracy").images[0].norm, LogNorm)


def test_no_effect_at_all_is_drawn():
    ds = swap_result()
    ds["effect"] = 0 * ds["effect"]
    plot.swap_blocks(ds).figure.canvas.draw()


def test_phases_are_framed_and_bear_their_number_or_name():
    ds = swap_result()
    ax = plot.swap_blocks(ds)
    squares = [(float(box.get_x()), float(box.get_y()), box.get_width(), box.get_height()) for box in ax.patches]
    assert squares == [(0.5, 0.5, 2.0, 2.0), (2.5, 2.5, 3.0, 3.0)]

    def beside(kinds):
        names = plot.swap_blocks(ds.assign_coords(phase=("block", kinds))).child_axes[0]
        return names.get_yticks().tolist(), [text.get_text() for text in names.get_yticklabels()]

    assert beside([1, 1, 2, 2, 2]) == ([1.5, 4.0], ["1", "2"])
    assert beside([7, 7, 3, 3, 3]) == ([1.5, 4.0], ["7", "3"])
    names = np.array(["early", "early", "late", "late", "early"], dtype=np.dtypes.StringDType())
    assert beside(names) == ([1.5, 3.5, 5.0], ["early", "late", "early"])


def test_titles():
    ds = swap_result()
    first, second = plot.swap_blocks(ds).get_title().split("\n")
    assert first == "between − within 0.10 [0.091, 0.11] rad"
    assert second == "at equal distance -0.030 [-0.040, -0.020] rad"
    bare = plot.swap_blocks(ds.drop_vars(["difference_low", "matched_difference"]))
    assert bare.get_title() == "between − within 0.10 rad"
    undefined = plot.swap_blocks(ds.assign(matched_difference=np.nan))
    assert undefined.get_title().endswith("rad\nat equal distance undefined")
    assert plot.swap_blocks(ds, variable="accuracy").get_title() == "without a swap 0.90"
    plain = plot.swap_blocks(ds[["effect"]].drop_vars("phase"))
    assert (plain.get_title(), len(plain.patches)) == ("", 0)


def test_it_is_drawn_where_asked():
    _, axes = plt.subplots(1, 2)
    assert plot.swap_blocks(swap_result(), ax=axes[1]) is axes[1]
    assert len(axes[0].images) == 0


def test_what_cannot_be_drawn():
    ds = swap_result()
    with pytest.raises(ParameterError, match=r"draws one of \('effect', 'accuracy'\); got variable='difference'"):
        plot.swap_blocks(ds, variable="difference")
    with pytest.raises(ParameterError, match=r"needs the variable 'accuracy', which `depthflow\.swap_blocks` makes"):
        plot.swap_blocks(ds.drop_vars("accuracy"), variable="accuracy")
    for part in (ds.isel(block=slice(3)), ds.isel(block=[0], block_other=[0])):
        with pytest.raises(ParameterError, match=r"every block in the place of every block, two at least; got shape"):
            plot.swap_blocks(part)
    with pytest.raises(ParameterError, match="got ndarray"):
        plot.swap_blocks(np.eye(3))
    assert plt.get_fignums() == []
