"""One picture per question, each beside its null."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from depthflow import plot

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from matplotlib.axes import Axes

    from depthflow.analysis import Analysis

PANEL = (3.6, 3.0)
"""Width and height of one panel, inches."""
DPI = 200

Panel = Callable[["Axes", "xr.Dataset", "xr.Dataset"], None]


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Write ``<measure>.png`` into ``folder`` for every measure of the analysis, and return the paths."""
    from matplotlib.figure import Figure

    written = []
    for name, result in analysis.results.items():
        null = analysis.null[name]
        panels = [panel for needs, panel in PANELS[name] if needs is None or needs in result]
        figure = Figure(figsize=(PANEL[0] * len(panels), PANEL[1]), layout="constrained")
        for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            panel(axes, result, null)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=DPI)
        written.append(path)
    return written


def _convergence(variable: str) -> Panel:
    return lambda ax, result, null: _done(plot.convergence(result, ax=ax, variable=variable, null=null))


def _coherence(variable: str) -> Panel:
    return lambda ax, result, null: _done(plot.coherence(result, ax=ax, variable=variable, null=null))


def _spectra(variable: str) -> Panel:
    return lambda ax, result, null: _done(plot.update_spectra(result, ax=ax, variable=variable, null=null))


def _similarity(of_null: bool) -> Panel:
    def panel(ax: Axes, result: xr.Dataset, null: xr.Dataset) -> None:
        plot.similarity(null if of_null else result, ax=ax)

    return panel


def _basins(color: str) -> Panel:
    return lambda ax, result, null: _done(plot.basins(result, ax=ax, color=color))


def _agreement(ax: Axes, result: xr.Dataset, null: xr.Dataset) -> None:
    plot.agreement(result, ax=ax, null=null)


def _done(axes: Axes) -> None:
    """Drop the Axes, which the caller holds already."""


PANELS: Mapping[str, list[tuple[str | None, Panel]]] = {
    "convergence": [(None, _convergence("angle")), (None, _convergence("speed"))],
    "coherence": [(None, _coherence("coherence")), (None, _coherence("update_coherence"))],
    "update_spectra": [(None, _spectra("stable_rank")), (None, _spectra("singular_value"))],
    "phases": [(None, _similarity(of_null=False)), (None, _similarity(of_null=True))],
    "basins": [(None, _basins("basin")), ("label", _basins("label")), ("ari", _agreement)],
}
"""For each measure its panels, left to right, each with the variable without which it is left out."""
