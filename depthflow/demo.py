"""The main job on the embedded default: the bundled model on digits it never saw, beside its untrained twin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthflow import analysis, fitting, pictures
from depthflow.datasets import digits, digits_surrogate, digits_vit
from depthflow.errors import StoreError
from depthflow.summary import summarize
from depthflow.surrogate.score import score_surrogate

if TYPE_CHECKING:
    from torch import nn

    from depthflow.datasets import Digits

RESULTS = "results.zarr"
SUMMARY = "summary.txt"


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
    subject, twin = (
        analysis.Subject(model, data.images, data.labels) for model in (digits_vit(), digits_vit(trained=False))
    )
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


def claim(folder: Path) -> None:
    """Make ``folder``, or raise if it holds results already."""
    if (folder / RESULTS).exists():
        raise StoreError(
            f"{folder} holds results already and is not overwritten. Remove it, or choose another with -o."
        )
    folder.mkdir(parents=True, exist_ok=True)


def write(found: analysis.Analysis, folder: Path, opening: str = "", closing: str = "") -> str:
    """Write results, pictures and summary into ``folder``; return the summary, and where all of it lies."""
    analysis.save(found, folder / RESULTS)
    pictures.draw(found, folder)
    text = f"{summarize(found)}\n\n{closing}".rstrip()
    (folder / SUMMARY).write_text(f"{opening}\n\n{text}\n".lstrip())
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    return f"{text}\n\nWritten to {folder}/: {names}"


def accuracy(model: nn.Module, data: Digits) -> float:
    """Return the share of images that the model classifies rightly."""
    import torch

    with torch.no_grad():
        predicted = model(torch.from_numpy(data.images)).argmax(1).numpy()
    return float((predicted == data.labels).mean())
