"""Write `docs/replication.md` and its pictures from the measured numbers in `docs/_data/replication`.

python -m tutorials.replication.page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutorials.replication import pictures
from tutorials.replication.claims_interventions import interventions
from tutorials.replication.claims_states import states
from tutorials.replication.claims_surrogates import surrogates
from tutorials.replication.claims_teachers import teachers
from tutorials.replication.common import RESULTS
from tutorials.replication.sections_dynamics import curves, linear_maps, pushes, similarity, swaps
from tutorials.replication.sections_surrogates import ablation, partitions, recurrence
from tutorials.replication.sections_teachers import overfitting, stochastic_depth
from tutorials.replication.verdicts import AGREES, DISAGREES, IN_PART, NOT_MEASURED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tutorials.replication.verdicts import Claim

SECTIONS = (
    stochastic_depth, overfitting, similarity, recurrence, partitions, ablation, swaps, curves, pushes, linear_maps,
)  # fmt: skip
PAGE = Path("docs/replication.md")
EXPERIMENTS = (
    "stochastic_depth", "overfitting", "recurrence", "partitions", "ablation", "head", "swaps", "directions", "pushes",
)  # fmt: skip
HEAD = """\
# Replication

What the published claims come to on the bundled digits: which hold, which hold in part, and which do not. The paper
is *Block-Recurrent Dynamics in Vision Transformers* (Jacobs et al., arXiv:2512.19941), whose models are far larger:
DINOv2 ViT-B/14, and small models on CIFAR-100. Every finding stands beside its null, most often *untrained twins*:
the same architecture at random initialisation.

Each claim is spelt out as conditions on measured numbers. A claim **agrees** if all of its conditions hold, **agrees
in part** if some do, and **does not agree** if none does, also where the data leave the answer open; the rule
decides. Brackets hold the 95 % interval over resampled test images where they belong to one model, and
the least and greatest over seeds where they belong to several. Seeds are few, and each section says how many.

**Limits.** One data set of 1,437 training and 360 test images of 8×8 pixels; twelve blocks of width 64 and 17 tokens;
one trained model for most experiments, whose training settings were chosen among a handful with these images'
accuracy in sight. A claim that does not agree here may well hold of a large model, and the other way round. The same
scripts run on CIFAR-10: see [how to run them](#how-to-run-them).
"""
FOOT = """\
## How to run them

Each experiment is one command from the root of the repository, and writes one JSON file with its settings, seeds,
versions and values; this page is generated from them, and a test keeps the two equal.

{commands}

Each also takes `--processes N` and `--quick`, a short run that tests the machinery. Pieces are kept in
`replication-runs/` as they are done, so that a run that was stopped goes on where it was.

`--data cifar10 --root FOLDER --device cuda` runs the same on CIFAR-10, with a teacher of width 192 and 64 patches of
4×4 pixels, which is trained first. FOLDER holds `cifar10_train.npz` and `cifar10_test.npz`, each with `jpeg` (uint8:
all files end to end), `offset` (int64, n + 1) and `label` (uint8). Results go to `replication-runs/cifar10`. No
result on CIFAR-10 is shown here, as none was measured.

Versions: {versions}.
"""


def load(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return every experiment's file."""
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in EXPERIMENTS}


def claims(results: Mapping[str, dict[str, Any]]) -> list[Claim]:
    """Return every claim; those not measured at the end."""
    found = [*surrogates(results), *teachers(results), *states(results), *interventions(results)]
    return sorted(found, key=lambda claim: claim.verdict == NOT_MEASURED)


def row(claim: Claim) -> str:
    """Return a claim's lines of the list table."""
    measured = [f"{'✓' if one.holds else '✗'} {one.text}" for one in claim.conditions] or ["–"]
    cells = [
        f"{claim.claim}<br>*{claim.where}*",
        claim.published,
        "<br>".join(measured),
        f"**{claim.verdict}**",
    ]
    if claim.why:
        cells[2] += f"\n\n    *Why it may differ:* {claim.why}"
    return "* - " + "\n  - ".join(cells)


def page(results: Mapping[str, dict[str, Any]]) -> str:
    """Return the page's text."""
    found = claims(results)
    tally = [sum(one.verdict == verdict for one in found) for verdict in (AGREES, IN_PART, DISAGREES, NOT_MEASURED)]
    versions = results["directions"]["versions"]
    runs = [f"{name} --seeds {len(results[name]['settings']['seeds'])}" for name in EXPERIMENTS]
    commands = "\n".join(f"    python -m tutorials.replication.{run}" for run in (*runs, "page"))
    return "\n".join(
        [
            HEAD,
            "## Claim by claim\n",
            "Of {} claims {} agree with what was measured, {} in part, and {} do not; not measured: {}. ✓ marks a "
            "condition that holds, ✗ one that does not.\n".format(len(found), *tally),
            "```{list-table}\n:header-rows: 1\n:widths: 24 17 46 13\n",
            "* - claim, and where it stands\n  - published\n  - measured here\n  - verdict",
            *map(row, found),
            "```\n",
            *(line for section in SECTIONS for line in section(results)),
            FOOT.format(commands=commands, versions=", ".join(f"{name} {number}" for name, number in versions.items())),
        ]
    )


def main() -> None:
    """Write the page and its pictures."""
    results = load()
    pictures.draw(results)
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
