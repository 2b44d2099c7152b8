"""What blocks do to small changes, block by block or along depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthflow.errors import ParameterError
from depthflow.plot._curves import draw_curves
from depthflow.plot._layout import legend
from depthflow.plot._need import need, need_curve
from depthflow.plot._style import GREY, canvas

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

UNCHANGED = {"singular_value": 1.0, "rms_gain": 1.0, "exponent": 0.0}
"""Where a map that only turns changes, and neither stretches nor shrinks them, would lie."""


def jacobian(
    ds: xr.Dataset,
    *,
    variable: str = "singular_value",
    mode: int = 1,
    by: str | None = None,
    null: xr.Dataset | None = None,
    label: str | None = None,
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw how spans of blocks stretch small changes: the median over samples, with the quartiles' band.

    Spans of one block are drawn against the block, others against the depth at which they end. Below the dotted line
    (1 for gains, 0 for exponents) changes shrink.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.jacobian` or :func:`depthflow.finite_jacobian` returns.
    variable : str
        ``"singular_value"`` or ``"exponent"`` of one ``mode``, ``"rms_gain"``, ``"nonnormality"``, ``"symmetry"`` or
        ``"rank"``.
    mode : int
        Which singular value, 1 for the largest.
    by : str or None
        The coord of samples or tokens that parts the values into curves, such as ``"label"``.
    null : xarray.Dataset, optional
        The same of a null (the untrained twin): its medians, grey and dashed, behind.
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
        If ``ds`` lacks the variable or the mode, or ``by`` is no coord of samples or tokens.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import depthflow
    >>> model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("test")
    >>> ds = depthflow.jacobian(model, data.images[:2], n_modes=1, progress=False)
    >>> ax = depthflow.plot.jacobian(ds, variable="rms_gain")
    >>> ax.get_xlabel(), len(ax.lines[0].get_ydata())
    ('block', 12)
    """
    values = _along_depth(ds, variable, mode)
    other = None if null is None else _along_depth(null, variable, mode)[variable]
    with canvas(ax) as axes:
        draw_curves(axes, values, variable, plot="jacobian", by=by, null=other, label=label, null_label=null_label)
        if "mode" in ds[variable].dims:
            axes.set_ylabel(f"{axes.get_ylabel()}, mode {mode}")
        if variable in UNCHANGED:
            axes.axhline(UNCHANGED[variable], color=GREY, linestyle=":", linewidth=1, label="no growth", zorder=1)
        legend(axes)
    return axes


def _along_depth(ds: xr.Dataset, variable: str, mode: int) -> xr.Dataset:
    """Return the variable along ``block`` or ``depth``, at one mode."""
    array = need(ds, variable, "jacobian", "jacobian")
    if "mode" in array.dims:
        if mode not in array["mode"].values:
            raise ParameterError(
                f"plot.jacobian was asked for mode {mode}; this result has the modes {array['mode'].values.tolist()}."
            )
        array = array.sel(mode=mode, drop=True)
    if "span" in array.dims:
        single = np.array_equal(ds["stop"] - ds["start"], np.ones(ds.sizes["span"]))
        array = array.drop_vars(["start", "stop"]).rename(span="block" if single else "depth")
    result = array.to_dataset(name=variable)
    need_curve(result, variable, "jacobian", "jacobian")
    return result
