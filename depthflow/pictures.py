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
LARGER = {"basins": (3.6, 4.6), "dmd": (4.8, 4.2), "perturb": (4.6, 3.6), "swap_blocks": (4.6, 4.0)}
"""Width and height of one panel, inches; those with long legends, titles or captions need more."""
DPI = 200


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Write ``<measure>.png`` into ``folder`` for every measure of the analysis that has one, and return the paths."""
    from matplotlib.figure import Figure

    written = []
    for name, result in analysis.results.items():
        if name not in PANELS:
            continue
        panels = [panel for needs, panel in PANELS[name] if needs is None or needs in result]
        width, height = LARGER.get(name, PANEL)
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


def _agreement(ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    """Draw the agreement with the labels, which the null's samples may lack."""
    plot.agreement(result, ax=ax, null=null if "ari" in null else None, null_label=null_name)


def _similarity(ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    plot.similarity(result, ax=ax)


def _similarity_of_null(ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    plot.similarity(null, ax=ax)
    ax.set_title(f"{null_name}\n{ax.get_title()}", fontsize="medium")


def _dmd(ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str, **options: str) -> None:
    plot.dmd(result, ax=ax, null=null, null_label=null_name, **options)


def _swap_blocks(variable: str, ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    plot.swap_blocks(result, ax=ax, variable=variable)


def _swap_blocks_of_null(ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    plot.swap_blocks(null, ax=ax)
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
        ("ari", _agreement),
    ],
    "dmd": [(None, _dmd), (None, partial(_dmd, variable="eigenvalue"))],
    "perturb": [
        (None, partial(_curve, plot.perturb, variable="gain")),
        (None, partial(_curve, plot.perturb, variable="angle")),
    ],
    "jacobian": [
        (None, partial(_curve, plot.jacobian, variable="singular_value")),
        (None, partial(_curve, plot.jacobian, variable="rms_gain")),
    ],
    "swap_blocks": [
        (None, partial(_swap_blocks, "effect")),
        (None, _swap_blocks_of_null),
        ("accuracy", partial(_swap_blocks, "accuracy")),
    ],
}
"""For each measure its panels, left to right, each with the variable without which it is left out."""
