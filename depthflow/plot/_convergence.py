"""Convergence along depth: one curve a token type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depthflow.plot._curves import draw_curves
from depthflow.plot._need import need_curve
from depthflow.plot._style import canvas

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def convergence(
    ds: xr.Dataset,
    *,
    variable: str = "angle",
    by: str | None = "token_type",
    null: xr.Dataset | None = None,
    label: str | None = None,
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw a quantity of convergence against depth: the median, with the band between the quartiles.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.convergence` returns, or :func:`depthflow.bootstrap` of it: a curve of one token then
        has its interval as the band.
    variable : str
        A variable along ``depth`` (``"angle"``, ``"alignment"``, ``"norm"``) or along ``block`` (``"speed"``,
        ``"turning"``, ``"update_norm"``, ``"radial_fraction"``).
    by : str or None
        The coord of samples or tokens that parts the values into curves (at most 20), such as ``"label"``; None
        pools them all. Quartiles are taken over samples and tokens together; of more than four curves only the
        medians are drawn.
    null : xarray.Dataset, optional
        The same measure of a null (the untrained twin, shuffled depths): its medians, grey and dashed, behind.
    label, null_label : str
        What the legend calls ``ds`` and ``null``.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width.

    Returns
    -------
    matplotlib.axes.Axes
        With the quantity's long name and unit on its axis. Entries that are NaN take no part; a depth with
        nothing but NaN leaves a gap.

    Raises
    ------
    ParameterError
        If ``ds`` lacks the variable, or it does not run along depth or block; if ``by`` is no coord of samples or
        tokens.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, xarray as xr, depthflow
    >>> angle = np.linspace(1.2, 0.0, 6)[:, None] * np.ones(3)
    >>> ds = xr.Dataset(
    ...     {"angle": (("depth", "token"), angle)},
    ...     {"depth": np.arange(6), "token_type": ("token", ["cls", "patch", "patch"])},
    ... )
    >>> ax = depthflow.plot.convergence(ds)
    >>> ax.get_xlabel(), ax.get_ylabel().split()[-1]
    ('depth', '[rad]')
    >>> [line.get_label() for line in ax.lines]
    ['cls', 'patch']
    """
    need_curve(ds, variable, "convergence", "convergence")
    other = None if null is None else need_curve(null, variable, "convergence", "convergence")
    with canvas(ax) as axes:
        draw_curves(axes, ds, variable, plot="convergence", by=by, null=other, label=label, null_label=null_label)
    return axes
