"""Final directions on a sphere, flat, with the basins' centers and what the view leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke

from depthflow.errors import ParameterError
from depthflow.plot._layout import legend, wrapped
from depthflow.plot._need import need
from depthflow.plot._sphere import frame, lambert, pole, principal_sphere, radius
from depthflow.plot._style import COLUMN, GREY, INK, MAX_GROUPS, PALE, canvas, group_style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

SEEN = 0.5
"""A direction that keeps less of its squared length than this lies mostly out of view: its mark is hollow."""

STEPS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
MARK = 9.0
CROWDED = 0.16
"""Of centers nearer to one another than this share of the picture's radius, only the first is numbered."""


class View(NamedTuple):
    """Positions in the picture, each direction's kept share, and the angle from the pole to the rim (rad)."""

    samples: np.ndarray
    centers: np.ndarray
    kept: np.ndarray
    rim: float


def basins(ds: xr.Dataset, *, color: str = "basin", ax: Axes | None = None) -> Axes:
    """Draw the samples' final directions and the basins' centers on a sphere.

    The sphere is that of the three principal directions of the samples' final directions. Every direction is
    projected into those three dimensions, brought back to length 1, and drawn in Lambert's azimuthal equal-area
    projection [1]_ about their mean (or, where a center would lie more than 2 rad from it, about the middle of the
    centers): circles are angles from the middle of the picture, in rad. Text under the picture states how much of the
    squared length the three dimensions hold; a direction that keeps less than half of its own is a hollow mark, and
    its place says little.

    Parameters
    ----------
    ds : xarray.Dataset
        What :func:`depthflow.basins` returns: ``direction`` (sample, feature), ``center`` (basin, feature), ``basin``.
    color : str
        The coord or variable of the samples that colours them: ``"basin"``, or ``"label"`` (at most 20 groups, with
        a legend). Groups differ in their markers, too.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width.

    Returns
    -------
    matplotlib.axes.Axes
        Without ticks. Stars are centers, numbered as their basins are; of a crowd only the first, which is the fullest.

    Raises
    ------
    ParameterError
        If ``ds`` lacks the directions, the centers or the colours, or there are too many groups.

    Notes
    -----
    Takes a (feature, feature) matrix and its eigenvectors.

    References
    ----------
    .. [1] J. P. Snyder, Map Projections: A Working Manual, USGS Professional Paper 1395 (1987), doi:10.3133/pp1395.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, xarray as xr, depthflow
    >>> ds = xr.Dataset(
    ...     {
    ...         "direction": (("sample", "feature"), np.eye(4)[[0, 0, 1, 2]]),
    ...         "center": (("basin_number", "feature"), np.eye(4)[:3]),
    ...         "basin": ("sample", [0, 0, 1, 2]),
    ...     }
    ... )
    >>> print(depthflow.plot.basins(ds).get_xlabel())
    3 of 4 dimensions hold 100% of the squared length
    (samples: 100% to 100%)
    """
    directions = need(ds, "direction", "basins", "basins").transpose("sample", "feature").values.astype(np.float64)
    centers = need(ds, "center", "basins", "basins").transpose(..., "feature")
    names = _names(ds, color)
    view = _view(directions, centers.values.astype(np.float64))
    with canvas(ax, height=COLUMN if color == "basin" else 1.15 * COLUMN) as axes:
        _draw_graticule(axes, view)
        _draw_samples(axes, view, names, labelled=color != "basin")
        _draw_centers(axes, view, _numbers(centers))
        axes.set_xlabel(wrapped(axes, _account(view.kept, directions.shape[1])))
        legend(axes, title=None if color == "basin" else color)
    return axes


def _names(ds: xr.Dataset, color: str) -> np.ndarray:
    if color not in ds.variables or ds[color].dims != ("sample",):
        fit = sorted(str(name) for name in ds.variables if ds[name].dims == ("sample",) and name != "sample")
        raise ParameterError(
            f"plot.basins needs color= a coord or variable of the samples; got {color!r}. Choose among {fit}."
        )
    names = ds[color].values
    count = len(np.unique(names))
    if color != "basin" and count > MAX_GROUPS:
        raise ParameterError(
            f"plot.basins tells at most {MAX_GROUPS} groups apart; {color!r} has {count}. Select fewer samples, or "
            'color="basin".'
        )
    return np.asarray(names)


def _view(directions: np.ndarray, centers: np.ndarray) -> View:
    basis, kept = principal_sphere(directions)
    points, landmarks = _on_sphere(directions @ basis), _on_sphere(centers @ basis)
    placed = points[~np.isnan(points[:, 0])]
    turn = frame(placed, pole(placed, landmarks[~np.isnan(landmarks[:, 0])]))
    samples, marks = lambert(points @ turn.T), lambert(landmarks @ turn.T)
    furthest = np.nanmax(np.hypot(*np.concatenate([samples, marks]).T))
    rim = min(1.08 * 2 * float(np.arcsin(min(furthest / 2, 1.0))) + 0.02, np.pi)
    return View(samples, marks, kept, rim)


def _on_sphere(vectors: np.ndarray) -> np.ndarray:
    """Return ``vectors`` at length 1; one that has nothing in these dimensions has no place, and is NaN."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.full_like(vectors, np.nan), where=length > 1e-9))


def _draw_graticule(ax: Axes, view: View) -> None:
    rim, clear = view.rim, _clear_direction(view)
    edge = float(radius(rim))
    ax.add_patch(Circle((0, 0), edge, facecolor="none", edgecolor=GREY, linewidth=0.8, zorder=1))
    for meridian in np.arange(8) * np.pi / 4:
        ax.plot([0, edge * np.cos(meridian)], [0, edge * np.sin(meridian)], color=PALE, linewidth=0.5, zorder=0)
    step = next(step for step in STEPS if rim / step < 5)
    halo = [withStroke(linewidth=2, foreground="white")]
    for angle in np.arange(step, rim - 0.3 * step, step):
        r = float(radius(angle))
        ax.add_patch(Circle((0, 0), r, facecolor="none", edgecolor=PALE, linewidth=0.5, zorder=0))
        ax.annotate(
            f"{angle:g} rad",
            (r * clear[0], r * clear[1]),
            ha="center",
            va="center",
            fontsize="x-small",
            color=GREY,
            zorder=5,
            path_effects=halo,
        )
    ax.set_xlim(-1.02 * edge, 1.02 * edge)
    ax.set_ylim(-1.02 * edge, 1.02 * edge)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)


def _clear_direction(view: View) -> np.ndarray:
    """Return the unit vector in the picture, halfway between two meridians, that lies furthest from the marks."""
    marks = np.concatenate([view.samples, view.centers])
    marks = marks[np.hypot(*marks.T) > 0.2 * radius(view.rim)]
    turns = (np.arange(8) + 0.5) * np.pi / 4
    away = np.abs((np.arctan2(marks[:, 1], marks[:, 0])[:, None] - turns + np.pi) % (2 * np.pi) - np.pi)
    best = turns[np.argmax(np.min(away, axis=0, initial=np.pi))]
    return np.array([np.cos(best), np.sin(best)])


def _draw_samples(ax: Axes, view: View, names: np.ndarray, *, labelled: bool) -> None:
    for index, name in enumerate(np.unique(names)):
        style = group_style(index)
        chosen = names == name
        seen = view.kept >= SEEN
        marks: dict[str, Any] = {
            "marker": style.marker,
            "s": MARK,
            "linewidths": 0.5,
            "edgecolors": style.color,
            "zorder": 3,
        }
        for part, face in ((chosen & seen, style.color), (chosen & ~seen, "none")):
            ax.scatter(view.samples[part, 0], view.samples[part, 1], facecolors=face, **marks)
        if labelled:
            # Its own entry: either part may be empty.
            ax.scatter([], [], facecolors=style.color, label=str(name), **marks)


def _numbers(centers: xr.DataArray) -> list[str]:
    dim = centers.dims[0]
    return [f"{number}" for number in (centers[dim].values if dim in centers.coords else range(centers.shape[0]))]


def _draw_centers(ax: Axes, view: View, numbers: list[str]) -> None:
    halo = [withStroke(linewidth=2.2, foreground="white")]
    x, y = view.centers.T
    ax.scatter(x, y, s=60, marker="*", color=INK, edgecolors="white", linewidths=0.7, zorder=4)
    numbered: list[np.ndarray] = []
    for center, number in zip(view.centers, numbers, strict=True):
        if any(np.hypot(*(center - other)) < CROWDED * radius(view.rim) for other in numbered):
            continue
        numbered.append(center)
        ax.annotate(
            number,
            center,
            xytext=(4, 4),
            textcoords="offset points",
            fontsize="medium",
            fontweight="bold",
            color=INK,
            path_effects=halo,
            zorder=5,
        )


def _account(kept: np.ndarray, features: int) -> str:
    hollow = f"; hollow: below {SEEN:.0%}" if (kept < SEEN).any() else ""
    return (
        f"{min(3, features)} of {features} dimensions hold {kept.mean():.0%} of the squared length "
        f"(samples: {kept.min():.0%} to {kept.max():.0%}{hollow})"
    )
