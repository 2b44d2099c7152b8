"""Coherence of the tokens along depth, beside what isotropic tokens would show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depthflow.plot._curves import draw_curves
from depthflow.plot._layout import legend
from depthflow.plot._need import need_curve
from depthflow.plot._style import GREY, canvas

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

RESULTANTS = ("coherence", "update_coherence")
MARGIN = 0.03


def coherence(
    ds: xr.Dataset,
    *,
    variable: str = "coherence",
    null: xr.Dataset | None = None,
    label: str | None = None,
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw how far the tokens move together: the median over samples, with the band between the quartiles.

    A mean resultant length is drawn on the whole scale from 0 to 1, with a dotted line at 1/√T: the root mean
    square of T tokens of independent isotropic directions [1]_.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.coherence` returns, or :func:`depthflow.bootstrap` of it: a curve then
        has its interval as the band.
    variable : str
        ``"coherence"``, ``"angle_to_mean"`` or ``"clusters_energy"`` along ``depth``, or ``"update_coherence"``
        along ``block``.
    null : xarray.Dataset, optional
        The same measure of a null (the untrained twin, shuffled depths): its medians, grey and dashed, behind.
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
        If ``ds`` lacks the variable, or it does not run along depth or block.

    References
    ----------
    .. [1] K. V. Mardia and P. E. Jupp, Directional Statistics, Wiley (2000), doi:10.1002/9780470316979.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, xarray as xr, depthflow
    >>> ds = xr.Dataset({"coherence": (("sample", "depth"), np.linspace(0.3, 0.9, 18).reshape(3, 6))})
    >>> ax = depthflow.plot.coherence(ds)
    >>> ax.lines[0].get_ydata().round(2).tolist()
    [0.51, 0.55, 0.58, 0.62, 0.65, 0.69]
    """
    need_curve(ds, variable, "coherence", "coherence")
    other = None if null is None else need_curve(null, variable, "coherence", "coherence")
    with canvas(ax) as axes:
        draw_curves(axes, ds, variable, plot="coherence", null=other, label=label, null_label=null_label)
        if variable in RESULTANTS:
            axes.set_ylim(-MARGIN, 1 + MARGIN)
            if "token" in ds.sizes:
                isotropic = ds.sizes["token"] ** -0.5
                axes.axhline(isotropic, color=GREY, linestyle=":", linewidth=1, label="isotropic, 1/√T", zorder=1)
                legend(axes)
    return axes
