"""How far pushed paths are from the path that was not pushed, along depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from depthflow.plot._curves import draw_curves
from depthflow.plot._layout import legend, positions
from depthflow.plot._need import need_curve
from depthflow.plot._style import GREY, INK, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AS_PUSHED = {"gain": 1.0, "growth_rate": 0.0}
"""Where the angle is that of the push; for the angle, that itself."""
CARRIED = {"gain": "carried_gain"}
"""The null of a variable in the same Dataset: that no later block answered to the push."""


def perturb(
    ds: xr.Dataset,
    *,
    variable: str = "gain",
    by: str | None = "token_type",
    null: xr.Dataset | None = None,
    label: str | None = None,
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw how a push grows or dies out along depth: the median over draws and samples, with the quartiles' band.

    Curves start at the depth of the push, which a thin upright line marks; before it there is nothing to see. A
    dotted line lies where the paths are as far apart as at the push: gain 1, the angle of the push, or growth rate 0.
    Dash-dotted is the median gain if no later block answered to the push, where ``ds`` has it: states that grow
    shrink every angle, and only what lies below that curve is a return.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.perturb` returns.
    variable : str
        ``"gain"`` or ``"angle"`` along ``depth``, or ``"growth_rate"`` along ``block``.
    by : str or None
        The coord of samples or tokens that parts the values into curves, such as ``"label"``; None pools them all.
        A gain is of all pushed tokens together and has no token types to be parted by.
    null : xarray.Dataset, optional
        The same push of a null (the untrained twin): its medians, grey and dashed, behind.
    label, null_label : str
        What the legend calls ``ds`` and ``null``.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width.

    Returns
    -------
    matplotlib.axes.Axes
        With the quantity's long name and unit on its axis.

    Raises
    ------
    ParameterError
        If ``ds`` lacks the variable, or it does not run along depth or block; if ``by`` is no coord of samples or
        tokens.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import xarray as xr, depthflow
    >>> gain = [[[0.0, 1.0, 0.5, 0.2], [0.0, 1.0, 0.7, 0.4]]]
    >>> ds = xr.Dataset({"gain": (("draw", "sample", "depth"), gain)}, attrs={"pushed_depth": 1})
    >>> ax = depthflow.plot.perturb(ds)
    >>> ax.lines[0].get_ydata().round(2).tolist()
    [nan, 1.0, 0.6, 0.3]
    """
    array = _from_push(ds, variable)
    other = None if null is None else _from_push(null, variable)
    depth, level = ds.attrs.get("pushed_depth"), AS_PUSHED.get(variable, ds.attrs.get("pushed_angle"))
    with canvas(ax) as axes:
        shown = ds.assign({variable: array})
        draw_curves(axes, shown, variable, plot="perturb", by=by, null=other, label=label, null_label=null_label)
        if level is not None:
            axes.axhline(level, color=GREY, linestyle=":", linewidth=1, label="as pushed", zorder=1)
        if CARRIED.get(variable) in ds:
            carried = _from_push(ds, CARRIED[variable])
            median = carried.median([dim for dim in carried.dims if dim != "depth"])
            axes.plot(positions(carried, "depth"), median, "-.", color=INK, linewidth=1, label="if no block answered")
        if depth is not None and "depth" in array.dims:
            axes.axvline(depth, color=GREY, linewidth=1, label="push", zorder=1)
        if variable != "growth_rate":
            axes.set_ylim(bottom=0)
        legend(axes)
    return axes


def _from_push(ds: xr.Dataset, variable: str) -> xr.DataArray:
    """Return the variable, NaN at the depths before the push, where it is 0 by definition."""
    array = need_curve(ds, variable, "perturb", "perturb")
    depth = ds.attrs.get("pushed_depth")
    if depth is None or "depth" not in array.dims:
        return array
    return array.where(xr.DataArray(positions(array, "depth") >= depth, dims="depth"))
