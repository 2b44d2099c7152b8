"""The published claims on what a teacher's training does to its blocks, as conditions on what was measured."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorials.replication.verdicts import Claim, Condition, above, extent, number, ranks_agree, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    Results = Mapping[str, dict[str, Any]]

IN_KIND = "in kind"


def teachers(results: Results) -> list[Claim]:
    """Return every claim on teachers."""
    return [*stochastic_depth(results), overfitting(results)]


def stochastic_depth(results: Results) -> list[Claim]:
    """Return the claims on stochastic depth in the teacher's training, and on training itself."""
    titles = (
        ("More stochastic depth makes blocks more alike", "abstract; small models"),
        ("More stochastic depth makes surrogates fit better", "abstract; small models"),
        ("Phase structure goes with how well a surrogate fits", "abstract; small models"),
        ("Training makes blocks alike in phases", "abstract; small models"),
        ("Training makes a model easier to redo with few blocks", "abstract; small models"),
    )
    values = results["stochastic_depth"]["values"]
    found = [one["accuracy"]["test"] for rate in rates_of(values) for one in values[rate]]
    young = (
        f"Small teachers, trained for {results['stochastic_depth']['settings']['epochs']} epochs: they classify "
        f"{extent(found)} correctly, the bundled model after 120 epochs "
        f"{results['directions']['values']['trained']['accuracy']:.2f}."
    )
    whys = (
        young,
        f"{young} Seeds of one rate differ by more than rates do.",
        f"{young} Teachers whose blocks are all alike have less contrast, so that the two measures of structure go "
        "against each other.",
        "A random stack of residual blocks is smooth in depth, and its blocks are alike for that reason alone.",
        "A random block moves all tokens of all images in nearly the same way, which is easily learnt: ε alone is no "
        "mark of training.",
    )
    made = (more_alike(values), better_fit(values), together(values), trained_phases(values), trained_fit(values))
    return [
        Claim(title, where, IN_KIND, conditions, why)
        for (title, where), conditions, why in zip(titles, made, whys, strict=True)
    ]


def rates_of(values: Mapping[str, Any]) -> list[str]:
    """Return the rates of stochastic depth, in rising order."""
    return [rate for rate in values if rate != "untrained"]


def likeness(values: Mapping[str, Any], rate: str, name: str) -> list[float]:
    """Return one number on the likeness of blocks of a rate's teachers, in three phases."""
    return [one["likeness"]["3"][name] for one in values[rate]]


def errors(values: Mapping[str, Any], rate: str, k: str) -> list[float]:
    """Return ε of the surrogates of a rate's teachers."""
    return [one["fits"][k]["epsilon"] for one in values[rate]]


def more_alike(values: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Return whether blocks grow alike with the rate."""
    rates = rates_of(values)
    least, most = (likeness(values, rate, "all") for rate in (rates[0], rates[-1]))
    order = [float(np.mean(likeness(values, rate, "all"))) for rate in rates]
    return (
        Condition(
            f"mean similarity of two blocks is {spread(most)} at a rate of {rates[-1]}, beyond {spread(least)} at "
            f"{rates[0]}",
            above(most, least),
        ),
        Condition(
            "its mean rises at every step: " + ", ".join(f"{value:.3f}" for value in order),
            all(one < two for one, two in pairwise(order)),
        ),
    )


def better_fit(values: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Return whether surrogates come nearer as the rate grows."""
    rates = rates_of(values)
    return tuple(
        Condition(
            f"k = {k}: ε is {spread(errors(values, rates[-1], k))} at {rates[-1]}, below "
            f"{spread(errors(values, rates[0], k))} at {rates[0]}",
            above(errors(values, rates[0], k), errors(values, rates[-1], k)),
        )
        for k in ("2", "3")
    )


def together(values: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Return whether teachers with more phase structure have nearer surrogates."""
    rates, made = rates_of(values), []
    for k in ("2", "3"):
        for name, title in (("contrast", "contrast"), ("all", "mean similarity")):
            structure = [one["likeness"][k][name] for rate in rates for one in values[rate]]
            nearness = [-one for rate in rates for one in errors(values, rate, k)]
            rank, p_value = ranks_agree(structure, nearness)
            made.append(
                Condition(
                    f"k = {k}: rank correlation of {title} and −ε over {len(nearness)} teachers {number(rank)}, "
                    f"p = {p_value:.3f}",
                    rank > 0 and p_value < 0.05,
                )
            )
    return tuple(made)


def trained_phases(values: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Return whether trained models have more phase structure than untrained ones, at the least and greatest rate."""
    rates = rates_of(values)
    return tuple(
        Condition(
            f"{title} of teachers at {rate}, {spread(likeness(values, rate, name))}, is beyond untrained models', "
            f"{spread(likeness(values, 'untrained', name))}",
            above(likeness(values, rate, name), likeness(values, "untrained", name)),
        )
        for name, title in (("contrast", "contrast"), ("all", "mean similarity"))
        for rate in (rates[0], rates[-1])
    )


def trained_fit(values: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Return whether surrogates of trained models come nearer than those of untrained ones."""
    rates = rates_of(values)
    return tuple(
        Condition(
            f"k = {k}: ε of teachers at {rate}, {spread(errors(values, rate, k))}, is below that of untrained models, "
            f"{spread(errors(values, 'untrained', k))}",
            above(errors(values, "untrained", k), errors(values, rate, k)),
        )
        for k in ("2", "3")
        for rate in (rates[0], rates[-1])
    )


def overfitting(results: Results) -> Claim:
    """Return the claim on teachers that were trained on few images."""
    values = results["overfitting"]["values"]
    whole, few = next(iter(values)), list(values)[-1]
    wholly = f"of teachers of one image in {few}"
    alike = Condition(
        f"mean similarity of two blocks {wholly}, {spread(likeness(values, few, 'all'))}, is below "
        f"{spread(likeness(values, whole, 'all'))} of all images",
        above(likeness(values, whole, "all"), likeness(values, few, "all")),
    )
    farther = tuple(
        Condition(
            f"k = {k}: ε {wholly}, {spread(errors(values, few, k))}, is above that of all images, "
            f"{spread(errors(values, whole, k))}",
            above(errors(values, few, k), errors(values, whole, k)),
        )
        for k in ("2", "3")
    )
    seen = [np.mean([one["seen_accuracy"] for one in values[share]]) for share in (whole, few)]
    unseen = [np.mean([one["accuracy"]["test"] for one in values[share]]) for share in (whole, few)]
    why = (
        f"What overfits here is few images, in as many steps: such teachers classify {seen[1]:.2f} of the images that "
        f"they saw and {unseen[1]:.2f} of the test images correctly, those of all images {seen[0]:.2f} and "
        f"{unseen[0]:.2f}."
    )
    return Claim(
        "Overfitting a teacher undoes its block recurrence",
        "small models on CIFAR-100",
        IN_KIND,
        (alike, *farther),
        why,
    )
