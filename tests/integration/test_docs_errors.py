"""Every error has a page in the documentation, whose examples raise it with the very text that the page shows."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

from depthflow import errors

DOCS = Path(__file__).parents[2] / "docs"
OVERVIEW = DOCS / "errors.md"
PAGES = (OVERVIEW, *sorted((DOCS / "errors").glob("*.md")))
CLASSES = sorted(
    name
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.DepthflowError) and kind is not errors.DepthflowError
)
ROW = re.compile(r"^\| \[`(\w+)`\]\((\S+)\) \| `(\w+)` \|", re.MULTILINE)
BLOCK = re.compile(r"^```\{doctest\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(page: Path) -> doctest.DocTest:
    """Return the page's {doctest} blocks as one test, each at the line where it stands."""
    text = page.read_text()
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        for offset, line in enumerate(block[1].splitlines()):
            lines[first + offset] = line
    return doctest.DocTestParser().get_doctest("\n".join(lines), {}, page.name, str(page), 0)


def rows() -> dict[str, tuple[str, str]]:
    return {name: (link, parent) for name, link, parent in ROW.findall(OVERVIEW.read_text())}


def test_the_overview_lists_every_error_and_the_built_in_that_it_is():
    listed = rows()
    assert sorted(listed) == CLASSES
    for name, (_, parent) in listed.items():
        assert parent in {kind.__name__ for kind in getattr(errors, name).__mro__}, name


@pytest.mark.parametrize("name", CLASSES)
def test_each_error_is_raised_on_the_page_that_it_has(name):
    page = DOCS / rows()[name][0]
    raised = [example.exc_msg for example in examples(page).examples if example.exc_msg]
    assert name in page.read_text().splitlines()[0]
    assert any(message.startswith(f"depthflow.errors.{name}: ") for message in raised)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_do_what_it_says(page, capsys):
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    result = runner.run(examples(page), out=print)
    assert result.attempted > 0
    assert not result.failed, capsys.readouterr().out
