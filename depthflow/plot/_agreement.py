"""When the basins come to agree with the labels, and when the samples commit to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthflow.plot._layout import legend, positions, ticks_across
from depthflow.plot._need import need
from depthflow.plot._style import GREY, LINE_WIDTH, MARKER_SIZE, NULL_DASHES, NULL_WIDTH, PALE, canvas, group_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

SCORES = ("ari", "nmi")


def agreement(
    ds: xr.Dataset, *, null: xr.Dataset | None = None, null_label: str = "null", ax: Axes | None = None
) -> Axes:
    """Draw the basins' agreement with the labels by depth, before bars of the samples that commit at each depth.

    Agreement is the adjusted Rand index (ARI, 0 by chance) and the normalised mutual information (NMI) between the
    labels and the nearest center at each depth. A bar is the share of samples whose commitment depth is that
    depth.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.basins` returns for a trajectory with labels.
    null : xarray.Dataset, optional
        The same of a null (the untrained twin, shuffled labels): its ARI and NMI, grey and dashed, behind.
    null_label : str
        What the legend calls ``null``.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width.

    Returns
    -------
    matplotlib.axes.Axes
        Scores and shares on one axis from 0 to 1.

    Raises
    ------
    ParameterError
        If ``ds`` lacks ``ari`` or ``nmi`` (the trajectory had no labels), or ``commitment_depth``.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, xarray as xr, depthflow
    >>> ds = xr.Dataset(
    ...     {
    ...         "ari": ("depth", [0.0, 0.5, 0.9]),
    ...         "nmi": ("depth", [0.1, 0.6, 0.9]),
    ...         "commitment_depth": ("sample", [1, 2, 2, 2]),
    ...     },
    ...     {"depth": np.arange(3)},
    ... )
    >>> ax = depthflow.plot.agreement(ds)
    >>> [float(bar.get_height()) for bar in ax.patches]
    [0.0, 0.25, 0.75]
    """
    scores = [need(ds, name, "agreement", "basins") for name in SCORES]
    nulls = [] if null is None else [need(null, name, "agreement", "basins") for name in SCORES]
    committed = need(ds, "commitment_depth", "agreement", "basins").values
    depth = positions(scores[0], "depth")
    share = np.array([np.mean(committed == value) for value in depth])
    with canvas(ax) as axes:
        for index, array in enumerate(scores):
            style = group_style(index)
            axes.plot(
                depth,
                array.values,
                color=style.color,
                linestyle=style.linestyle,
                linewidth=LINE_WIDTH,
                marker=style.marker,
                markersize=MARKER_SIZE,
                label=SCORES[index].upper(),
                zorder=3,
            )
        for index, array in enumerate(nulls):
            axes.plot(
                positions(array, "depth"),
                array.values,
                color=GREY,
                linestyle=NULL_DASHES,
                linewidth=NULL_WIDTH,
                marker=group_style(index).marker,
                markersize=MARKER_SIZE,
                markerfacecolor="white",
                label=f"{null_label}, {SCORES[index].upper()}",
                zorder=2,
            )
        axes.bar(depth, share, width=0.8, color=PALE, label="samples committing", zorder=1)
        lowest = min(0.0, *(float(array.min()) for array in [*scores, *nulls]))
        axes.set_ylim(lowest - 0.03 * (lowest < 0), 1.03)
        axes.set_xlabel("depth")
        axes.set_ylabel("agreement;\nshare of samples")
        axes.set_xticks(ticks_across(axes, depth))
        legend(axes)
    return axes
