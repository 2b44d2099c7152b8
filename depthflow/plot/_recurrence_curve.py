"""How the error and the accuracy of surrogates change with the number of their blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthflow.errors import ParameterError
from depthflow.plot._baselines import draw_baselines
from depthflow.plot._layout import axis_label, legend, positions, ticks_across
from depthflow.plot._need import need
from depthflow.plot._style import GREY, INK, LINE_WIDTH, MARKER_SIZE, NULL_DASHES, NULL_WIDTH, canvas

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

VARIABLES = ("epsilon", "recovery", "probe_recovery")
FURTHEST = 1.5
"""How far the axis of errors goes for baselines; it always holds the surrogates."""


def recurrence_curve(
    ds: xr.Dataset,
    *,
    variable: str = "epsilon",
    null: xr.Dataset | None = None,
    label: str = "surrogate",
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw the scores of surrogates against their number of blocks: the mean over seeds, and every seed as a dot.

    The band runs from the least to the largest seed. The baselines, grey and hollow, have as many blocks. Where a few
    blocks do the work of all, ε falls steeply, then hardly any more.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.recurrence_curve` returns.
    variable : {"epsilon", "recovery", "probe_recovery"}
        ε, the largest relative error over depths; or the surrogate's over the teacher's accuracy, with a dotted line at
        1. For both side by side draw each into an Axes of its own.
    null : xarray.Dataset, optional
        The curve of a null (random partitions, the untrained twin): its mean, grey and dashed.
    label, null_label : str
        What the legend calls ``ds`` and ``null``.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width.

    Returns
    -------
    matplotlib.axes.Axes
        With the number of phases k from left to right. Baselines with errors beyond 1.5 leave the picture.

    Raises
    ------
    ParameterError
        If ``variable`` is none of these, or is not in ``ds`` along ``n_phases`` and ``seed``.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import xarray as xr, depthflow
    >>> ds = xr.Dataset(
    ...     {"epsilon": (("n_phases", "seed"), [[0.9, 0.8], [0.4, 0.6]])}, {"n_phases": [1, 2], "seed": [0, 1]}
    ... )
    >>> ax = depthflow.plot.recurrence_curve(ds)
    >>> ax.lines[0].get_ydata().tolist(), len(ax.collections[-1].get_offsets())
    ([0.8500000000000001, 0.5], 4)
    """
    if variable not in VARIABLES:
        raise ParameterError(f"plot.recurrence_curve draws one of {VARIABLES}; got variable={variable!r}.")
    values = _by_seed(ds, variable)
    other = None if null is None else _by_seed(null, variable)
    count = positions(values, "n_phases")
    known = f"baseline_{variable}" in ds
    baselines = ds[f"baseline_{variable}"].mean("seed").transpose("baseline", "n_phases") if known else []
    with canvas(ax) as axes:
        axes.plot(count, values.mean("seed"), color=INK, linewidth=LINE_WIDTH, label=label, zorder=3)
        if values.sizes["seed"] > 1:
            low, high = values.min("seed"), values.max("seed")
            axes.fill_between(count, low, high, color=INK, alpha=0.15, linewidth=0, zorder=2)
        axes.scatter(
            np.repeat(count, values.sizes["seed"]), values.values.ravel(), s=MARKER_SIZE**2, color=INK, zorder=3.1
        )
        if other is not None:
            axes.plot(
                positions(other, "n_phases"),
                other.mean("seed"),
                color=GREY,
                linestyle=NULL_DASHES,
                linewidth=NULL_WIDTH,
                label=null_label,
                zorder=1.6,
            )
        draw_baselines(axes, count, {str(one["baseline"].item()): one.values for one in baselines})
        if variable != "epsilon":
            axes.axhline(1.0, color=GREY, linestyle=":", linewidth=1, label="as the model", zorder=1)
        _limit(axes, variable, values.values)
        axes.set_xlabel("number of phases k")
        axes.set_ylabel(axis_label(axes, variable, ds[variable]))
        axes.set_xticks(ticks_across(axes, count))
        legend(axes)
    return axes


def _by_seed(ds: xr.Dataset, variable: str) -> xr.DataArray:
    array = need(ds, variable, "recurrence_curve", "recurrence_curve")
    if set(array.dims) != {"n_phases", "seed"}:
        raise ParameterError(
            f"plot.recurrence_curve draws along the dims ('n_phases', 'seed'); {variable!r} has "
            f"{tuple(map(str, array.dims))}. Give the whole result of `depthflow.recurrence_curve`."
        )
    return array.transpose("n_phases", "seed")


def _limit(ax: Axes, variable: str, own: np.ndarray) -> None:
    """Set the y axis from 0 to hold the surrogates, and errors of baselines up to a distance."""
    top = ax.get_ylim()[1]
    if variable == "epsilon":
        top = max(1.05 * np.nanmax(own, initial=0.0), min(top, FURTHEST))
    ax.set_ylim(0, top)
