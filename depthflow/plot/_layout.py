"""Axis labels, ticks, legend and colour bar, each fitted to the room that the Axes has."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import FontProperties

from depthflow.schema import VARIABLES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.transforms import BboxBase

STEPS = (2, 5, 10, 20, 50, 100, 200, 500)


def axis_label(ax: Axes, name: str, array: xr.DataArray) -> str:
    """Return the variable's long name and, unless it is a plain number, its unit, in lines as long as the y axis."""
    known = VARIABLES.get(name)
    long_name = array.attrs.get("long_name") or (known.long_name if known else name.replace("_", " "))
    units = array.attrs.get("units") or (known.units if known else "1")
    return _folded(str(long_name) if units == "1" else f"{long_name} [{units}]", 0.85 * _points(ax, ax.bbox.height))


def wrapped(ax: Axes, text: str) -> str:
    """Return ``text`` in lines that are no wider than the Axes: a layout engine makes no room for wider ones."""
    return _folded(text, _points(ax, ax.bbox.width))


def positions(array: xr.DataArray, dim: str) -> np.ndarray:
    """Return the numbers along ``dim``; without such a coord depths count from 0, blocks and modes from 1."""
    if dim in array.coords:
        return np.asarray(array[dim].values)
    return np.arange(array.sizes[dim]) + (dim != "depth")


def integer_ticks(values: np.ndarray, most: int) -> np.ndarray:
    """Return all of the increasing integers if at most ``most``, else the first, the last and round ones between."""
    values = np.asarray(values)
    if len(values) <= most:
        return values
    first, last = values[0], values[-1]
    step = next((step for step in STEPS if (last - first) / step <= most - 1), last - first)
    between = values[(values % step == 0) & (values - first > step / 2) & (last - values > step / 2)]
    return np.unique([first, *between, last])


def ticks_across(ax: Axes, values: np.ndarray) -> np.ndarray:
    """Return as many of the integers as their labels have room for along the x axis."""
    return integer_ticks(values, max(2, int(_points(ax, ax.bbox.width) / (1.9 * _tick_size("x")))))


def ticks_upward(ax: Axes, values: np.ndarray) -> np.ndarray:
    """Return as many of the integers as their labels have room for along the y axis."""
    return integer_ticks(values, max(2, int(_points(ax, ax.bbox.height) / (1.2 * _tick_size("y")))))


def legend(ax: Axes, *, title: str | None = None) -> None:
    """Add or renew the legend above the Axes, where it hides nothing.

    In a figure without a layout engine nothing would make room there: it then goes inside, where matplotlib finds
    most room.
    """
    labels = ax.get_legend_handles_labels()[1]
    figure = ax.get_figure(root=True)
    if not labels or figure is None:
        return
    if figure.get_layout_engine() is None:
        ax.legend(title=title, loc="best", framealpha=0.8)
        return
    options: dict[str, Any] = {"ncols": _columns(ax, labels), "columnspacing": 1.5, "title": title}
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, **options)
    if not any(isinstance(child.get_axes_locator(), _Headroom) for child in ax.child_axes):
        ax.inset_axes((0, 0, 1, 1)).set(frame_on=False, xticks=[], yticks=[], axes_locator=_Headroom(ax))


def _columns(ax: Axes, labels: list[str]) -> int:
    """Return the most legend columns that fit the width of the Axes with its own labels."""
    figure: Any = ax.get_figure()
    spec = ax.get_subplotspec()
    share = len(spec.colspan) / spec.get_gridspec().ncols if spec is not None else 1.0
    room = _points(ax, figure.bbox.width) * share / _size("legend.fontsize")
    for columns in range(len(labels), 1, -1):
        # Filled column by column, as matplotlib does; widths in units of the font's size.
        parts = np.array_split([len(text) for text in labels], columns)
        if sum(5.0 + 0.55 * max(part) for part in parts) < room:
            return -(-len(labels) // -(-len(labels) // columns))
    return 1


class _Headroom:
    """Place of an empty child Axes that lies where the legend lies, so that matplotlib sets a title above it."""

    def __init__(self, ax: Axes) -> None:
        self.ax = ax

    def __call__(self, _child: Axes, renderer: Any) -> BboxBase:
        legend = self.ax.get_legend()
        box = self.ax.bbox if legend is None else legend.get_window_extent(renderer)
        figure: Any = self.ax.get_figure()
        return box.transformed(figure.transSubfigure.inverted())


def color_bar(mappable: ScalarMappable, ax: Axes, label: str, **options: Any) -> Colorbar:
    """Add a slim colour bar without a frame, in space taken from ``ax``."""
    figure: Any = ax.get_figure()
    bar: Colorbar = figure.colorbar(mappable, ax=ax, label=label, aspect=25, **options)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=_tick_size("y"))
    bar.ax.tick_params(which="minor", length=0)
    return bar


def _folded(text: str, points: float) -> str:
    most = max(12, int(points / (0.58 * _size("axes.labelsize"))))
    lines = -(-len(text) // most)
    # Lines of like length; a word more than the even share lets the last one be short instead of a line too many.
    return textwrap.fill(text, min(most, len(text) // lines + 8))


def _size(name: Any) -> float:
    return FontProperties(size=mpl.rcParams[name]).get_size_in_points()


def _tick_size(axis: str) -> float:
    return _size(f"{axis}tick.labelsize")


def _points(ax: Axes, pixels: float) -> float:
    figure = ax.get_figure(root=True)
    return pixels * 72 / (figure.dpi if figure is not None else 72)
