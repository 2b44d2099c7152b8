"""The main job on the embedded default: the bundled model on digits it never saw, beside its untrained twin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthflow import analysis, fitting
from depthflow.cases import Subject
from depthflow.datasets import digits, digits_surrogate, digits_vit
from depthflow.output import claim, write
from depthflow.surrogate.score import score_surrogate

if TYPE_CHECKING:
    from torch import nn

    from depthflow.datasets import Digits


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
    subject, twin = (Subject(model, data.images, data.labels) for model in (digits_vit(), digits_vit(trained=False)))
    found = analysis.analyze_beside_twin(subject, twin, progress=progress)
    convergence = found.results["convergence"]
    opening = (
        f"A {convergence.sizes['block']}-block vision transformer on {convergence.sizes['sample']} handwritten digits "
        f"that it never saw in training; it classifies {accuracy(subject.model, data):.1%} of them rightly."
    )
    train, surrogate = digits("train"), digits_surrogate()
    scores = score_surrogate(
        surrogate,
        subject.model,
        data.images,
        labels=data.labels,
        train_inputs=train.images,
        train_labels=train.labels,
        progress=progress,
    )
    redone = fitting.write(surrogate, subject.model, data.images, scores, folder)
    return f"{opening}\n\n{write(found, folder, opening, redone)}"


def accuracy(model: nn.Module, data: Digits) -> float:
    """Return the share of images that the model classifies rightly."""
    import torch

    with torch.no_grad():
        predicted = model(torch.from_numpy(data.images)).argmax(1).numpy()
    return float((predicted == data.labels).mean())
