"""Ranks of the updates along depth, or their normalised spectra block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import BoundaryNorm

from depthflow.errors import ParameterError
from depthflow.plot._curves import draw_curves, quartiles
from depthflow.plot._layout import color_bar, legend, positions, ticks_across, ticks_upward
from depthflow.plot._need import need_curve
from depthflow.plot._style import INK, LINE_WIDTH, NULL_DASHES, SEQUENTIAL, canvas

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

LIGHTEST = 0.9
"""Where the colours of the blocks end: the map's last yellow is faint on white."""

SPECTRUM = "singular_value"
FLOOR = 1e-6
"""Singular values below this share of the first are not accurate enough to be drawn."""


def update_spectra(
    ds: xr.Dataset,
    *,
    variable: str = "stable_rank",
    null: xr.Dataset | None = None,
    label: str | None = None,
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw how many directions an update uses, against the block; or the spectrum itself, one curve a block.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.update_spectra` returns, pooled or not, or :func:`depthflow.bootstrap` of it: a curve then
        has its interval as the band.
    variable : str
        ``"stable_rank"``, ``"effective_rank"``, ``"participation_ratio"`` or ``"energy_rank"``: the median over
        samples, with the band between the quartiles. ``"singular_value"``: each block's spectrum as σ_i/σ_1
        (median over samples) on a logarithmic axis, down to 1e-6.
    null : xarray.Dataset, optional
        The same measure of a null (the untrained twin, shuffled depths): its medians, grey and dashed, behind; of
        spectra, the median over its samples and blocks, black and in front.
    label, null_label : str
        What the legend calls ``ds`` and ``null``.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width. Spectra take a
        colour bar from its space.

    Returns
    -------
    matplotlib.axes.Axes
        With the quantity's long name and unit on its axis.

    Raises
    ------
    ParameterError
        If ``ds`` lacks the variable, or it does not run along block; if a spectrum lacks its first mode.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, xarray as xr, depthflow
    >>> ds = xr.Dataset({"stable_rank": (("sample", "block"), np.arange(1.0, 16.0).reshape(3, 5))})
    >>> ax = depthflow.plot.update_spectra(ds)
    >>> ax.get_xticks().tolist(), ax.lines[0].get_ydata().tolist()
    ([1, 2, 3, 4, 5], [6.0, 7.0, 8.0, 9.0, 10.0])
    """
    array = need_curve(ds, variable, "update_spectra", "update_spectra")
    other = None if null is None else need_curve(null, variable, "update_spectra", "update_spectra")
    shares = [_share_of_first(values) for values in (array, other) if values is not None and variable == SPECTRUM]
    with canvas(ax) as axes:
        if shares:
            _draw_spectra(axes, shares[0])
            if null is not None:
                _draw_null(axes, shares[1], null_label)
            if label is not None:
                axes.set_title(label)
        else:
            draw_curves(axes, ds, variable, plot="update_spectra", null=other, label=label, null_label=null_label)
    return axes


def _draw_spectra(ax: Axes, share: xr.DataArray) -> None:
    blocks, mode = positions(share, "block"), positions(share, "mode")
    colors = mpl.colormaps[SEQUENTIAL](np.linspace(0, LIGHTEST, len(blocks)))
    for median, color in zip(quartiles(share, "block", "mode")[1], colors, strict=True):
        ax.plot(mode, _above_zero(median), color=color, linewidth=LINE_WIDTH)
    ax.set_yscale("log")
    _show_what_is_accurate(ax)
    ax.set_xlabel("mode")
    ax.set_ylabel("singular value / largest")
    ax.set_xticks(ticks_across(ax, mode))
    norm = BoundaryNorm(np.arange(len(blocks) + 1) - 0.5, len(blocks))
    bar = color_bar(mpl.cm.ScalarMappable(norm, mpl.colors.ListedColormap(colors)), ax, "block")
    ticks = ticks_upward(ax, blocks)
    bar.set_ticks(np.searchsorted(blocks, ticks).tolist(), labels=[str(block) for block in ticks])


def _draw_null(ax: Axes, share: xr.DataArray, label: str) -> None:
    # In front: a fan of spectra would hide it.
    ax.plot(
        positions(share, "mode"),
        _above_zero(quartiles(share, "mode")[1]),
        color=INK,
        linestyle=NULL_DASHES,
        linewidth=LINE_WIDTH,
        label=label,
        zorder=3,
    )
    _show_what_is_accurate(ax)
    legend(ax)


def _above_zero(median: np.ndarray) -> np.ndarray:
    """Return the values that have a place on a logarithmic axis, NaN for the others: centering leaves a mode of 0."""
    return np.where(median > 0, median, np.nan)


def _show_what_is_accurate(ax: Axes) -> None:
    shown = [np.asarray(line.get_ydata()) for line in ax.lines]
    lowest = min(np.min(values[values > 0], initial=1.0) for values in shown)
    ax.set_ylim(max(0.7 * lowest, FLOOR), 1.3)


def _share_of_first(array: xr.DataArray) -> xr.DataArray:
    first = positions(array, "mode")[0]
    if first != 1:
        raise ParameterError(
            f"plot.update_spectra draws shares of the first singular value; this result begins with mode {first}. "
            "Give it all modes, and select with `ax.set_xlim`."
        )
    # Where nothing is updated there is no first: NaN, which takes no part in the median.
    largest = array.isel(mode=0, drop=True)
    return array / largest.where(largest > 0)
