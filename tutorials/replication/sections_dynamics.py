"""The page's sections on states and interventions: what was run, its tables and pictures, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tutorials.replication.tables import beside, folded, picture, table
from tutorials.replication.verdicts import extent, interval, number, twins

if TYPE_CHECKING:
    from collections.abc import Mapping

    Results = Mapping[str, dict[str, Any]]


def similarity(results: Results) -> list[str]:
    """Return the section on similarity and phases."""
    values = results["directions"]["values"]

    def cells(name: str) -> list[str]:
        phases = values[name]["phases"]
        return [
            name,
            f"{values[name]['accuracy']:.3f}",
            str(phases["boundary"]),
            interval(phases["contrast"], 3),
            interval([phases["null"][i] for i in (1, 0, 2)], 3),
            f"{phases['p_value']:.3f}",
        ]

    return [
        "## Similarity and phases, trained against untrained\n",
        "The phases that [`phases`](measures/phases.md) finds with its default rule, and their contrast: mean "
        "similarity within less between. The null shuffles depth 999 times.\n",
        table(
            ["model", "accuracy", "phases end at", "contrast", "shuffled depth, median [2.5 %, 97.5 %]", "p"],
            [cells(name) for name in values],
        ),
        picture(
            "similarity",
            "Similarity of the states after each two blocks of the trained model and of two untrained twins",
        ),
        "The shuffled null rejects for any path that is smooth in depth, trained or not. A residual stack is smooth by "
        "construction: compare with the twins, not with shuffled depth alone.\n",
    ]


def swaps(results: Results) -> list[str]:
    """Return the section on swaps."""
    values = results["swaps"]["values"]

    def cells(name: str) -> list[str]:
        found = values[name]
        share = found["accuracies"]
        return [
            name,
            str(found["boundary"]),
            f"{found['within']:.3f}",
            f"{found['between']:.3f}",
            interval(found["difference"], 3),
            interval(found["matched_difference"], 3),
            f"{found['accuracy_unswapped']:.3f}",
            f"{share['within, all']:.3f} / {share['between, all']:.3f}",
            f"{share['within, late']:.3f} / {share['between, late']:.3f}",
        ]

    return [
        "## Blocks in each other's places\n",
        "The angle, in rad, by which the final state of the class token moves when one block runs in another's place "
        "([`swap_blocks`](measures/swap_blocks.md)), over pairs within and between phases; the difference also among "
        "pairs equally far apart in depth; and the accuracy within / between, of all pairs and of those without "
        "blocks 1 to 3.\n",
        table(
            ["model", "phases end at", "within", "between", "difference", "at equal distance", "accuracy unswapped",
             "within / between", "without blocks 1–3"],
            [cells(name) for name in values],
        ),
        picture("swaps", "Angle of the final state and accuracy after every swap of two blocks of the trained model"),
        "Blocks of unlike depth are unlike anyway. Only the difference at equal distance speaks of phases.\n",
    ]  # fmt: skip


def curves(results: Results) -> list[str]:
    """Return the section on directions, coherence, ranks and basins."""
    values = results["directions"]["values"]
    trained, others = values["trained"], twins(values)

    def lines(names: Mapping[str, str]) -> list[list[str]]:
        return [
            cells
            for name, title in names.items()
            for cells in beside(
                title,
                [point[0] for point in trained["curves"][name]],
                [[point[0] for point in one["curves"][name]] for one in others],
            )
        ]

    depths = len(trained["curves"]["coherence"])
    committed = trained["basins"]["committed"]
    half = next(depth for depth, share in enumerate(committed) if share >= 0.5)
    return [
        "## Convergence, speed, coherence, rank, basins\n",
        f"Means over the test images, and over tokens, beside the range of {len(others)} untrained twins.\n",
        picture(
            "states",
            "Alignment, speed, coherence, centred stable rank and agreement with the classes of the trained model, "
            "beside the range over untrained twins",
        ),
        folded(
            "Numbers by depth and by block",
        table(
            ["depth", *map(str, range(depths))],
            [
                *lines(
                    {
                        "alignment, cls": "alignment, cls",
                        "alignment, patch": "alignment, patches",
                        "coherence": "coherence",
                    }
                ),
                *beside("ari", trained["basins"]["ari"], [one["basins"]["ari"] for one in others]),
            ],
        ),
        table(
            ["block", *map(str, range(1, depths))],
            lines({
                "speed, cls": "speed, cls", "speed, patch": "speed, patches", "stable rank": "stable rank",
                "centered stable rank": "stable rank, centred",
            }),
        ),
        ),
        f"Half of the images are committed to their final basin by depth {half}. Basins are ten clusters of the "
        f"class token's final directions, silhouette {interval(trained['basins']['silhouette'])} against the twins' "
        f"{extent([one['basins']['silhouette'][0] for one in others])}; labels take no part in the clustering. The "
        "class token is the same for all images at depth 0, so that the agreement there is 0 by construction.\n",
    ]  # fmt: skip


def pushes(results: Results) -> list[str]:
    """Return the section on pushes and linearised blocks."""
    found = results["pushes"]
    settings, values = found["settings"], found["values"]
    trained, others = values["trained"], twins(values)
    depths = [str(depth) for depth in settings["depths"]]
    kinds = ("push of cls", "push of patch", "push of cls to another class")

    def cells(name: str, kind: str) -> list[str]:
        one = values[name][kind]
        shown = (f"{interval(one[d]['recovery'])}; {number(one[d]['carried'][0])}" if d in one else "–" for d in depths)
        return [f"{kind}, {name}", *shown]

    def stable(name: str, kind: str) -> list[str]:
        one = values[name][kind]
        shares = (f"{one[d]['stable_share']:.3f}; {one[d]['carried_share']:.3f}" for d in depths)
        return [f"{kind}, {name}", *shares]

    rows = []
    for span, title in (("blocks", "one block"), ("cumulative", "from depth 0")):
        for key, what in (("rms_gain", "rms gain"), ("largest", "largest singular value")):
            rows += beside(
                f"{what}, {title}", trained["jacobian"][span][key], [one["jacobian"][span][key] for one in others]
            )
    share = trained["jacobian"]["blocks"]["share_below_one"]
    return [
        "## Pushes and Jacobians\n",
        f"The share of a push of {settings['angle']} rad that is gone at the end, in {settings['draws']} random "
        "directions tangent to the state, or towards the mean of another class ([`perturb`](measures/perturb.md)). "
        "At depth 0 the class token is the same for every image, and has no other class to be pushed to.\n",
        picture(
            "pushes",
            "Recovery after pushes by depth, and gains of linearised blocks, beside the range over untrained twins",
        ),
        "Behind the semicolon stands the null: the recovery if no later block answered to the push, so that its "
        "deviation were carried along as it is. On a state that grows from ‖x_ℓ‖ to ‖x₁₂‖ that is about "
        "1 − ‖x_ℓ‖/‖x₁₂‖.\n",
        table(["recovery after a push at depth", *depths], [cells(name, kind) for kind in kinds for name in values]),
        "The share of pushed paths that end in the basin of the unpushed one, and behind the semicolon the share if no "
        "later block answered to the push. A twin's clusters have no gaps between them.\n",
        table(["pushed at depth", *depths], [stable(name, kind) for kind in kinds[:2] for name in values]),
        f"The same in the limit: Jacobians of the class token's direction, medians over {settings['linearised']} "
        f"images. Every direction shrinks in {extent(share)} of the images, depending on the block.\n",
        folded("Gains and singular values by block", table(["", *map(str, range(1, len(share) + 1))], rows)),
    ]


def linear_maps(results: Results) -> list[str]:
    """Return the section on linear maps."""
    values = results["directions"]["values"]
    trained, others = values["trained"]["linear_maps"], [one["linear_maps"] for one in twins(values)]
    names = {
        "error_identity": "unchanged state", "error": "one operator", "error_endpoint": "a map of each horizon",
        "error_per_step": "a map of each block",
    }  # fmt: skip
    rows = [
        cells
        for kind in ("cls", "patch")
        for name, title in names.items()
        for cells in beside(f"{kind}, {title}", trained[kind][name], [one[kind][name] for one in others])
    ]
    largest = trained["cls"]["largest_eigenvalue"]
    return [
        "## Linear maps\n",
        "The relative error of the state p blocks on, predicted by one operator for all blocks from 2 on, fitted to "
        "every second image and tested on the others ([`dmd`](measures/dmd.md)), beside maps that may differ by "
        "horizon or by block.\n",
        folded("Errors by horizon", table(["blocks on", *map(str, range(1, len(trained["cls"]["error"]) + 1))], rows)),
        f"The operator's largest eigenvalue has modulus {largest:.2f} (class token; twins "
        f"{extent([one['cls']['largest_eigenvalue'] for one in others])}). One above 1 is no instability here: "
        "states grow with depth.\n",
    ]
