"""One picture per question, each beside its null."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from depthflow import plot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import xarray as xr
    from matplotlib.axes import Axes

    from depthflow.analysis import Analysis

    Panel = Callable[[Axes, xr.Dataset, xr.Dataset, str], None]

PANEL = (3.6, 3.0)
SPHERE = (3.6, 4.6)
"""Width and height of one panel, inches; a sphere has its legend above and its account below."""
DPI = 200


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Write ``<measure>.png`` into ``folder`` for every measure of the analysis, and return the paths."""
    from matplotlib.figure import Figure

    written = []
    for name, result in analysis.results.items():
        panels = [panel for needs, panel in PANELS[name] if needs is None or needs in result]
        width, height = SPHERE if name == "basins" else PANEL
        figure = Figure(figsize=(width * len(panels), height), layout="constrained")
        for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            panel(axes, result, analysis.null[name], analysis.null_name)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
        written.append(path)
    return written


def _curve(
    function: Callable[..., Axes], ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str, **options: str
) -> None:
    function(result, ax=ax, null=null, null_label=null_name, **options)


def _similarity(ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    plot.similarity(result, ax=ax)


def _similarity_of_null(ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    plot.similarity(null, ax=ax)
    ax.set_title(f"{null_name}\n{ax.get_title()}", fontsize="medium")


def _basins(color: str, ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    plot.basins(result, ax=ax, color=color)


PANELS: Mapping[str, list[tuple[str | None, Panel]]] = {
    "convergence": [
        (None, partial(_curve, plot.convergence, variable="angle")),
        (None, partial(_curve, plot.convergence, variable="speed")),
    ],
    "coherence": [
        (None, partial(_curve, plot.coherence, variable="coherence")),
        (None, partial(_curve, plot.coherence, variable="update_coherence")),
    ],
    "update_spectra": [
        (None, partial(_curve, plot.update_spectra, variable="stable_rank")),
        (None, partial(_curve, plot.update_spectra, variable="singular_value")),
    ],
    "phases": [(None, _similarity), (None, _similarity_of_null)],
    "basins": [
        (None, partial(_basins, "basin")),
        ("label", partial(_basins, "label")),
        ("ari", partial(_curve, plot.agreement)),
    ],
}
"""For each measure its panels, left to right, each with the variable without which it is left out."""
