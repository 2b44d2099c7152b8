"""A matrix of pairs of blocks, and the phases of depth on its diagonal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from depthflow.plot._layout import axis_label, color_bar, positions, ticks_across, ticks_upward
from depthflow.plot._style import INK, SEQUENTIAL

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def draw_matrix(ax: Axes, matrix: xr.DataArray, metric: str | None = None) -> np.ndarray:
    """Draw ``matrix`` (block, block_other), the first block at the top left, and return the blocks' numbers."""
    blocks = positions(matrix, "block")
    low, high = blocks[0] - 0.5, blocks[-1] + 0.5
    values = np.asarray(matrix.values, dtype=np.float64)
    image = ax.imshow(values, cmap=SEQUENTIAL, extent=(low, high, high, low), interpolation="nearest")
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_xticks(ticks_across(ax, blocks))
    ax.set_yticks(ticks_upward(ax, blocks))
    ax.set_xlabel("block")
    ax.set_ylabel("block")
    name = axis_label(ax, str(matrix.name), matrix)
    color_bar(image, ax, f"{name} ({metric})" if metric else name, shrink=0.8)
    return blocks


def draw_phases(ax: Axes, blocks: np.ndarray, phase: np.ndarray) -> None:
    """Frame each run of one phase on the diagonal, and write its number or name on the right."""
    starts = np.flatnonzero(np.append(True, phase[1:] != phase[:-1]))
    ends = np.append(starts[1:], len(phase))
    for start, end in zip(starts, ends, strict=True):
        corner, size = float(blocks[start]) - 0.5, float(end - start)
        frame = Rectangle((corner, corner), size, size, fill=False, edgecolor="white", linewidth=1.4, clip_on=False)
        frame.set_path_effects([withStroke(linewidth=2.8, foreground=INK)])
        ax.add_patch(frame)
    numbers = ax.secondary_yaxis("right")
    numbers.set_yticks((blocks[starts] + blocks[ends - 1]) / 2, [str(value) for value in phase[starts]])
    numbers.tick_params(length=0, pad=3, labelsize=ax.yaxis.get_ticklabels()[0].get_fontsize())
    numbers.set_ylabel("phase")
    numbers.spines["right"].set_visible(False)
