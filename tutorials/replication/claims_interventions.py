"""The published claims on pushed states, linearised blocks and swapped blocks, as conditions on what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tutorials.replication.verdicts import Claim, Condition, extent, interval, third, twins

if TYPE_CHECKING:
    from collections.abc import Mapping

    Results = Mapping[str, dict[str, Any]]

IN_KIND = "in kind"


def returns(results: Results, kind: str, claim: str, why: str) -> Claim:
    """Check whether pushed tokens come back, more than those of twins, and end in the basin they were in."""
    values, depths = results["pushes"]["values"], [str(depth) for depth in results["pushes"]["settings"]["depths"]]
    trained, others = values["trained"], twins(values)
    mine = [trained[kind][depth]["recovery"] for depth in depths]
    theirs = [[one[kind][depth]["recovery"][0] for one in others] for depth in depths]
    shares = [trained[kind][depth]["stable_share"] for depth in depths]
    best = [max(one[kind][depth]["stable_share"] for one in others) for depth in depths]
    beyond = [trained[kind][depth]["returned"] for depth in depths]
    carried = [trained[kind][depth]["carried_share"] for depth in depths]
    return Claim(
        claim,
        "abstract (i)",
        IN_KIND,
        (
            Condition(
                f"the share of the angle that is gone at the end is above 0: {', '.join(map(interval, mine))} after "
                f"a push at depth {', '.join(depths)}",
                all(one[1] > 0 for one in mine),
            ),
            Condition(
                f"it is beyond every twin's at every depth, {', '.join(map(extent, theirs))}",
                all(one[1] > max(other) for one, other in zip(mine, theirs, strict=True)),
            ),
            Condition(
                f"it is beyond what longer states alone take back, by {', '.join(map(interval, beyond))}",
                all(one[1] > 0 for one in beyond),
            ),
            Condition(
                f"{', '.join(f'{share:.3f}' for share in shares)} of the pushed paths end in the basin of the "
                f"unpushed one, more than in any twin ({', '.join(f'{share:.3f}' for share in best)} at most)",
                all(share > other for share, other in zip(shares, best, strict=True)),
            ),
            Condition(
                f"more, too, than if no block answered to the push ({', '.join(f'{share:.3f}' for share in carried)})",
                all(share > other for share, other in zip(shares, carried, strict=True)),
            ),
        ),
        why,
    )


def contraction(results: Results) -> Claim:
    """Check whether blocks shrink small changes of direction: in the mean, in every direction, over the whole depth."""
    values = results["pushes"]["values"]
    mine, others = values["trained"]["jacobian"], [one["jacobian"] for one in twins(values)]
    gain, largest, whole = mine["blocks"]["rms_gain"], mine["blocks"]["largest"], mine["cumulative"]["largest"][-1]
    theirs = [third(one["blocks"]["largest"], 2) for one in others]
    return Claim(
        "Trajectories correct small pushes, in the limit: each block shrinks changes of direction",
        "abstract (i)",
        "in kind",
        (
            Condition(f"the rms gain over directions is below 1 at every block ({extent(gain)})", max(gain) < 1),
            Condition(f"so is the largest singular value ({extent(largest)})", max(largest) < 1),
            Condition(
                f"its mean over the last third, {third(largest, 2):.2f}, is below every twin's, {extent(theirs)}",
                third(largest, 2) < min(theirs),
            ),
            Condition(f"from depth 0 to the end it is below 1 ({whole:.2f})", whole < 1),
        ),
        "The mean over directions shrinks while some direction grows; both are true at once. And the mean shrinks as "
        "states grow: from block 4 on it is within 0.03 of the ratio of the norms before and after a block, in the "
        "model as in its twin ([jacobian](measures/jacobian.md#null)).",
    )


def swaps(results: Results) -> Claim:
    """Check whether swaps between phases do more harm than within, at equal distance too, and more than in twins."""
    values = results["swaps"]["values"]
    trained, others = values["trained"], twins(values)
    gaps, matched = ([one[name][0] for one in others] for name in ("difference", "matched_difference"))
    within, between = (trained["accuracies"][f"{where}, late"] for where in ("within", "between"))
    return Claim(
        "Swaps within a phase do little harm, between phases much",
        "causal figure",
        "accuracy hardly moves within a phase and collapses across",
        (
            Condition(
                f"swaps between phases move the final state further, by {interval(trained['difference'])} rad",
                trained["difference"][1] > 0,
            ),
            Condition(f"beyond every twin's difference, {extent(gaps)}", trained["difference"][1] > max(gaps)),
            Condition(
                f"among pairs equally far apart in depth too, by {interval(trained['matched_difference'])} rad",
                trained["matched_difference"][1] > 0,
            ),
            Condition(f"beyond every twin's there, {extent(matched)}", trained["matched_difference"][1] > max(matched)),
            Condition(
                f"with the first three blocks left alone, accuracy between phases, {between:.3f}, is more than 0.05 "
                f"below that within, {within:.3f}",
                within - between > 0.05,
            ),
        ),
        "What counts here is which block is replaced: the first, whatever is put in its place; the late ones hardly "
        "at all.",
    )


def interventions(results: Results) -> list[Claim]:
    """Return every claim on interventions."""
    growing = (
        "A growing state turns less, whatever it has learnt: a deviation that no block answers to loses the share "
        "1 − ‖x_ℓ‖/‖x₁₂‖ of its angle, and mostly ends in its own basin, too ([directions, basins, attractors]"
        "(concepts/directions-and-attractors.md#push-and-push-harder))."
    )
    apart = "A trained model tells apart what a twin does not, and so takes up what its patches are pushed by."
    return [
        returns(results, "push of cls", "Trajectories correct small pushes (class token)", growing),
        returns(results, "push of patch", "Trajectories correct small pushes (patches)", apart),
        contraction(results),
        swaps(results),
    ]
