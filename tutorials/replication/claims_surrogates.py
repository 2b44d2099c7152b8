"""The published claims on surrogates, as conditions on what was measured."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorials.replication.verdicts import (
    Claim,
    Condition,
    above,
    difference,
    extent,
    interval,
    number,
    ranks_agree,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    Results = Mapping[str, dict[str, Any]]

EASY = "The digits are nearly solved: one image is 0.003 of accuracy, and there is little to lose."
IN_KIND = "in kind"
DEFINITION, UNPUBLISHED = "definition of the hypothesis", "none: ε is defined, not measured"
SHORT_FITS = "Fits of 550 steps, on one small teacher; the published ones are on CIFAR-100."


def of(fits: list[dict[str, Any]], name: str) -> list[float]:
    """Return one score of several fits; ``least R²`` is the least over depths."""
    if name == "least R²":
        return [min(fit["r2"]) for fit in fits]
    return [fit[name] for fit in fits]


def more_accurate(new: str, fits: list[dict[str, Any]], old: str, others: list[dict[str, Any]]) -> Condition:
    """Check whether accuracy is greater with every seed, by more than a test set of this size leaves open."""
    mine, theirs = of(fits, "surrogate_accuracy"), of(others, "surrogate_accuracy")
    open_ = float(
        np.mean(
            [fit["teacher_accuracy"] * (fit["recovery_high"] - fit["recovery_low"]) / 2 for fit in [*fits, *others]]
        )
    )
    return Condition(
        f"accuracy {new}, {spread(mine)}, is beyond that {old}, {spread(theirs)}, by more than the test images leave "
        f"open, ±{open_:.3f}",
        above(mine, theirs) and np.mean(mine) - np.mean(theirs) > open_,
    )


def recurrence(results: Results) -> list[Claim]:
    """Return the claims on how many blocks are needed."""
    probe = "linear probe on ImageNet-1k"
    kept = (("2", 0.96, "Two", "81.0–81.2 of 84.5 (96 %)"), ("3", 0.98, "Three", "83.0 ± 0.1 of 84.5 (98 %)"))
    titles = [f"{word} blocks keep {share:.0%} of the accuracy".replace("%", " %") for _, share, word, _ in kept]
    rises, near = "Accuracy rises from k = 2 to 4", "The surrogate stays near the model at every depth (ε)"
    rising = "81.0–81.2, 83.0 ± 0.1, 83.2 ± 0.1"
    smooth = "Here ε falls smoothly with k, with no knee, so that it singles out no number of blocks."
    fits = results["recurrence"]["values"]
    accuracy, recovery, epsilon = (
        {k: of(some, name) for k, some in fits.items()} for name in ("surrogate_accuracy", "recovery", "epsilon")
    )

    def keeps(k: str, share: float) -> tuple[Condition, ...]:
        best = max(fits[k][0]["baseline_accuracy"].values())
        return (
            Condition(f"recovery {spread(recovery[k])} is at least {share} with every seed", min(recovery[k]) >= share),
            Condition(
                f"accuracy {spread(accuracy[k])} is beyond every baseline's of {k} blocks (best {best:.3f})",
                min(accuracy[k]) > best,
            ),
        )

    def nearer(k: str) -> Condition:
        nearest = min(fits[k][0]["baseline_epsilon"].values())
        return Condition(
            f"at k = {k}, ε = {spread(epsilon[k])} is below every baseline's (nearest {nearest:.2f})",
            max(epsilon[k]) < nearest,
        )

    more_is_better = tuple(
        more_accurate(f"at k = {more}", fits[more], f"at k = {fewer}", fits[fewer])
        for fewer, more in pairwise(("2", "3", "4"))
    )
    return [
        *(
            Claim(title, probe if k == "3" else f"abstract; {probe}", numbers, keeps(k, share), EASY)
            for title, (k, share, _, numbers) in zip(titles, kept, strict=True)
        ),
        Claim(rises, probe, rising, more_is_better, f"{EASY} One block already keeps {spread(recovery['1'])}."),
        Claim(near, DEFINITION, UNPUBLISHED, tuple(nearer(k) for k in ("2", "3", "4")), smooth),
    ]


def partitions(results: Results) -> list[Claim]:
    """Return the claims on max-cut partitions against random ones."""
    where = "controls on CIFAR-100"
    ways = ("random, contiguous", "random, scattered")
    found = results["partitions"]["values"]

    def conditions(way: str) -> tuple[Condition, ...]:
        made = []
        for score, title in (("recovery", "recovery"), ("epsilon", "ε")):
            for k in found[way]:
                gap = difference(of(found["max-cut"][k], score), of(found[way][k], score))
                wanted, better = ("below", gap[2] < 0) if score == "epsilon" else ("above", gap[1] > 0)
                made.append(Condition(f"k = {k}: {title} less theirs, {interval(gap, 3)}, is {wanted} 0", better))
        return tuple(made)

    return [
        Claim(
            f"Max-cut partitions beat {way.replace(',', '')} ones at k = 2, 3, 4",
            where,
            "better at every k",
            conditions(way),
            f"{SHORT_FITS} {EASY}",
        )
        for way in ways
    ]


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


STEPS = (
    ("autoregressive", "teacher forcing alone", "Autoregressive training makes the surrogate", "3.9 → 72.7"),
    ("+ depth scaling", "autoregressive", "Depth scaling adds accuracy", "+2.5"),
    ("+ weighted cls", "+ depth scaling", "A weight for the class token adds accuracy", "+1.5"),
    ("+ stage 2", "+ weighted cls", "A second stage adds accuracy", "+5.7"),
)


def ablation(results: Results) -> list[Claim]:
    """Return the claims on the parts of the training."""
    found = results["ablation"]["values"]

    forced = of(found["teacher forcing alone"], "recovery")
    least = [of(found[way], "least R²") for way in ("autoregressive", "teacher forcing alone")]
    nearer = Condition(
        f"least R² over depths with it, {spread(least[0])}, is beyond that without, {spread(least[1])}", above(*least)
    )
    collapse = Condition(
        f"teacher forcing alone keeps less than half of the accuracy: recovery {spread(forced)}", max(forced) < 0.5
    )

    def conditions(new: str, old: str) -> tuple[Condition, ...]:
        more = more_accurate("with it", found[new], "without", found[old])
        return (more, nearer, collapse) if old == "teacher forcing alone" else (more,)

    def why(new: str, old: str) -> str:
        ends = (spread(of(found[way], "least R²")) for way in (new, old))
        said = "{} Steps are equal here, 550 in all. Least R² over depths is {} with it and {} without.".format(
            EASY, *ends
        )
        if new == "+ stage 2":
            divided = spread(of(found["+ errors over the variance"], "least R²"))
            said += (
                f" Plain errors along the path are ruled by its late, long states; over the variance it is {divided}."
            )
        return said

    return [
        Claim(claim, "ablation at k = 3", published, conditions(new, old), why(new, old))
        for new, old, claim, published in STEPS
    ]


def surrogates(results: Results) -> list[Claim]:
    """Return every claim on surrogates, those not measured at the end."""
    absent = (
        ("Surrogates keep dense prediction", "ADE20k, NYUv2", "mIoU 43.0 of 47.5; RMSE 0.618 against 0.578 (k = 3)"),
        ("Fine-tuning the head adds accuracy", "ablation at k = 3", "+0.6"),
        ("Overfitting a teacher undoes its block recurrence", "small models on CIFAR-100", "in kind"),
    )
    return [
        *recurrence(results),
        *stochastic_depth(results),
        *partitions(results),
        *ablation(results),
        *(Claim(title, where, published, (), "") for title, where, published in absent),
    ]
