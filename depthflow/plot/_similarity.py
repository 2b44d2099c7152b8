"""The similarity of blocks as a matrix, with the phases of depth drawn on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from depthflow.errors import ParameterError
from depthflow.plot._matrix import draw_matrix, draw_phases
from depthflow.plot._need import need
from depthflow.plot._style import COLUMN, INK, canvas

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

PHASE = "phase"
PROBABILITY = "boundary_probability"


def similarity(data: xr.Dataset | xr.DataArray, *, ax: Axes | None = None) -> Axes:
    """Draw the similarity of every pair of blocks, and on it the phases where there are any.

    Each phase is a framed square on the diagonal, numbered on the right. Where the phases were resampled, the bars
    above the matrix are the shares of resamples in which a phase ends there; the title states the contrast within
    minus between phases, with its interval, and the p-value against shuffled depths.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        What :func:`depthflow.phases` returns, or what :func:`depthflow.similarity` returns.
    ax : matplotlib.axes.Axes, optional
        Where to draw, under your own settings; by default in a new figure of single-column width. A colour bar
        takes part of its space.

    Returns
    -------
    matplotlib.axes.Axes
        Block numbers on both axes, the first block at the top left. The colours span the values that are there;
        for the same colours in two pictures use ``ax.images[0].set_clim(low, high)``.

    Raises
    ------
    ParameterError
        If there is no square similarity (block, block_other).

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, xarray as xr, depthflow
    >>> matrix = np.kron(np.eye(2), np.ones((3, 3)))
    >>> ds = xr.Dataset(
    ...     {"similarity": (("block", "block_other"), matrix), "phase": ("block", [1, 1, 1, 2, 2, 2])},
    ...     {"block": np.arange(1, 7), "block_other": np.arange(1, 7)},
    ... )
    >>> ax = depthflow.plot.similarity(ds)
    >>> [(patch.get_x(), patch.get_width()) for patch in ax.patches]
    [(0.5, 3.0), (3.5, 3.0)]
    """
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name="similarity")
    matrix = need(data, "similarity", "similarity", "phases")
    if set(matrix.dims) != {"block", "block_other"} or len(set(matrix.shape)) != 1:
        raise ParameterError(
            "plot.similarity needs a square similarity with the dims ('block', 'block_other'); got "
            f"{tuple(map(str, matrix.dims))} of shape {matrix.shape}."
        )
    matrix = matrix.transpose("block", "block_other")
    with canvas(ax, height=0.85 * COLUMN) as axes:
        blocks = draw_matrix(axes, matrix, matrix.attrs.get("metric") or data.attrs.get("metric"))
        if PHASE in data:
            draw_phases(axes, blocks, data[PHASE].values)
        if PROBABILITY in data:
            _draw_probability(axes, blocks, data[PROBABILITY].values)
        axes.set_title(_title(data), fontsize="medium")
    return axes


def _draw_probability(ax: Axes, blocks: np.ndarray, probability: np.ndarray) -> None:
    bars = ax.inset_axes((0.0, 1.04, 1.0, 0.13))
    # The last block ends a phase in every resample: its bar would say nothing.
    bars.bar(blocks[:-1] + 0.5, probability[:-1], width=0.5, color=INK)
    bars.set_xlim(ax.get_xlim())
    bars.set_xticks([])
    bars.set_ylim(0, 1)
    bars.set_yticks([1])
    bars.tick_params(labelsize=ax.yaxis.get_ticklabels()[0].get_fontsize(), length=2)
    bars.text(1.03, 0.5, "boundary\nprobability", transform=bars.transAxes, va="center", fontsize="small")
    for side in ("top", "right"):
        bars.spines[side].set_visible(False)


def _title(data: xr.Dataset) -> str:
    parts = []
    if "contrast" in data and data["contrast"].ndim == 0:
        part = f"contrast {data['contrast'].item():.2f}"
        if "contrast_low" in data and "contrast_high" in data:
            part += f" [{data['contrast_low'].item():.2f}, {data['contrast_high'].item():.2f}]"
        parts.append(part)
    if "p_value" in data:
        parts.append(f"p = {data['p_value'].item():.2g}")
    return ", ".join(parts)
