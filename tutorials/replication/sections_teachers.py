"""The page's sections on what a teacher's training does to its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tutorials.replication.claims_surrogates import of
from tutorials.replication.sections_surrogates import seeds, steps
from tutorials.replication.tables import picture, table
from tutorials.replication.verdicts import spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    Results = Mapping[str, dict[str, Any]]

LIKENESS = ("all", "within", "between", "contrast")


def likeness(teachers: list[dict[str, Any]]) -> list[str]:
    """Return the cells of the blocks' likeness in three phases, and of the surrogates' errors."""
    found = [one["likeness"]["3"] for one in teachers]
    return [
        *(spread([one[name] for one in found]) for name in LIKENESS),
        *(spread(of([one["fits"][k] for one in teachers], "epsilon")) for k in ("2", "3")),
    ]


def stochastic_depth(results: Results) -> list[str]:
    """Return the section on teachers trained with more and less stochastic depth."""
    found = results["stochastic_depth"]
    settings, values = found["settings"], found["values"]

    def cells(kind: str) -> list[str]:
        teachers = values[kind]
        return [kind, spread([one["accuracy"]["test"] for one in teachers]), *likeness(teachers)]

    def fits(kind: str) -> list[str]:
        made = [kind]
        for k in ("2", "3"):
            some = [one["fits"][k] for one in values[kind]]
            made += [spread(of(some, name)) for name in ("surrogate_accuracy", "least R²")]
        return made

    rates = [kind for kind in values if kind != "untrained"]
    return [
        "## Stochastic depth in the teacher's training\n",
        f"Teachers of the bundled model's shape, trained for {settings['epochs']} epochs alike but for the rate at "
        "which residual branches are dropped (Huang et al. 2016, arXiv:1603.09382), which rises linearly from 0 at "
        f"the first block to the rate at the last; {seeds(results, 'stochastic_depth')} each, and as many untrained "
        "models. Similarity is the mean cosine of the states after two blocks, over all pairs, and over those within "
        f"and between the best three phases. Surrogates have {steps(settings['surrogate'])}.\n",
        table(
            ["rate", "accuracy", "similarity", *LIKENESS[1:], "ε, k = 2", "ε, k = 3"],
            [cells(kind) for kind in values],
        ),
        "What surrogates keep:\n",
        table(
            ["rate", "accuracy, k = 2", "least R², k = 2", "accuracy, k = 3", "least R², k = 3"],
            [fits(kind) for kind in [*rates, "untrained"]],
        ),
        picture(
            "stochastic_depth",
            "Similarity of blocks, contrast of phases and error of surrogates against the stochastic depth of the "
            "teacher's training, beside untrained models",
        ),
        "R² and ε measure an error against the variance and the size of a teacher's own states. A teacher whose "
        "states vary less from image to image, or move less in depth, is easier on both, so compare them between "
        "teachers with care.\n",
    ]


def overfitting(results: Results) -> list[str]:
    """Return the section on teachers that were trained on few images."""
    found = results["overfitting"]
    images, values = found["settings"]["images"], found["values"]

    def cells(share: str) -> list[str]:
        teachers = values[share]
        accuracy = ([one["seen_accuracy"] for one in teachers], [one["accuracy"]["test"] for one in teachers])
        return [f"{images[share]:,}", *map(spread, accuracy), *likeness(teachers)]

    return [
        "## Overfitted teachers\n",
        "Teachers without stochastic depth, trained on fewer and fewer images for as many steps; "
        f"{seeds(results, 'overfitting')} each. Their surrogates are fitted to all training images.\n",
        table(
            ["images", "accuracy on them", "on test images", "similarity", *LIKENESS[1:], "ε, k = 2", "ε, k = 3"],
            map(cells, values),
        ),
    ]
