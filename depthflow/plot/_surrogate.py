"""How near a surrogate stays to its teacher along depth, beside what needs no training."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from depthflow.errors import ParameterError
from depthflow.plot._baselines import draw_baselines
from depthflow.plot._curves import draw_curves
from depthflow.plot._layout import legend, positions
from depthflow.plot._need import need
from depthflow.plot._style import INK, PALE, canvas
from depthflow.schema import PAD

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

VARIABLES = ("r2", "cosine", "relative_error")
ALL, ALL_WIDTH = "all", 2.4
FURTHEST = {"r2": -1.0, "cosine": -1.0, "relative_error": 1.5}
"""How far the axis goes for baselines; it always holds the surrogate."""


def surrogate(
    ds: xr.Dataset,
    *,
    variable: str = "r2",
    null: xr.Dataset | None = None,
    label: str = "surrogate",
    null_label: str = "null",
    ax: Axes | None = None,
) -> Axes:
    """Draw how near a surrogate's states stay to its teacher's at every depth, and how near the baselines' do.

    The surrogate's curves are of all tokens but padding and, where there are several, of each type of token; the
    baselines', grey and hollow, of all tokens. Phases are shaded by turns and numbered. In the picture of the relative
    error a dotted line marks ε, its largest value over depths. The title states ε, and where there are labels the
    recovery, with its interval, and the accuracies.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.score_surrogate` returns, or one entry of :func:`depthflow.recurrence_curve`'s, as in
        ``ds.sel(n_phases=2, seed=0)``.
    variable : {"r2", "cosine", "relative_error"}
        What to draw.
    null : xarray.Dataset, optional
        The scores of a null (a random partition, the untrained twin's surrogate): its curve of all tokens, dashed.
    label, null_label : str
        What the legend calls ``ds`` and ``null``.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width.

    Returns
    -------
    matplotlib.axes.Axes
        With the depths 1 … L from left to right. Baselines that are far off, such as an R² below −1, leave the
        picture.

    Raises
    ------
    ParameterError
        If ``variable`` is none of these, or ``ds`` does not hold it along ``depth`` and ``token_type`` alone.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import xarray as xr, depthflow
    >>> ds = xr.Dataset(
    ...     {
    ...         "r2": (("depth", "token_type"), [[0.9], [0.8], [0.85]]),
    ...         "baseline_r2": (("baseline", "depth", "token_type"), [[[0.1], [-0.2], [-0.3]]]),
    ...     },
    ...     {"depth": [1, 2, 3], "token_type": ["all"], "baseline": ["identity"], "phase": ("depth", [1, 2, 2])},
    ... )
    >>> ax = depthflow.plot.surrogate(ds)
    >>> [line.get_label() for line in ax.lines], [text.get_text() for text in ax.texts]
    (['surrogate', 'identity'], ['1', '2'])
    """
    if variable not in VARIABLES:
        raise ParameterError(f"plot.surrogate draws one of {VARIABLES}; got variable={variable!r}.")
    _require_one(ds, variable)
    of_all = ds.sel(token_type=ALL)
    other = None if null is None else _require_one(null, variable).sel(token_type=ALL)
    kinds = [kind for kind in ds["token_type"].values.tolist() if kind not in (ALL, PAD)]
    depth = positions(ds[variable], "depth")
    with canvas(ax, height=2.8) as axes:
        own = len(axes.lines)
        draw_curves(axes, of_all, variable, plot="surrogate", null=other, label=label, null_label=null_label)
        if len(kinds) > 1:
            axes.lines[own].set(marker="", linewidth=ALL_WIDTH)  # else the class token's looks the same in greyscale
            draw_curves(axes, ds.sel(token_type=kinds), variable, plot="surrogate", by="token_type")
        baselines = need(of_all, f"baseline_{variable}", "surrogate", "score_surrogate")
        draw_baselines(axes, depth, {str(one["baseline"].item()): one.values for one in baselines})
        _limit(axes, variable, ds[variable].values, baselines.values)
        if variable == "relative_error" and "epsilon" in ds:
            axes.axhline(ds["epsilon"].item(), color=INK, linestyle=":", linewidth=1, label="ε", zorder=1)
        if "phase" in ds.coords:
            _draw_phases(axes, depth, ds["phase"].values)
        axes.set_title(_title(ds), fontsize="medium")
        legend(axes)
    return axes


def _require_one(ds: xr.Dataset, variable: str) -> xr.DataArray:
    array = need(ds, variable, "surrogate", "score_surrogate")
    if set(array.dims) != {"depth", "token_type"}:
        raise ParameterError(
            f"plot.surrogate draws the scores of one surrogate, along ('depth', 'token_type'); {variable!r} has the "
            f"dims {tuple(map(str, array.dims))}. Select one, such as `ds.sel(n_phases=2, seed=0)`."
        )
    return array


def _limit(ax: Axes, variable: str, own: np.ndarray, others: np.ndarray) -> None:
    """Set the y axis to hold the surrogate, and baselines up to a distance."""
    known, furthest = [values[np.isfinite(values)] for values in (own, others)], FURTHEST[variable]
    if variable == "relative_error":
        ends = [values.max(initial=0.0) for values in known]
        top = 1.05 * max(ends[0], min(ends[1], furthest))
        ax.set_ylim(-0.03 * top, top)
        return
    starts = [values.min(initial=0.0) for values in known]
    bottom = min(starts[0], max(starts[1], furthest))
    ax.set_ylim(bottom - 0.05, 1.05)


def _draw_phases(ax: Axes, depth: np.ndarray, phase: np.ndarray) -> None:
    """Shade every second run of one phase, and number all at the bottom."""
    runs = [list(run) for _, run in groupby(range(len(phase)), key=lambda index: phase[index])]
    for order, run in enumerate(runs):
        start, stop = depth[run[0]] - 0.5, depth[run[-1]] + 0.5
        if order % 2:
            ax.axvspan(start, stop, color=PALE, alpha=0.5, linewidth=0, zorder=0)
        ax.text(
            (start + stop) / 2,
            0.02,
            str(phase[run[0]]),
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize="small",
            color=INK,
            bbox={"boxstyle": "square,pad=0.15", "facecolor": PALE if order % 2 else "white", "linewidth": 0},
            zorder=4,
        )
    ax.set_xlim(depth[0] - 0.5, depth[-1] + 0.5)


def _title(ds: xr.Dataset) -> str:
    lines = []
    if "epsilon" in ds and "epsilon_depth" in ds:
        lines.append(f"ε = {ds['epsilon'].item():.3g} at depth {ds['epsilon_depth'].item()}")
    kind = next((kind for kind in ("", "probe_") if f"{kind}recovery" in ds), None)
    if kind is not None:
        share, whole = (ds[f"{name}_{kind}accuracy"].item() for name in ("surrogate", "teacher"))
        interval = ""
        if f"{kind}recovery_low" in ds:
            interval = f" [{ds['recovery_low'].item():.3f}, {ds['recovery_high'].item():.3f}]"
        of_probe = "probe " if kind else ""
        lines.append(f"{of_probe}recovery {ds[f'{kind}recovery'].item():.3f}{interval} ({share:.3f} of {whole:.3f})")
    return "\n".join(lines)
