"""The published claims on recorded states, as conditions on what was measured."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tutorials.replication.verdicts import Claim, Condition, extent, interval, third, twins

if TYPE_CHECKING:
    from collections.abc import Mapping

    Model = Mapping[str, Any]

IN_KIND = "in kind"


def means(model: Model, name: str) -> list[float]:
    """Return one curve of a model, without its intervals."""
    return [point[0] for point in model["curves"][name]]


def phases(trained: Model, others: list[Model]) -> Claim:
    """Check the phases against shuffled depth and untrained twins."""
    found = trained["phases"]
    contrasts = [one["phases"]["contrast"][0] for one in others]
    return Claim(
        "Depth is made of a few contiguous phases",
        "abstract; DINOv2",
        "k = 2 [1–7][8–12], k = 3 [1–7][8–10][11–12], k = 4 [1–4][5–7][8–10][11–12] of 12 blocks",
        (
            Condition(
                f"phases end at {found['boundary']}; contrast {interval(found['contrast'])} against "
                f"{found['null'][1]:.2f} of shuffled depth, p = {found['p_value']:.3f}",
                found["p_value"] < 0.05,
            ),
            Condition(
                f"the contrast is beyond every untrained twin's, {extent(contrasts)}",
                found["contrast"][1] > max(contrasts),
            ),
        ),
        "Any smooth path rejects the null of shuffled depth; untrained twins are the stricter one.",
    )


def convergence(trained: Model, others: list[Model]) -> Claim:
    """Check whether directions settle, more than those of twins."""
    alignment, speed = means(trained, "alignment, cls"), means(trained, "speed, cls")
    ends = [means(one, "speed, cls")[-1] for one in others]
    return Claim(
        "Directions converge with depth",
        "abstract (i)",
        IN_KIND,
        (
            Condition(
                f"the class token's alignment with its final direction rises at every block, from {alignment[0]:.2f} "
                f"to {alignment[-2]:.2f} one block before the end",
                all(one < two for one, two in pairwise(alignment)),
            ),
            Condition(
                f"its speed falls from {speed[0]:.2f} to {speed[-1]:.2f} rad/block, at the end below every twin's, "
                f"{extent(ends)}",
                speed[-1] < min(speed[0], *ends),
            ),
        ),
        "Alignment rises and speed falls in untrained twins too, as each block adds to a growing state. The model's "
        "states grow more than the twins', and part of its lower speed is that.",
    )


def basins(trained: Model, others: list[Model]) -> Claim:
    """Check whether endpoints cluster by class, more than those of twins."""
    mine = trained["basins"]
    ari = [one["basins"]["ari"][-1] for one in others]
    silhouette = [one["basins"]["silhouette"][0] for one in others]
    return Claim(
        "Endpoints fall into class-dependent basins",
        "abstract (i)",
        IN_KIND,
        (
            Condition(
                f"clusters of final directions agree with the classes to {mine['ari'][-1]:.2f} (ari); the twins' to "
                f"{extent(ari)}",
                mine["ari"][-1] > max(ari),
            ),
            Condition(
                f"silhouette {interval(mine['silhouette'])}; the twins' {extent(silhouette)}",
                mine["silhouette"][1] > max(silhouette),
            ),
        ),
        "A model that classifies nearly all images correctly must part the classes at its end.",
    )


def late_turn(trained: Model) -> Claim:
    """Check whether the class token turns late."""
    cls, patch = means(trained, "speed, cls"), means(trained, "speed, patch")
    return Claim(
        "The class token turns sharply late in depth",
        "abstract (ii)",
        IN_KIND,
        (
            Condition(
                f"its speed in the last third of the blocks, {third(cls, 2):.2f} rad/block, is above that in the "
                f"middle third, {third(cls, 1):.2f}",
                third(cls, 2) > third(cls, 1),
            ),
            Condition(
                f"there it turns faster than the patches, {third(patch, 2):.2f}",
                third(cls, 2) > third(patch, 2),
            ),
        ),
        "Ten classes of digits may need no late decision.",
    )


def coherence(trained: Model, others: list[Model]) -> Claim:
    """Check whether patches cohere late, more than those of twins."""
    mine, ends = means(trained, "coherence"), [means(one, "coherence")[-1] for one in others]
    return Claim(
        "Patches cohere late in depth",
        "abstract (ii)",
        IN_KIND,
        (
            Condition(
                f"coherence rises over the last third of depth, {mine[-5]:.2f} to {mine[-1]:.2f}",
                mine[-1] > mine[-5],
            ),
            Condition(f"at the end it is beyond every twin's, {extent(ends)}", mine[-1] > max(ends)),
        ),
        "Untrained attention averages tokens, so the null coheres more than the model, mostly by what all images "
        "share: without the mean over images the model's patches cohere more than the twins', though most in the "
        "middle of depth and less again at its end ([coherence](measures/coherence.md#how-to-read-it)).",
    )


def low_rank(trained: Model, others: list[Model]) -> Claim:
    """Check whether updates lose rank with depth, centred or not, more than those of twins."""
    rank, centred = trained["curves"]["stable rank"], trained["curves"]["centered stable rank"]
    ends = [means(one, "centered stable rank")[-1] for one in others]
    return Claim(
        "Updates collapse to low rank late in depth",
        "abstract (iii)",
        IN_KIND,
        (
            Condition(
                f"stable rank falls from {interval(rank[0])} at the first block to {interval(rank[-1])} at the last",
                rank[-1][2] < rank[0][1],
            ),
            Condition(
                f"so does the centred one, from {interval(centred[0])} to {interval(centred[-1])}",
                centred[-1][2] < centred[0][1],
            ),
            Condition(
                f"at the last block the centred one is below every twin's, {extent(ends)}",
                centred[-1][2] < min(ends),
            ),
        ),
        "Of at most 17. A mean update shared by all tokens makes any stable rank nearly 1; centring takes it out.",
    )


def linear(trained: Model, others: list[Model]) -> Claim:
    """Check whether one operator predicts a few blocks on, the class token best."""
    cls, patch = (trained["linear_maps"][kind] for kind in ("cls", "patch"))
    theirs = [one["linear_maps"]["cls"]["error"][3] for one in others]
    return Claim(
        "A short span of depth is nearly linear, the class token most",
        "arXiv:2605.07556, abstract",
        "one operator within 0.02 cosine similarity of the best map for up to 4 blocks (DINOv3)",
        (
            Condition(
                "one operator predicts the class token better than an unchanged state does, 1 to 4 blocks on "
                f"(relative error {cls['error'][3]:.2f} against {cls['error_identity'][3]:.2f} at 4)",
                all(cls["error"][p] < cls["error_identity"][p] for p in range(4)),
            ),
            Condition(
                f"the class token better than the patches ({patch['error'][3]:.2f} at 4)",
                all(cls["error"][p] < patch["error"][p] for p in range(4)),
            ),
        ),
        f"Errors are relative norms here, not cosines. Untrained twins are more linear still ({extent(theirs)} at "
        "4), as they do nearly the same to every image.",
    )


def states(results: Mapping[str, dict[str, Any]]) -> list[Claim]:
    """Return every claim on recorded states."""
    values = results["directions"]["values"]
    trained, others = values["trained"], twins(values)
    return [
        phases(trained, others),
        convergence(trained, others),
        basins(trained, others),
        late_turn(trained),
        coherence(trained, others),
        low_rank(trained, others),
        linear(trained, others),
    ]
