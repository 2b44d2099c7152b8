"""Pictures as files inside the page."""

from __future__ import annotations

import base64
import io
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from depthflow import pictures
from depthflow.errors import DepthflowError
from depthflow.plot._sphere import frame, lambert, pole
from depthflow.plot._style import GREY, PALE
from depthflow.reporting.directions import WHOLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from depthflow.analysis import Analysis
    from depthflow.reporting.directions import View

MANY = 1000
"""From so many marks on, they are kept as pixels: as shapes they would weigh more than the rest of the page."""
SVG = "image/svg+xml"
DPI = 110
PIXELS = 96
"""Of the page, to an inch of a picture."""
MISSING = r"Glyph .* missing"
"""How matplotlib's warning of a letter that its font lacks begins."""


def uri(data: bytes, mime: str) -> str:
    """Return a file as the address of itself."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def panels(analysis: Analysis, name: str) -> list[dict[str, Any]]:
    """Return each panel of a measure as an SVG, with what it shows in words; in place of one that fails, why."""
    from matplotlib.figure import Figure

    width, height = pictures.size(name)
    made: list[dict[str, Any]] = []
    for panel in pictures.panels(analysis, name):
        figure = Figure(figsize=(width, height), layout="constrained")
        try:
            pictures.paint(panel, figure.add_subplot(), analysis, name)
        except DepthflowError as error:
            made.append({"width": round(PIXELS * width), "shows": panel.shows, "fault": str(error)})
            continue
        file = _svg(figure)
        made.append({"width": _width(file), "shows": panel.shows, "src": uri(file, SVG)})
    return made


def sphere(view: View, groups: Sequence[int], colors: Sequence[str], depths: Sequence[int]) -> str:
    """Return the view at the first, a middle and the last depth side by side, flat, as an SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    points = view.points / WHOLE
    last = points[-1].T
    turn = frame(last, pole(last, last[:0]))
    face = np.array(colors)[np.asarray(groups)]
    shown = [0, len(depths) // 2, len(depths) - 1]
    for axes, index in zip(figure.subplots(1, len(shown)), shown, strict=True):
        x, y = lambert(points[index].T @ turn.T).T
        axes.scatter(x, y, s=6, c=face, linewidths=0)
        axes.add_patch(mpl.patches.Circle((0, 0), 2, facecolor="none", edgecolor=GREY, linewidth=0.8))
        axes.add_patch(mpl.patches.Circle((0, 0), 2**0.5, facecolor="none", edgecolor=PALE, linewidth=0.6))
        axes.set(xlim=(-2.05, 2.05), ylim=(-2.05, 2.05), aspect="equal")
        axes.axis("off")
        axes.set_title(f"depth {depths[index]} ({view.kept[index]:.0%})", fontsize=10)
    return uri(_svg(figure), SVG)


def _width(file: bytes) -> int:
    """Return the width of an SVG on the page at which its letters have their own size."""
    points = file.partition(b'width="')[2].partition(b"pt")[0]
    return round(PIXELS * float(points) / 72)


def _svg(figure: Figure) -> bytes:
    for axes in figure.axes:
        many = sum(np.size(np.asarray(marks.get_offsets())) for marks in axes.collections) > 2 * MANY
        for marks in axes.collections:
            marks.set_rasterized(many)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", MISSING, UserWarning)
        try:
            return _saved(figure, "path")
        except UserWarning:
            warnings.filterwarnings("ignore", MISSING, UserWarning)
            # Names in letters that matplotlib's font lacks: the browser has fonts for them.
            return _saved(figure, "none")


def _saved(figure: Figure, letters: str) -> bytes:
    file = io.BytesIO()
    # The same picture is the same file: neither a date nor names made by chance.
    with mpl.rc_context({"svg.hashsalt": "depthflow", "svg.fonttype": letters}):
        figure.savefig(file, format="svg", dpi=DPI, bbox_inches="tight", metadata={"Date": None})
    return file.getvalue()
