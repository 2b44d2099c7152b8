"""The code of README.md and of the how-to pages runs, and prints what the pages say that it prints."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pytest
import torch
import typer

from depthflow.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
FENCE = re.compile(
    r"^```(?:\{code-block\} )?(?P<language>\w+)\n(?::caption: (?P<file>\S+)\n)?(?P<text>.*?)^```$", re.M | re.S
)
CHECKER = doctest.OutputChecker()


class Block(NamedTuple):
    language: str
    text: str
    file: str | None
    printed: str | None


def blocks(page: Path) -> list[Block]:
    """Return a page's blocks of Python and shell, each with the ``text`` block that follows it at once."""
    source = page.read_text()
    fences = list(FENCE.finditer(source))
    made = []
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        printed = None
        if following and following["language"] == "text" and not source[fence.end() : following.start()].strip():
            printed = following["text"]
        if fence["language"] in ("python", "bash"):
            made.append(Block(fence["language"], fence["text"], fence["file"], printed))
    return made


def run_python(text: str, namespace: dict[str, object]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.parse(text), "<page>", "exec"), namespace)
    return printed.getvalue()


def run_shell(text: str, folder: Path) -> str:
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        ["bash", "-euc", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        yield tmp_path
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_howto(page, folder):
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.file is not None:
            (folder / block.file).write_text(block.text)
            continue
        printed = run_shell(block.text, folder) if block.language == "bash" else run_python(block.text, namespace)
        as_the_page_says = block.printed is None or CHECKER.check_output(
            block.printed, printed, doctest.NORMALIZE_WHITESPACE
        )
        assert as_the_page_says, f"{block.text}\nprinted\n{printed}"


def test_every_howto_has_code_and_an_output():
    for page in PAGES:
        found = blocks(page)
        assert found, page
        assert page.stem == "checkpoints" or any(block.printed for block in found), page


@pytest.mark.slow
def test_readme(folder):
    pytest.importorskip("timm")
    namespace: dict[str, object] = {"__name__": "page"}
    python = [block for block in blocks(ROOT / "README.md") if block.language == "python"]
    printed = "".join(run_python(block.text, namespace) for block in python)
    assert "blocks      12" in printed
    assert dict(namespace["traj"].sizes) == {"sample": 4, "depth": 13, "token": 197, "feature": 192}


def shell_lines() -> list[tuple[str, str]]:
    """Return every call of the command line in README.md and docs: the command, and what follows it."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *PAGES]
    text = "\n".join(page.read_text() for page in pages)
    return re.findall(r"^ {0,4}(?:torchrun .* -m )?depthflow ([a-z]+) ((?:[^#\n]* )?-[^#\n]*)", text, re.M)


def test_shell_lines_name_commands_and_options_that_there_are():
    commands = typer.main.get_command(app).commands
    lines = shell_lines()
    for name, rest in lines:
        assert name in commands, name
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word.split("=")[0] for word in rest.split() if word.startswith("-")} <= options, (name, rest)
    assert len(lines) > 10
