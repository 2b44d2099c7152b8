"""How many pushed paths end in their own basin, basin by basin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from depthflow.plot._layout import legend
from depthflow.plot._need import need
from depthflow.plot._style import GREY, INK, LINE_WIDTH, MARKER_SIZE, NULL_WIDTH, canvas

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

NAME = "basin_stability"
BESIDE = 0.16
"""Half the distance between a basin and the null's of the same number: they have no more in common than that."""


def basin_stability(
    ds: xr.Dataset,
    *,
    null: xr.Dataset | None = None,
    label: str = "observed",
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of pushed paths that end in their own basin, for each basin, with its 95 % interval.

    A bar across each share shows, where the result has it, the share if no later block answered to the push: only
    above it does anything pull the paths back.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.basin_stability` returns.
    null : xarray.Dataset, optional
        The same of a null (the untrained twin), grey. Its basins are its own: number 3 of one is not number 3 of the
        other.
    label, null_label : str
        What the legend calls ``ds`` and ``null``.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width.

    Returns
    -------
    matplotlib.axes.Axes
        With the number of the basin across and the share upward.

    Raises
    ------
    ParameterError
        If ``ds`` or ``null`` is not what ``basin_stability`` returns.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import xarray as xr, depthflow
    >>> shares = {"basin_stability": [1.0, 0.6], "low": [0.8, 0.4], "high": [1.0, 0.8]}
    >>> ds = xr.Dataset({name: ("basin", values) for name, values in shares.items()})
    >>> ax = depthflow.plot.basin_stability(ds)
    >>> ax.containers[0].lines[0].get_ydata().tolist()
    [1.0, 0.6]
    """
    shown: list[tuple[xr.Dataset, str, dict[str, Any]]]
    shown = [(ds, label, {"color": INK, "elinewidth": LINE_WIDTH, "zorder": 3})]
    if null is not None:
        shown.append((null, null_label, {"color": GREY, "mfc": "white", "elinewidth": NULL_WIDTH, "zorder": 2}))
    with canvas(ax) as axes:
        for place, (result, name, style) in enumerate(shown):
            share, low, high = (need(result, one, NAME, NAME).values for one in (NAME, "low", "high"))
            basin = np.arange(len(share)) + BESIDE * (2 * place - 1) * (len(shown) > 1)
            axes.errorbar(basin, share, [share - low, high - share], fmt="o", ms=MARKER_SIZE, label=name, **style)
            if "carried_stability" in result:
                bar, color = None if place else "if no block answered", style["color"]
                axes.plot(basin, result["carried_stability"].values, "_", color=color, ms=3 * MARKER_SIZE, label=bar)
        axes.set(xlabel="basin", ylabel="share of pushed paths\nthat end in their basin", ylim=(0, 1.03))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(axes)
    return axes
