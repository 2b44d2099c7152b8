"""The main job on the embedded default: the bundled model on digits it never saw, beside its untrained twin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthflow import fitting
from depthflow.analysis import TWIN
from depthflow.datasets import digits, digits_surrogate, digits_vit
from depthflow.output import claim, write
from depthflow.reporting.measured import Measured
from depthflow.reporting.page import render
from depthflow.reporting.sources import of_model
from depthflow.surrogate.score import score_surrogate

if TYPE_CHECKING:
    from torch import nn

    from depthflow.datasets import Digits


REPORT, TITLE = "report.html", "The bundled model on digits"


def demo(folder: str | Path = "depthflow-demo", *, progress: bool = True) -> str:
    """Record, measure, draw and write everything into a new folder; return the summary.

    Raises
    ------
    StoreError
        If ``folder`` holds results already: they are never overwritten.
    """
    folder = Path(folder)
    claim(folder)
    data = digits("test")
    model, twin = digits_vit(), digits_vit(trained=False)
    sources = of_model(model, data.images, twin, null_name=TWIN, labels=data.labels, progress=progress)
    found = sources.analyze(progress=progress)
    convergence = found.results["convergence"]
    opening = (
        f"A {convergence.sizes['block']}-block vision transformer on {convergence.sizes['sample']} handwritten digits "
        f"that it never saw in training; it classifies {accuracy(model, data):.1%} of them rightly."
    )
    train, surrogate = digits("train"), digits_surrogate()
    scores = score_surrogate(
        surrogate,
        model,
        data.images,
        labels=data.labels,
        train_inputs=train.images,
        train_labels=train.labels,
        progress=progress,
    )
    redone = fitting.write(surrogate, model, data.images, scores, folder)
    page = render(sources, Measured(found, {}), images=data.images, title=TITLE, seed=0)
    (folder / REPORT).write_text(page, encoding="utf-8")
    written = write(found, folder, opening, redone)
    return f"{opening}\n\n{written}\nOpen {folder / REPORT} in a browser: all of it, and the paths on the sphere."


def accuracy(model: nn.Module, data: Digits) -> float:
    """Return the share of images that the model classifies rightly."""
    import torch

    with torch.no_grad():
        predicted = model(torch.from_numpy(data.images)).argmax(1).numpy()
    return float((predicted == data.labels).mean())
