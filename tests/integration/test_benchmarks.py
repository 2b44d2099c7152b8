"""Every benchmark runs on tiny sizes, and both sides of each give the same answer; their times mean nothing here."""

from __future__ import annotations

import importlib
import json
import os

import pytest

from benchmarks import __main__ as runner
from benchmarks._harness import Row


@pytest.mark.parametrize("area", runner.AREAS)
def test_both_sides_agree(area):
    rows = list(importlib.import_module(f"benchmarks.{area}").rows(smoke=True))
    assert rows or area == "demo" or (area == "surrogate" and "DEPTHFLOW_RAPTOR" not in os.environ)
    for row in rows:
        assert row.ratio == row.ratio, row
        assert runner.shown(row).count("|") == 8


def test_results_of_other_areas_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "PAGE", tmp_path / "page.md")
    row = Row("a kernel", "2×2", "a peer", 3.0, 2.0, True, "same")
    runner.keep({"phases": [row]})
    runner.keep({"basins": [row]})
    (written,) = (tmp_path / "results").glob("*.json")
    assert set(json.loads(written.read_text())["areas"]) == {"phases", "basins"}
    assert (tmp_path / "page.md").read_text().count("| a kernel | 2×2 | a peer | 3 | ≥ 2 | yes | same |") == 2
