"""The tutorials are scripts: all compile and are laid out as the gallery needs, and the quickest run to their end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "tutorials"
SCRIPTS = sorted(TUTORIALS.glob("plot_*.py"))
QUICKEST = ("plot_2_convergence.py", "plot_4_low_rank.py")
PRINTS = {
    "plot_2_convergence.py": r"trained: (\S+) \[.*\]\nthree untrained twins: (\S+) to",
    "plot_4_low_rank.py": r"untrained twin: (\S+) for one image, .*",
}


def test_nine_in_order():
    assert [path.name.split("_")[1] for path in SCRIPTS] == list("123456789")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_compiles_and_is_laid_out(path):
    text = path.read_text(encoding="utf-8")
    compile(text, path.name, "exec")
    title, line = text.removeprefix('"""\n').splitlines()[:2]
    assert title.endswith("?"), "a tutorial's title is its question"
    assert line == "=" * len(title)
    assert "twin" in text, "a tutorial stands beside its null"
    last = text[text.index("# What to take away\n") :]
    assert "# More: :doc:" in last
    pages = re.findall(r":doc:`/([\w/-]+)`", text)
    assert [page for page in pages if not (TUTORIALS.parent / "docs" / f"{page}.md").exists()] == []


@pytest.mark.parametrize("name", QUICKEST)
def test_runs(name, tmp_path):
    run = subprocess.run(
        [sys.executable, TUTORIALS / name],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert re.search(PRINTS[name], run.stdout), run.stdout
    assert list(tmp_path.iterdir()) == [], "a tutorial leaves nothing behind"
