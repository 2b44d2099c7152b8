"""What putting each block in each other's place does, as a matrix with the phases of depth drawn on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, StrMethodFormatter

from depthflow.errors import ParameterError
from depthflow.plot._matrix import draw_matrix, draw_phases
from depthflow.plot._need import need
from depthflow.plot._style import COLUMN, canvas

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

VARIABLES = ("effect", "accuracy")
DIFFERENCES = {"difference": "between − within", "matched_difference": "at equal distance"}
LEAST_RATIO = 5
"""From here on a logarithmic scale has at least two of the ticks 1, 2, 5, 10, …"""


def swap_blocks(ds: xr.Dataset, *, ax: Axes | None = None, variable: str = "effect") -> Axes:
    """Draw what becomes of the model's output for every block replaced and every block put in its place.

    The diagonal, where nothing is swapped, is left blank. Each phase is a framed square, numbered on the right; where
    blocks of one phase do the same work, the squares hold the smallest effects of their rows. Effects that differ by a
    factor of 5 or more have a logarithmic scale: a swap at the first block often changes all, and would leave one
    colour for the rest. The title states the difference between minus within phases and that among pairs equally
    far apart in depth, with their intervals, or for ``"accuracy"`` the accuracy without a swap.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.swap_blocks` returns.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width. A colour bar
        takes part of its space.
    variable : {"effect", "accuracy"}
        What to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The block replaced from top to bottom, the block put in its place from left to right. The colours span the
        values that are there; for the same colours in two pictures use ``ax.images[0].set_clim(low, high)``.

    Raises
    ------
    ParameterError
        If the variable is neither, is not in ``ds``, or is not square with at least two blocks.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, xarray as xr, depthflow
    >>> effect = np.array([[0.0, 0.1, 0.6], [0.1, 0.0, 0.5], [0.7, 0.6, 0.0]])
    >>> ds = xr.Dataset({"effect": (("block", "block_other"), effect)}, {"phase": ("block", [1, 1, 2])})
    >>> ax = depthflow.plot.swap_blocks(ds)
    >>> ax.get_ylabel(), ax.get_xlabel(), [(patch.get_x(), patch.get_width()) for patch in ax.patches]
    ('block replaced (i)', 'block put in (j)', [(0.5, 2.0), (2.5, 1.0)])
    """
    if variable not in VARIABLES:
        raise ParameterError(f"plot.swap_blocks draws one of {VARIABLES}; got variable={variable!r}.")
    matrix = need(ds, variable, "swap_blocks", "swap_blocks").transpose("block", "block_other")
    if len(set(matrix.shape)) != 1 or len(matrix) < 2:
        raise ParameterError(
            f"plot.swap_blocks needs every block in the place of every block, two at least; got shape {matrix.shape}."
        )
    values = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix.values)
    with canvas(ax, height=0.85 * COLUMN) as axes:
        blocks = draw_matrix(axes, matrix.copy(data=values))
        if variable == "effect":
            _scale_by_ratio(axes.images[-1])
        if "phase" in ds.variables:
            draw_phases(axes, blocks, ds["phase"].values)
        axes.set_xlabel("block put in (j)")
        axes.set_ylabel("block replaced (i)")
        axes.set_title(_title(ds, variable), fontsize="medium")
    return axes


def _scale_by_ratio(image: AxesImage) -> None:
    low, high = image.get_clim()
    if low is None or high is None or not 0 < LEAST_RATIO * low <= high:
        return
    image.set_norm(LogNorm(low, high))
    bar = image.colorbar
    if bar is not None:
        bar.minorticks_off()
        bar.locator, bar.formatter = LogLocator(subs=(1, 2, 5)), StrMethodFormatter("{x:g}")
        bar.update_ticks()


def _title(ds: xr.Dataset, variable: str) -> str:
    if variable == "accuracy":
        return f"without a swap {ds['accuracy_unswapped'].item():.2f}" if "accuracy_unswapped" in ds else ""
    return "\n".join(_difference(ds, name, said) for name, said in DIFFERENCES.items() if name in ds)


def _difference(ds: xr.Dataset, name: str, said: str) -> str:
    if np.isnan(ds[name].item()):
        return f"{said} undefined"
    interval = ""
    if f"{name}_low" in ds and f"{name}_high" in ds:
        interval = f" [{ds[f'{name}_low'].item():#.2g}, {ds[f'{name}_high'].item():#.2g}]"
    return f"{said} {ds[name].item():#.2g}{interval} rad"
