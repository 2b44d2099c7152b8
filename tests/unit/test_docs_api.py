"""The API reference names everything that is public, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import depthflow

if TYPE_CHECKING:
    from types import ModuleType

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
SECTION = re.compile(r"^\.\. currentmodule:: (?P<module>\S+)$|^   (?P<name>\w+)$", re.M)


def documented() -> set[str]:
    """Return the dotted names in the tables of docs/api.md."""
    module, names = "", set()
    for match in SECTION.finditer(PAGE.read_text()):
        module = match["module"] or module
        if match["name"]:
            names.add(f"{module}.{match['name']}")
    return names


def defined_in(module: ModuleType) -> set[str]:
    """Return the dotted names of the functions and classes that ``module`` itself defines for others."""
    return {
        f"{module.__name__}.{name}"
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_every_public_name_is_in_the_reference():
    folders = ("datasets", "errors", "kernels", "plot", "synthetic")
    names = {f"depthflow.{name}" for name in depthflow.__all__ if name not in folders}
    names |= {f"depthflow.{part}.{name}" for part in ("kernels", "plot") for name in getattr(depthflow, part).__all__}
    names |= defined_in(depthflow.synthetic)
    names |= {"depthflow.datasets.digits", "depthflow.datasets.digits_vit", "depthflow.datasets.digits_surrogate"}
    names |= {name for name in defined_in(depthflow.errors) if name.endswith("Error")}
    assert documented() == names
    assert len(names) > 60
