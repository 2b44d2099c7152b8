"""The error of one operator's predictions beside its baselines, or its eigenvalues in the complex plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgba

from depthflow.errors import ParameterError
from depthflow.plot._layout import legend, positions, ticks_across
from depthflow.plot._need import need
from depthflow.plot._style import (
    COLUMN,
    GREY,
    INK,
    LINE_WIDTH,
    MARKER_SIZE,
    NULL_DASHES,
    NULL_WIDTH,
    PALE,
    Style,
    canvas,
    group_style,
)
from depthflow.schema import TOKEN

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

CURVES = {
    "error_identity": ("identity", Style(group_style(5).color, (0, (1, 1)), "")),
    "error": ("one operator", Style(INK, "-", "o")),
    "error_endpoint": ("map of the horizon", Style(group_style(4).color, (0, (7, 1)), "D")),
    "error_per_step": ("map of each block", Style(group_style(0).color, (0, (3, 1)), "^")),
}
"""Each error's name in the legend and its style."""

VARIABLES = ("error", "eigenvalue")
ROOM = 0.08
"""Margin around the eigenvalues, as a share of the plane that is drawn."""


def dmd(
    ds: xr.Dataset,
    *,
    variable: str = "error",
    token_type: str | None = None,
    null: xr.Dataset | None = None,
    label: str | None = None,
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw how far one operator predicts, beside the three baselines; or its eigenvalues and the unit circle.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.dmd` returns.
    variable : {"error", "eigenvalue"}
        ``"error"``: the relative error against the horizon, of the operator, of the identity, of the map fitted for
        each horizon and of the maps of each block. A baseline that the states did not determine has no curve.
        ``"eigenvalue"``: the complex plane, with the area of a point in proportion to the mode's amplitude.
    token_type : str, optional
        Whose errors; by default those of the result's first type, which the title names.
    null : xarray.Dataset, optional
        The same measure of a null (the untrained twin, shuffled depths): its operator's error, grey and dashed, or
        its eigenvalues, as grey crosses.
    label, null_label : str
        The title for ``ds``, and what the legend calls ``null``.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width.

    Returns
    -------
    matplotlib.axes.Axes
        With the errors from 0 upward, or the plane with equal scales.

    Raises
    ------
    ParameterError
        If ``ds`` is no result of :func:`depthflow.dmd`, ``variable`` is neither, or the token type is not there.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, depthflow
    >>> states = np.random.default_rng(0).normal(size=(40, 5, 3)) + np.arange(5)[:, None]
    >>> result = depthflow.dmd(depthflow.trajectory(states, dims=("sample", "depth", "feature")))
    >>> ax = depthflow.plot.dmd(result)
    >>> [line.get_label() for line in ax.lines]
    ['identity', 'one operator', 'map of the horizon', 'map of each block']
    """
    if variable not in VARIABLES:
        raise ParameterError(f"plot.dmd draws variable='error' or variable='eigenvalue'; got {variable!r}.")
    results = [ds] if null is None else [ds, null]
    for result in results:
        need(result, variable, "dmd", "dmd")
    if variable == "eigenvalue":
        with canvas(ax, width=0.85 * COLUMN, height=0.85 * COLUMN) as axes:
            _draw_plane(axes, ds, null, null_label)
            axes.set_title(label or "")
        return axes
    of_type = [_of_type(result, token_type) for result in results]
    with canvas(ax) as axes:
        _draw_errors(axes, of_type[0], of_type[1] if null is not None else None, null_label)
        kind = str(of_type[0]["token_type"].item())
        axes.set_title(", ".join(filter(None, [label, "" if kind == TOKEN else kind])))
    return axes


def _of_type(ds: xr.Dataset, token_type: str | None) -> xr.Dataset:
    """Return the errors of one type of token."""
    kinds = [str(kind) for kind in ds["token_type"].values]
    if token_type is not None and token_type not in kinds:
        raise ParameterError(f"plot.dmd was asked for token_type={token_type!r}; this result has {kinds}.")
    return ds.isel(token_type=0 if token_type is None else kinds.index(token_type))


def _draw_errors(ax: Axes, ds: xr.Dataset, null: xr.Dataset | None, null_label: str) -> None:
    for order, (name, (text, style)) in enumerate(CURVES.items()):
        array = need(ds, name, "dmd", "dmd")
        if array.isnull().all():
            continue
        ax.plot(
            positions(array, "horizon"),
            array.values,
            color=style.color,
            linestyle=style.linestyle,
            marker=style.marker,
            markersize=MARKER_SIZE,
            linewidth=LINE_WIDTH,
            label=text,
            zorder=2 + order / 10 + (name == "error"),
        )
    if null is not None:
        ax.plot(
            positions(null["error"], "horizon"),
            null["error"].values,
            color=GREY,
            linestyle=NULL_DASHES,
            linewidth=NULL_WIDTH,
            label=f"{null_label}, one operator",
            zorder=1.5,
        )
    ax.set_ylim(0, None)
    ax.set_xlabel("horizon [blocks]")
    ax.set_ylabel("relative error")
    ax.set_xticks(ticks_across(ax, positions(ds["error"], "horizon")))
    legend(ax)


def _draw_plane(ax: Axes, ds: xr.Dataset, null: xr.Dataset | None, null_label: str) -> None:
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.axhline(0, color=PALE, linewidth=0.6, zorder=0)
    ax.axvline(0, color=PALE, linewidth=0.6, zorder=0)
    ax.plot(np.cos(turn), np.sin(turn), color=GREY, linewidth=0.8, zorder=1)
    value, amplitude = ds["eigenvalue"].values, np.nan_to_num(need(ds, "amplitude", "dmd", "dmd").values)
    share = amplitude / amplitude.max() if amplitude.max() > 0 else np.ones_like(amplitude)
    ax.scatter(
        value.real,
        value.imag,
        s=4 + 40 * share,
        facecolor=to_rgba(group_style(0).color, 0.45),
        edgecolor=INK,
        linewidth=0.5,
        label="observed" if null is not None else None,
        zorder=3,
    )
    drawn = [value]
    if null is not None:
        other = null["eigenvalue"].values
        ax.scatter(other.real, other.imag, s=14, marker="x", color=GREY, linewidth=0.8, label=null_label, zorder=2)
        drawn.append(other)
    every = np.concatenate(drawn)
    left, right = min(0.0, every.real.min()), max(1.0, every.real.max())
    half = (0.5 + ROOM) * max(right - left, 2 * np.abs(every.imag).max())
    ax.set_aspect("equal")
    ax.set_xlim((left + right) / 2 - half, (left + right) / 2 + half)
    ax.set_ylim(-half, half)
    ax.set_xlabel("Re λ")
    ax.set_ylabel("Im λ")
    legend(ax)
