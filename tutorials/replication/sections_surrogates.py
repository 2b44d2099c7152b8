"""The page's sections on surrogates and teachers: what was run, its tables and pictures, and what they say."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tutorials.replication.claims_surrogates import of
from tutorials.replication.tables import picture, table
from tutorials.replication.verdicts import spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Results = Mapping[str, dict[str, Any]]

SCORES = {"accuracy": "surrogate_accuracy", "recovery": "recovery", "least R²": "least R²", "ε": "epsilon"}


def steps(settings: Mapping[str, Any]) -> str:
    """Return the steps of a fit, in words."""
    first, second = settings["steps"]
    return f"{first} + {second:,} steps of {settings['batch_size']} samples"


def scores(fits: list[dict[str, Any]]) -> list[str]:
    """Return the cells of one way of fitting."""
    return [spread(of(fits, name)) for name in SCORES.values()]


def seeds(results: Results, name: str) -> str:
    """Return how many seeds an experiment had."""
    count = len(results[name]["settings"]["seeds"])
    return f"{count} seed{'s' if count > 1 else ''}"


def recurrence(results: Results) -> list[str]:
    """Return the section on the number of blocks."""
    found = results["recurrence"]
    fits = found["values"]
    baselines = list(fits["1"][0]["baseline_accuracy"])

    def against(k: str, name: str) -> str:
        first = fits[k][0]
        return f"{first['baseline_accuracy'][name]:.3f} / {first['baseline_epsilon'][name]:.2f}"

    return [
        "## How many blocks\n",
        f"Surrogates of the bundled model, {steps(found['settings']['surrogate'])} ([the defaults](surrogates.md) "
        f"have 200 + 4,000), {seeds(results, 'recurrence')}, scored on the test images. The model classifies "
        f"{fits['1'][0]['teacher_accuracy']:.3f} correctly.\n",
        table(
            ["", *SCORES, "agreement", "phases"],
            [
                [f"k = {k}", *scores(some), spread(of(some, "agreement")), runs(some[0]["phases"])]
                for k, some in fits.items()
            ],
        ),
        "Baselines, accuracy / ε: the state left as it is, the best linear map of each phase, the first k blocks "
        "alone, the model's own blocks repeated without training.\n",
        table(["", *baselines], [[f"k = {k}", *(against(k, name) for name in baselines)] for k in fits]),
        picture("recurrence", "Error and accuracy of surrogates against their number of blocks, beside four baselines"),
    ]


def runs(phases: Sequence[int]) -> str:
    """Return a partition as runs of blocks, [1–3][4–12]."""
    edges = [0, *(i for i in range(1, len(phases)) if phases[i] != phases[i - 1]), len(phases)]
    return "".join(f"[{first + 1}–{last}]" if last > first + 1 else f"[{last}]" for first, last in pairwise(edges))


def partitions(results: Results) -> list[str]:
    """Return the section on partitions."""
    found = results["partitions"]
    values = found["values"]
    return [
        "## Partitions of depth\n",
        f"Max-cut partitions against random ones, {steps(found['settings']['surrogate'])}, "
        f"{seeds(results, 'partitions')}; the seed draws the random partition and the order of the samples. "
        "Scattered: each block owns depths anywhere.\n",
        table(
            ["", *SCORES],
            [[f"k = {k}, {way}", *scores(values[way][k])] for k in values["max-cut"] for way in values],
        ),
        "The differences among the claims are of means, with intervals over resampled seeds, which of few seeds are "
        "little more than ranges.\n",
        picture(
            "partitions",
            "Error and accuracy of surrogates with max-cut, random contiguous and random scattered partitions",
        ),
    ]


def ablation(results: Results) -> list[str]:
    """Return the section on the parts of the training."""
    found = results["ablation"]
    ways = found["settings"]["ways"]
    heads = results["head"]["values"]
    total = sum(next(iter(ways.values()))["steps"])
    return [
        "## Parts of the training\n",
        f"Surrogates of three phases, {total} steps in all, {seeds(results, 'ablation')}. Until “+ stage 2” the "
        "first stage has all steps; until “+ errors over the variance” errors are plain, with AdamW at a rate of "
        "0.004 throughout. The last two rows each change one thing of the defaults.\n",
        table(["", *SCORES], [[way, *scores(fits)] for way, fits in found["values"].items()]),
        "With the defaults, cut short, and a head trained anew on the surrogate's class tokens, a logistic regression, "
        f"{spread(of(heads, 'surrogate_probe_accuracy'))} are classified correctly; through the model's own head "
        f"{spread(of(heads, 'surrogate_accuracy'))} ({seeds(results, 'head')}).\n",
    ]
