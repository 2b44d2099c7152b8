"""Markdown of the replication page: tables and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tutorials.replication.verdicts import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def folded(title: str, *tables: str) -> str:
    """Return long tables that open on a click."""
    return f":::{{dropdown}} {title}\n" + "\n".join(tables) + ":::\n"


def picture(name: str, alt: str) -> str:
    """Return a picture's line."""
    return f"![{alt}](pictures/replication/{name}.png)\n"


def beside(title: str, mine: Sequence[float], others: Sequence[Sequence[float]]) -> list[list[str]]:
    """Return three rows: the trained model's curve, and the twins' least and greatest."""
    bounds = (
        ("trained", np.asarray(mine)),
        ("twins, least", np.min(others, axis=0)),
        ("twins, greatest", np.max(others, axis=0)),
    )
    return [[f"{title}, {who}", *(number(value) for value in curve)] for who, curve in bounds]
