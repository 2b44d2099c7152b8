"""Write what an analysis found into a folder: its results, a picture per question, and the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depthflow import analysis, pictures
from depthflow.errors import StoreError
from depthflow.summary import summarize

if TYPE_CHECKING:
    from pathlib import Path

RESULTS = "results.zarr"
SUMMARY = "summary.txt"


def claim(folder: Path) -> None:
    """Make ``folder``, or raise if it holds results already or cannot be made."""
    if (folder / RESULTS).exists():
        raise StoreError(
            f"{folder} holds results already and is not overwritten. Remove it, or choose another with -o."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made a folder: {error.strerror}. Choose another with -o.") from error


def write(found: analysis.Analysis, folder: Path, opening: str = "", closing: str = "") -> str:
    """Write results, unless they are in a store, pictures and summary; return the summary, and where all of it lies."""
    if found.store is None:
        analysis.save(found, folder / RESULTS)
    pictures.draw(found, folder)
    text = f"{summarize(found)}\n\n{closing}".rstrip()
    (folder / SUMMARY).write_text(f"{opening}\n\n{text}\n".lstrip())
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    return f"{text}\n\nWritten to {folder}/: {names}"
