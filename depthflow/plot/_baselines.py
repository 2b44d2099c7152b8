"""Baselines as faint curves, told apart by dashes and hollow markers: what a surrogate has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from depthflow.plot._style import GREY, MARKER_SIZE, NULL_WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: dict[str, tuple[Any, str]] = {
    "identity": ((0, (1, 1.5)), "v"),
    "linear": ((0, (2, 1)), "D"),
    "truncated": ((0, (6, 1.5, 1, 1.5)), "s"),
    "repeated": ("-", "^"),
}
"""Dashes and marker of each baseline."""


def draw_baselines(ax: Axes, x: np.ndarray, values: dict[str, np.ndarray]) -> None:
    """Draw each baseline's ``values`` against ``x``; what is NaN throughout has no curve."""
    for name, (dashes, marker) in STYLES.items():
        if name in values and np.isfinite(values[name]).any():
            ax.plot(
                x,
                values[name],
                color=GREY,
                linestyle=dashes,
                linewidth=NULL_WIDTH,
                marker=marker,
                markersize=MARKER_SIZE,
                markerfacecolor="white",
                markeredgewidth=0.7,
                label=name,
                zorder=1.5,
            )
