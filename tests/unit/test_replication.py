"""The replication page says what its measured numbers say, and its verdicts follow from them."""

from __future__ import annotations

import copy
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tutorials.replication.common import Study, one, rounded
from tutorials.replication.page import EXPERIMENTS, PAGE, claims, load, page
from tutorials.replication.pictures import PICTURES
from tutorials.replication.sections_surrogates import runs
from tutorials.replication.verdicts import (
    AGREES,
    DISAGREES,
    IN_PART,
    NOT_MEASURED,
    Claim,
    Condition,
    above,
    difference,
    ranks_agree,
)

if TYPE_CHECKING:
    from pathlib import Path

VERDICTS = (AGREES, IN_PART, DISAGREES, NOT_MEASURED)


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    return load()


def verdict(results: dict[str, dict[str, Any]], title: str) -> str:
    (found,) = (claim for claim in claims(results) if claim.claim.startswith(title))
    return found.verdict


def test_page_is_what_the_numbers_make(results: dict[str, dict[str, Any]]) -> None:
    assert PAGE.read_text() == page(results)


def test_every_claim_has_its_cells(results: dict[str, dict[str, Any]]) -> None:
    text = PAGE.read_text()
    listed = text[text.index("```{list-table}") :].split("```")[1]
    head, *rows = (part.split("\n  - ") for part in listed.split("\n* - ")[1:])
    assert len(head) == 4
    assert len(rows) == len(claims(results)) > 20
    for claim, published, measured, found in rows:
        assert claim
        assert published
        assert found.strip("*\n") in VERDICTS
        assert (found.strip("*\n") == NOT_MEASURED) == (measured == "–")
        assert (found.strip("*\n") == NOT_MEASURED) != ("Why it may differ" in measured)


def test_pictures_are_there() -> None:
    named = {line.split("(")[-1].rstrip(")") for line in PAGE.read_text().split("\n") if line.startswith("![")}
    assert named == {f"pictures/replication/{path.name}" for path in PICTURES.iterdir()}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_numbers_say_where_they_come_from(results: dict[str, dict[str, Any]], name: str) -> None:
    found = results[name]
    assert found["experiment"] == name
    assert found["data"] == "digits"
    assert not found["quick"]
    assert found["settings"]["seeds"]
    assert found["spread"]
    assert {"python", "torch", "numpy", "depthflow-dynamics"} <= set(found["versions"])


@pytest.mark.parametrize(
    ("held", "expected"), [((True, True), AGREES), ((True, False), IN_PART), ((False,), DISAGREES), ((), NOT_MEASURED)]
)
def test_verdict_counts_conditions(held: tuple[bool, ...], expected: str) -> None:
    assert Claim("", "", "", tuple(Condition("", one) for one in held), "").verdict == expected


def test_verdicts_follow_the_numbers(results: dict[str, dict[str, Any]]) -> None:
    basins = "Endpoints fall"
    kept = "Two blocks keep"
    changed = copy.deepcopy(results)
    models = changed["directions"]["values"]
    models["trained"], models["untrained 0"] = models["untrained 0"], models["trained"]
    assert verdict(results, basins) == AGREES
    assert verdict(changed, basins) == DISAGREES
    for fit in changed["recurrence"]["values"]["2"]:
        fit["recovery"] = 0.959
        fit["surrogate_accuracy"] = 0.0
    assert verdict(results, kept) == AGREES
    assert verdict(changed, kept) == DISAGREES


def test_rules() -> None:
    assert above([0.3, 0.4], [0.1, 0.2])
    assert not above([0.3, 0.4], [0.1, 0.3])
    middle, low, high = difference([1.0, 1.1, 1.2, 1.3], [0.0, 0.1, 0.2, 0.3])
    assert middle == pytest.approx(1.0)
    assert 0.8 < low < 1.0 < high < 1.2
    rank, p_value = ranks_agree(range(8), np.exp(range(8)))
    assert rank == pytest.approx(1.0)
    assert p_value < 0.01
    assert ranks_agree(range(8), [3, 1, 4, 1.5, 9, 2.6, 5, 3.5])[1] > 0.05


def test_runs_of_blocks() -> None:
    assert runs([1, 1, 1, 2, 3, 3]) == "[1–3][4][5–6]"


def test_rounded_is_json() -> None:
    found = rounded({1: (0.123456789, np.float64("nan"), np.int64(3), "as it is")})
    assert found == {"1": [0.12346, None, 3, "as it is"]}


def test_pieces_are_kept(tmp_path: Path) -> None:
    calls = []

    def work(study: Study, value: int) -> dict[str, Any]:
        calls.append(value)
        return {"value": value}

    kept = tmp_path / "experiment" / "piece.json"
    assert one(work, Study(), kept, {"value": 3}) == one(work, Study(), kept, {"value": 3}) == {"value": 3}
    assert calls == [3]


def test_packed_images_are_read(tmp_path: Path) -> None:
    from PIL import Image

    packed, ends = b"", [0]
    for value in (0, 255):
        buffer = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(buffer, "JPEG")
        packed += buffer.getvalue()
        ends.append(len(packed))
    np.savez(
        tmp_path / "cifar10_test.npz",
        jpeg=np.frombuffer(packed, np.uint8),
        offset=np.array(ends),
        label=np.array([7, 2], np.uint8),
    )
    found = Study(data="cifar10", root=tmp_path).samples("test")
    assert found.images.shape == (2, 3, 32, 32)
    assert found.images.dtype == np.float32
    np.testing.assert_allclose(found.images.mean((1, 2, 3)), [0, 1], atol=0.01)
    assert found.labels.tolist() == [7, 2]
