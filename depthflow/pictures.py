"""One picture per question, each beside its null."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthflow import plot
from depthflow.plot._style import MAX_GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import xarray as xr
    from matplotlib.axes import Axes

    from depthflow.analysis import Analysis

PANEL = (3.6, 3.0)
LARGER = {"basins": (3.6, 4.6), "dmd": (4.8, 4.2), "perturb": (4.6, 3.6), "swap_blocks": (4.6, 4.0)}
"""Width and height of one panel, inches; those with long legends, titles or captions need more."""
DPI = 200
LONGEST = 24
"""Characters of a class in a legend."""


class Panel(NamedTuple):
    """What a panel shows, in words, how it is drawn, and of which results it can be."""

    shows: str
    draw: Callable[[Axes, xr.Dataset, xr.Dataset, str], None]
    fits: Callable[[xr.Dataset], bool] = lambda result: True


def panels(analysis: Analysis, name: str) -> list[Panel]:
    """Return the panels of a measure's picture, left to right; none where it has no picture."""
    return [panel for panel in PANELS.get(name, ()) if panel.fits(analysis.results[name])]


def paint(panel: Panel, axes: Axes, analysis: Analysis, name: str) -> None:
    """Draw a panel of a measure, its classes and its null by names that fit a legend."""
    result, null = (_with_short_labels(group[name]) for group in (analysis.results, analysis.null))
    panel.draw(axes, result, null, _short(analysis.null_name))


def size(name: str) -> tuple[float, float]:
    """Return the width and height of one panel of a measure, inches."""
    return LARGER.get(name, PANEL)


def draw(analysis: Analysis, folder: Path) -> list[Path]:
    """Write ``<measure>.png`` into ``folder`` for every measure of the analysis that has one, and return the paths."""
    from matplotlib.figure import Figure

    written = []
    for name in analysis.results:
        chosen = panels(analysis, name)
        if not chosen:
            continue
        width, height = size(name)
        figure = Figure(figsize=(width * len(chosen), height), layout="constrained")
        for panel, axes in zip(chosen, figure.subplots(1, len(chosen), squeeze=False)[0], strict=True):
            paint(panel, axes, analysis, name)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
        written.append(path)
    return written


def _with_short_labels(result: xr.Dataset) -> xr.Dataset:
    if "label" not in result.coords or result["label"].dtype.kind not in "TUO":
        return result
    names, number = np.unique(result["label"].values, return_inverse=True)
    short = [_short(str(name)) for name in names.tolist()]
    unlike = [one if short.count(one) == 1 else f"{one} ({place})" for place, one in enumerate(short)]
    return result.assign_coords(label=("sample", np.array(unlike)[number]))


def _short(name: str) -> str:
    """Return a name in one short line, of which matplotlib takes nothing for mathematics."""
    line = " ".join(name.split())
    return (line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…").replace("$", r"\$")


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


def _few_classes(result: xr.Dataset) -> bool:
    return "label" in result and len(np.unique(result["label"].values)) <= MAX_GROUPS


def _basins(color: str, ax: Axes, result: xr.Dataset, null: xr.Dataset, null_name: str) -> None:
    plot.basins(result, ax=ax, color=color)


PANELS: Mapping[str, list[Panel]] = {
    "convergence": [
        Panel("Angle to the final direction, by depth", partial(_curve, plot.convergence, variable="angle")),
        Panel("Angular speed, by block", partial(_curve, plot.convergence, variable="speed")),
    ],
    "coherence": [
        Panel("Mean resultant length of directions, by depth", partial(_curve, plot.coherence, variable="coherence")),
        Panel(
            "Mean resultant length of updates, by block", partial(_curve, plot.coherence, variable="update_coherence")
        ),
    ],
    "update_spectra": [
        Panel("Stable rank of the updates, by block", partial(_curve, plot.update_spectra, variable="stable_rank")),
        Panel(
            "Singular values of the updates, by mode", partial(_curve, plot.update_spectra, variable="singular_value")
        ),
    ],
    "phases": [
        Panel("Similarity of every two blocks, with the phases", _similarity),
        Panel("Similarity of every two blocks and the phases of the null", _similarity_of_null),
    ],
    "basins": [
        Panel("Final directions on the sphere, by basin", partial(_basins, "basin")),
        Panel("Final directions on the sphere, by class", partial(_basins, "label"), _few_classes),
        Panel("Agreement of the basins with the classes, by depth", _agreement, lambda result: "ari" in result),
    ],
    "dmd": [
        Panel("Error of one linear map, by blocks ahead", _dmd),
        Panel("Eigenvalues of the map in the complex plane", partial(_dmd, variable="eigenvalue")),
    ],
    "perturb": [
        Panel(
            "Angle between the paths over that of the push, by depth", partial(_curve, plot.perturb, variable="gain")
        ),
        Panel(
            "Angle between the pushed and the unpushed path, by depth", partial(_curve, plot.perturb, variable="angle")
        ),
    ],
    "basin_stability": [
        Panel("Share of pushed paths that end in their basin, by basin", partial(_curve, plot.basin_stability)),
    ],
    "jacobian": [
        Panel("Largest growth of a small change, by block", partial(_curve, plot.jacobian, variable="singular_value")),
        Panel("Root-mean-square growth over directions, by block", partial(_curve, plot.jacobian, variable="rms_gain")),
    ],
    "swap_blocks": [
        Panel("Turn of the final state by every swap", partial(_swap_blocks, "effect")),
        Panel("Turn of the null's final state by every swap", _swap_blocks_of_null),
        Panel("Accuracy after every swap", partial(_swap_blocks, "accuracy"), lambda result: "accuracy" in result),
    ],
}
"""For each measure its panels, left to right."""
