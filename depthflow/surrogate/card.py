"""The model card of a surrogate: what it stands for, how it was made, how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD = """---
library_name: depthflow
tags:
- block-recurrent
- surrogate
- vision-transformer
---
"""


def card(config: Mapping[str, Any]) -> str:
    """Return the card, Markdown, of a surrogate with this configuration."""
    plan, teacher, settings = config["plan"], config["teacher"], config["settings"]
    depths, blocks = len(plan["phases"]), len(plan["medoids"])
    lines = [
        HEAD,
        f"# Recurrent surrogate of {teacher.get('model', 'a model')} with {blocks} of {depths} blocks",
        "",
        f"{blocks} blocks, each applied at all depths of its phase, stand for the {depths} blocks of "
        f"{teacher.get('model', 'a model')} ({teacher.get('family', 'unknown family')}). Embedding, final norm and "
        "head are the teacher's. The architecture and its training follow arXiv:2512.19941.",
        "",
        "```python",
        "import depthflow",
        "",
        'surrogate = depthflow.RecurrentSurrogate.from_pretrained("this folder")',
        "traj = depthflow.record(surrogate, images)",
        "```",
        "",
        "## Phases",
        "",
        "| surrogate's block | stands for the teacher's blocks | most typical block |",
        "|---|---|---|",
        *(
            f"| {phase} | {_spelled([n for n, of in enumerate(plan['phases'], start=1) if of == phase])} | {medoid} |"
            for phase, medoid in enumerate(plan["medoids"], start=1)
        ),
        "",
        "## Scores",
        "",
        *_scores(config["scores"]),
        "",
        "## Training",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in settings.items()),
        f"| samples | {teacher.get('samples', 'unknown')} |",
        f"| seed | {teacher.get('seed', 'unknown')} |",
        f"| made with | {teacher.get('versions', 'unknown')} |",
        "",
    ]
    return "\n".join(lines)


def _scores(scores: Mapping[str, Any]) -> list[str]:
    if not scores:
        return ["Not scored yet: `depthflow.score_surrogate(surrogate, teacher, images)`, then save again."]
    return ["| score | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in scores.items())]


def _spelled(numbers: list[int]) -> str:
    """Return increasing numbers with runs joined, such as ``1–4, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
