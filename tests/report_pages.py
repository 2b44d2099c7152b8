"""Reports made for tests, and what stands in them."""

from __future__ import annotations

import base64
import csv
import io
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np

import depthflow

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "a & b </script> $x_", "ß" * 300]


class Reader(HTMLParser):
    """Collects what the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def view(self) -> dict:
        return json.loads(self.scripts[0])


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def table(page: Reader, name: str) -> list[dict[str, str]]:
    href = next(link["href"] for link in page.all("a") if link.get("download") == name)
    return list(csv.DictReader(io.StringIO(base64.b64decode(href.partition(",")[2]).decode(), newline="")))


def directed(samples: int = 12, **options):
    rng = np.random.default_rng(0)
    label = np.arange(samples) % 3
    grown = np.linspace(0, 1, 6)[:, None, None] * 3 * np.eye(3, 11)[label][:, None, None]
    states = grown + 0.3 * rng.normal(size=(samples, 6, 7, 11))
    kinds = {"token_type": ["cls", *["patch"] * 6], "label": label, **options}
    return depthflow.trajectory(states, **kinds)


def reported(folder: Path, *given, **options) -> Reader:
    """Return the page of a report made in an empty folder."""
    return read(depthflow.report(*given, path=folder / "r.html", progress=False, **options))
