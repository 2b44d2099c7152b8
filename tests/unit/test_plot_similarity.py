import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from depthflow import plot
from depthflow.errors import ParameterError
from tests.tolerances import EXACT, FLOAT64
from tests.unit.plot_results import BLOCKS, phases_result


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_the_matrix_is_drawn_with_each_block_centred_on_its_number_and_the_first_at_the_top():
    ds = phases_result()
    ax = plot.similarity(ds)
    image = ax.images[0]
    np.testing.assert_allclose(image.get_array(), ds["similarity"], **EXACT)
    assert image.get_extent() == [0.5, BLOCKS + 0.5, BLOCKS + 0.5, 0.5]
    assert ax.get_xticks().tolist() == ax.get_yticks().tolist() == [1, 2, 3, 4, 5]
    assert ax.get_ylim() == (BLOCKS + 0.5, 0.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("block", "block")


def test_phases_are_squares_whose_edges_lie_between_blocks():
    ax = plot.similarity(phases_result())
    squares = [(float(box.get_x()), float(box.get_y()), box.get_width(), box.get_height()) for box in ax.patches]
    assert squares == [(0.5, 0.5, 2.0, 2.0), (2.5, 2.5, 3.0, 3.0)]


def test_phases_are_numbered_at_their_middles():
    numbers = plot.similarity(phases_result()).child_axes[0]
    assert numbers.get_ylabel() == "phase"
    assert numbers.get_yticks().tolist() == [1.5, 4.0]
    assert [tick.get_text() for tick in numbers.get_yticklabels()] == ["1", "2"]


def test_boundary_probabilities_stand_between_their_block_and_the_next_without_the_last():
    bars = plot.similarity(phases_result()).child_axes[1]
    centers = [bar.get_x() + bar.get_width() / 2 for bar in bars.patches]
    np.testing.assert_allclose(centers, [1.5, 2.5, 3.5, 4.5], **FLOAT64)
    assert [bar.get_height() for bar in bars.patches] == [0.1, 0.9, 0.0, 0.3]
    assert bars.get_ylim() == (0.0, 1.0)
    assert bars.get_xlim() == (0.5, BLOCKS + 0.5)


def test_the_title_states_contrast_interval_and_p_value():
    ds = phases_result()
    assert plot.similarity(ds).get_title() == "contrast 0.31 [0.21, 0.42], p = 0.005"
    assert plot.similarity(ds.drop_vars(["contrast_low", "p_value"])).get_title() == "contrast 0.31"


def test_colours_span_the_similarities_of_different_blocks():
    ds = phases_result()
    values = ds["similarity"].values
    image = plot.similarity(ds).images[0]
    assert image.get_clim() == (values.min(), 1.0)


def test_the_colour_bar_names_the_metric():
    ds = phases_result()
    assert plot.similarity(ds).figure.axes[1].get_ylabel() == "similarity of blocks"
    assert plot.similarity(ds.assign_attrs(metric="cosine")).figure.axes[1].get_ylabel().endswith("blocks (cosine)")
    ds["similarity"].attrs["metric"] = "cka"
    assert plot.similarity(ds).figure.axes[1].get_ylabel() == "similarity of blocks (cka)"


def test_a_plain_similarity_has_neither_phases_nor_title():
    ax = plot.similarity(phases_result()["similarity"].transpose())
    assert len(ax.patches) == len(ax.child_axes) == 0
    assert ax.get_title() == ""


def test_an_input_row_is_block_0():
    matrix = xr.DataArray(
        np.eye(3), dims=("block", "block_other"), coords={"block": [0, 1, 2], "block_other": [0, 1, 2]}
    )
    ax = plot.similarity(matrix)
    assert ax.get_xticks().tolist() == [0, 1, 2]
    assert ax.images[0].get_extent() == [-0.5, 2.5, 2.5, -0.5]


def test_one_block_is_drawn():
    ds = phases_result().isel(block=[0], block_other=[0])
    assert len(plot.similarity(ds).patches) == 1


def test_what_is_not_a_square_similarity_is_refused():
    with pytest.raises(ParameterError, match=r"needs the variable 'similarity', which `depthflow\.phases` makes"):
        plot.similarity(xr.Dataset({"phase": ("block", [1, 2])}))
    with pytest.raises(ParameterError, match=r"square similarity .*got \('block', 'block_other'\) of shape \(4, 5\)"):
        plot.similarity(phases_result()["similarity"][1:])
    with pytest.raises(ParameterError, match="got ndarray"):
        plot.similarity(np.eye(3))
    assert plt.get_fignums() == []
