"""Median and interquartile band along depth or block, one curve a group, with the null's curves behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthflow.errors import ParameterError
from depthflow.plot._layout import axis_label, legend, positions, ticks_across
from depthflow.plot._quartiles import IN_MEMORY_BYTES, PERCENTILES, quartiles_by_parts
from depthflow.plot._style import (
    GREY,
    LINE_WIDTH,
    MARKER_SIZE,
    MAX_GROUPS,
    NULL_DASHES,
    NULL_WIDTH,
    TOKEN_STYLES,
    Style,
    group_style,
)
from depthflow.schema import TOKEN, TOKEN_TYPES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

MAX_BANDS = 4
"""More bands than this lie over one another and hide the medians."""


class Group(NamedTuple):
    """Some of the values, under a name (empty where there is nothing to tell apart)."""

    name: str
    style: Style
    values: xr.DataArray


def groups(array: xr.DataArray, by: str | None, plot: str) -> list[Group]:
    """Split ``array`` by the coord ``by`` of its samples or tokens."""
    if by is None or (by == "token_type" and by not in array.coords):
        return [Group("", TOKEN_STYLES[TOKEN], array)]
    if by not in array.coords:
        raise ParameterError(
            f"plot.{plot} was asked for by={by!r}, but {array.name!r} has the coords "
            f"{sorted(map(str, array.coords))}. Choose one of samples or tokens, or None."
        )
    coord = array[by]
    if coord.ndim > 1 or coord.dims in (("depth",), ("block",)):
        raise ParameterError(
            f"plot.{plot} needs by= a coord of samples or of tokens; {by!r} has the dims {tuple(map(str, coord.dims))}."
        )
    names = list(dict.fromkeys(np.sort(coord.values.ravel()).tolist()))
    if set(names) <= set(TOKEN_TYPES):
        names.sort(key=TOKEN_TYPES.index)
        styles = [TOKEN_STYLES[name] for name in names]
    else:
        styles = [group_style(index) for index in range(len(names))]
    if len(names) > MAX_GROUPS:
        raise ParameterError(
            f"plot.{plot} tells at most {MAX_GROUPS} groups apart; {by!r} has {len(names)}. Select fewer, or by=None."
        )
    if coord.ndim == 0:
        return [Group(str(names[0]), styles[0], array)]
    dim = coord.dims[0]
    return [
        Group("" if name == TOKEN else str(name), style, array.isel({dim: np.flatnonzero(coord.values == name)}))
        for name, style in zip(names, styles, strict=True)
    ]


def quartiles(values: xr.DataArray, *along: str) -> np.ndarray:
    """Return the 25th, 50th and 75th percentile (3, *along) over everything else, NaN where there is nothing else.

    Entries that are NaN take no part. Of dask-backed values, too many for memory are gone through part by part.
    """
    sizes = [values.sizes[dim] for dim in along]
    if values.chunks is not None and values.nbytes > IN_MEMORY_BYTES:
        return quartiles_by_parts(values, along).reshape(3, *sizes)
    rows = values.transpose(*along, ...).values.reshape(math.prod(sizes), -1).astype(np.float64)
    known = ~np.isnan(rows).all(axis=1)
    result = np.full((3, len(rows)), np.nan)
    if known.any():
        result[:, known] = np.nanpercentile(rows[known], PERCENTILES, axis=1)
    return result.reshape(3, *sizes)


def draw_curves(
    ax: Axes,
    ds: xr.Dataset,
    variable: str,
    *,
    plot: str,
    by: str | None = None,
    null: xr.DataArray | None = None,
    label: str | None = None,
    null_label: str = "null",
) -> None:
    """Draw the variable's curves, and ``null``'s in grey behind them, with axis labels, ticks and legend."""
    array = ds[variable]
    along = "depth" if "depth" in array.dims else "block"
    parts = groups(array, by, plot)
    if null is not None and label is None and not parts[0].name:
        label = "observed"
    for order, part in enumerate(parts):
        low, middle, high = quartiles(part.values, along)
        if array.size == len(middle) and f"{variable}_low" in ds and f"{variable}_high" in ds:
            low, high = ds[f"{variable}_low"].values.ravel(), ds[f"{variable}_high"].values.ravel()
        x = positions(part.values, along)
        ax.plot(
            x,
            middle,
            color=part.style.color,
            linestyle=part.style.linestyle,
            marker=part.style.marker,
            markersize=MARKER_SIZE,
            linewidth=LINE_WIDTH,
            label=_joined(label, part.name),
            zorder=3 - order / 100,
        )
        if len(parts) <= MAX_BANDS and not np.array_equal(low, high, equal_nan=True):
            ax.fill_between(x, low, high, color=part.style.color, alpha=0.2, linewidth=0, zorder=2)
    for part in [] if null is None else groups(null, by, plot):
        alone = len(parts) == 1
        ax.plot(
            positions(part.values, along),
            quartiles(part.values, along)[1],
            color=GREY,
            linestyle=NULL_DASHES,
            marker="" if alone else part.style.marker,
            markersize=MARKER_SIZE,
            markerfacecolor="white",
            linewidth=NULL_WIDTH,
            label=_joined(null_label, "" if alone else part.name),
            zorder=1.5,
        )
    ax.set_xlabel(along)
    ax.set_ylabel(axis_label(ax, variable, array))
    ax.set_xticks(ticks_across(ax, positions(array, along)))
    legend(ax)


def _joined(*names: str | None) -> str | None:
    return ", ".join(filter(None, names)) or None
