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
    interval,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    return beyond(f"{new}, {spread(mine)}", mine, f"{old}, {spread(theirs)}", theirs, [*fits, *others])


def beyond(new: str, mine: Sequence[float], old: str, theirs: Sequence[float], fits: list[dict[str, Any]]) -> Condition:
    """Check whether one accuracy is greater than another, by more than the fits' own intervals over images."""
    open_ = float(np.mean([fit["teacher_accuracy"] * (fit["recovery_high"] - fit["recovery_low"]) / 2 for fit in fits]))
    return Condition(
        f"accuracy {new}, is beyond that {old}, by more than the test images leave open, ±{open_:.3f}",
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


def head(results: Results) -> Claim:
    """Return the claim on a head that is trained anew."""
    fits = results["head"]["values"]
    own, new = of(fits, "surrogate_accuracy"), of(fits, "surrogate_probe_accuracy")
    teacher = (f"{fits[0][name]:.3f}" for name in ("teacher_accuracy", "teacher_probe_accuracy"))
    why = "{} The model itself has {} with its own head, {} with a new one.".format(EASY, *teacher)
    return Claim(
        "Fine-tuning the head adds accuracy",
        "ablation at k = 3",
        "+0.6",
        (beyond(f"with a head trained anew, {spread(new)}", new, f"with the model's own, {spread(own)}", own, fits),),
        why,
    )


def surrogates(results: Results) -> list[Claim]:
    """Return every claim on surrogates, those not measured at the end."""
    dense = "mIoU 43.0 of 47.5; RMSE 0.618 against 0.578 (k = 3)"
    return [
        *recurrence(results),
        *partitions(results),
        *ablation(results),
        head(results),
        Claim("Surrogates keep dense prediction", "ADE20k, NYUv2", dense, (), ""),
    ]
