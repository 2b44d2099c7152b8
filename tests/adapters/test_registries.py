"""The table of supported models is what a run gives: a sample of every library's families, and the page itself."""

from __future__ import annotations

import json
import random
from importlib import metadata
from typing import Any

import pytest

import depthflow
from tests.registries.contract import NORM, NOT_BUILT, OWN_STATES, PLACES, RECORDED, REFUSED, judge
from tests.registries.run import LIBRARIES, RESULTS, candidates
from tests.registries.table import PAGE, page

KEPT = ("outcome", "reason", "blocks", "tokens", "width", "checked_by")
REFUSED_FAMILIES = 12
"""How many of the many families that are refused are tried, of each library."""

LARGE = ("_l_", "_h_", "large", "huge", "giant")
"""Parts of the names of models that take seconds to make."""


def results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text())


def sample(library: str) -> list[str]:
    """Return one model of every family that is recorded, and of some that are refused: the same ones every time."""
    families: dict[tuple[str, str], list[str]] = {}
    for name, model in results().get(library, {"models": {}})["models"].items():
        if not any(part in name for part in LARGE):
            families.setdefault((model["outcome"], model["family"]), []).append(name)
    draw = random.Random(0)
    recorded = [draw.choice(names) for (outcome, _), names in sorted(families.items()) if outcome == RECORDED]
    refused = [draw.choice(names) for (outcome, _), names in sorted(families.items()) if outcome == REFUSED]
    return [*recorded, *draw.sample(refused, min(REFUSED_FAMILIES, len(refused)))]


SAMPLE = [(library, name) for library in ("timm", "torchvision") for name in sample(library)]


@pytest.mark.parametrize(("library", "name"), SAMPLE)
def test_a_model_has_the_outcome_that_the_table_says(library: str, name: str) -> None:
    found = results()[library]
    if metadata.version(library) != found["version"]:
        pytest.skip(f"the table is of {library} {found['version']}")
    candidate = next(one for one in candidates(library) if one.name == name)
    outcome, model = judge(candidate), found["models"][name]
    assert {key: getattr(outcome, key) for key in KEPT} == {key: model[key] for key in KEPT} | {
        "checked_by": tuple(model["checked_by"])
    }


@pytest.mark.parametrize(
    ("name", "first", "norm"),
    [
        ("qwen3_vit_88m", "encoder.blocks.0", "norm"),
        ("qwen3_vit_88m_enc", "blocks.0", "merger.norm"),
        ("deepseek_vit_412m", "encoder.blocks.0", "encoder.norm"),
        ("gemma4_vit_167m", "encoder.blocks.0", "norm"),
    ],
)
def test_blocks_and_norm_are_found_in_an_encoder(name: str, first: str, norm: str) -> None:
    candidate = next(one for one in candidates("timm") if one.name == name)
    info = depthflow.inspect(candidate.build())
    assert (info.blocks[0], info.final_norm) == (first, norm)
    outcome = judge(candidate)
    assert outcome.outcome == RECORDED, outcome.reason
    assert {OWN_STATES, NORM, PLACES} <= set(outcome.checked_by)


def test_no_model_fails() -> None:
    failed = [
        (library, name, model["reason"])
        for library, found in results().items()
        for name, model in found["models"].items()
        if model["outcome"] not in (RECORDED, REFUSED, NOT_BUILT)
    ]
    assert not failed


def test_every_library_is_in_the_table_whole() -> None:
    for library, found in results().items():
        assert library in LIBRARIES
        if metadata.version(library) == found["version"]:
            assert sorted(found["models"]) == sorted(candidate.name for candidate in candidates(library))


def test_the_page_is_made_from_the_results() -> None:
    assert PAGE.read_text() == page(results())
