"""Draw the pictures of the replication page from its measured numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from depthflow.plot._style import GREY, GROUP_COLORS, GROUP_MARKERS, INK, LINE_WIDTH, MARKER_SIZE, PALE, RC
from tutorials.replication.verdicts import twins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    Results = Mapping[str, dict[str, Any]]

PICTURES = Path("docs/pictures/replication")
WIDTH = 7.0
BLUE, ORANGE = GROUP_COLORS[0], GROUP_COLORS[4]


def figure(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """Return an empty figure of the page's width, and its Axes (row, column)."""
    drawn = Figure(figsize=(WIDTH, height), layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False, **options)


def beside_twins(ax: Axes, x: Sequence[float], trained: Any, others: Sequence[Sequence[float]], label: str) -> None:
    """Draw the trained model's curve, its interval where it has one, and the range of its twins."""
    curve = np.asarray(trained, dtype=float)
    spread = np.asarray(others, dtype=float)
    ax.fill_between(x, spread.min(0), spread.max(0), color=PALE, lw=0, label="untrained twins, range")
    ax.plot(x, spread.mean(0), color=GREY, lw=LINE_WIDTH, ls="--", label="their mean")
    if curve.ndim == 2:
        ax.fill_between(x, curve[:, 1], curve[:, 2], color=BLUE, alpha=0.25, lw=0)
        curve = curve[:, 0]
    ax.plot(x, curve, color=BLUE, lw=LINE_WIDTH, marker="o", ms=MARKER_SIZE, label="trained")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def dots(ax: Axes, x: float, values: Sequence[float], index: int, label: str | None) -> None:
    """Draw every seed as a hollow mark and their mean as a line."""
    style = {"color": GROUP_COLORS[index], "marker": GROUP_MARKERS[index], "ms": MARKER_SIZE, "ls": "none"}
    ax.plot([x] * len(values), values, mfc="none", mew=0.8, label=label, **style)
    ax.plot([x - 0.09, x + 0.09], [np.mean(values)] * 2, color=GROUP_COLORS[index], lw=LINE_WIDTH)


def similarity(results: Results) -> Figure:
    """Draw the similarity of blocks of the trained model and of two twins, with their phases."""
    values = results["directions"]["values"]
    drawn, axes = figure(1, 3, 2.5)
    for ax, name in zip(axes[0], ("trained", "untrained 0", "untrained 1"), strict=True):
        found = values[name]["phases"]
        matrix = np.asarray(found["similarity"]["cosine"])
        edges = np.arange(len(matrix) + 1) + 0.5
        shown = ax.pcolormesh(edges, edges, matrix, vmin=0, vmax=1, cmap="viridis", rasterized=True)
        first = 0
        for last in found["boundary"]:
            ax.add_patch(
                mpl.patches.Rectangle((first + 0.5,) * 2, last - first, last - first, fill=False, ec="w", lw=1.2)
            )
            first = last
        ax.set(title=name, xlabel="block", aspect="equal")
        ax.set_xticks([1, 6, 12])
        ax.set_yticks([1, 6, 12])
        ax.invert_yaxis()
    axes[0, 0].set_ylabel("block")
    drawn.colorbar(shown, ax=axes, label="cosine similarity", shrink=0.8)
    return drawn


def states(results: Results) -> Figure:
    """Draw every curve over depth or blocks beside the twins'."""
    values = results["directions"]["values"]
    trained, others = values["trained"], twins(values)
    names = {
        "alignment, cls": "alignment of cls\nwith its end",
        "speed, cls": "speed of cls\n(rad/block)",
        "speed, patch": "speed of patches\n(rad/block)",
        "coherence": "coherence of patches",
        "centered stable rank": "stable rank of\ncentred updates",
    }
    drawn, axes = figure(2, 3, 3.8)
    for ax, (name, label) in zip(axes.flat, names.items(), strict=False):
        curve = trained["curves"][name]
        over_depth = name in ("alignment, cls", "coherence")
        x = range(len(curve)) if over_depth else range(1, len(curve) + 1)
        beside_twins(ax, x, curve, [[point[0] for point in one["curves"][name]] for one in others], label)
        ax.set_xlabel("depth" if over_depth else "block")
    ari = trained["basins"]["ari"]
    last = axes.flat[-1]
    beside_twins(
        last,
        range(len(ari)),
        ari,
        [one["basins"]["ari"] for one in others],
        "agreement of clusters\nwith classes (ari)",
    )
    last.set_xlabel("depth")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return drawn


def pushes(results: Results) -> Figure:
    """Draw recoveries by depth of the push, and gains of linearised blocks."""
    values = results["pushes"]["values"]
    trained, others = values["trained"], twins(values)
    depths = results["pushes"]["settings"]["depths"]
    drawn, axes = figure(1, 4, 2.2)
    for ax, kind, title in zip(axes[0], ("push of cls", "push of patch"), ("class token", "patches"), strict=False):
        mine = [trained[kind][str(depth)]["recovery"] for depth in depths]
        theirs = [[one[kind][str(depth)]["recovery"][0] for depth in depths] for one in others]
        beside_twins(ax, depths, mine, theirs, f"recovery, {title}")
        ax.axhline(0, color=INK, lw=0.5)
        ax.set_xlabel("depth of the push")
        ax.set_xticks(depths)
    for ax, name, title in zip(
        axes[0, 2:], ("rms_gain", "largest"), ("rms gain", "largest singular value"), strict=True
    ):
        curve = trained["jacobian"]["blocks"][name]
        beside_twins(ax, range(1, len(curve) + 1), curve, [one["jacobian"]["blocks"][name] for one in others], title)
        ax.axhline(1, color=INK, lw=0.5)
        ax.set_xlabel("block")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return drawn


def swaps(results: Results) -> Figure:
    """Draw what every swap does to the trained model's final state and accuracy."""
    found = results["swaps"]["values"]["trained"]
    drawn, axes = figure(1, 2, 3.0)
    for ax, name, label, limits in (
        (axes[0, 0], "effect", "angle of the final state (rad)", {"vmin": 0, "vmax": np.pi / 2}),
        (axes[0, 1], "accuracy", "accuracy", {"vmin": 0, "vmax": 1}),
    ):
        matrix = np.asarray(found[name])
        edges = np.arange(len(matrix) + 1) + 0.5
        shown = ax.pcolormesh(edges, edges, matrix, cmap="viridis", rasterized=True, **limits)
        for last in found["boundary"][:-1]:
            ax.axhline(last + 0.5, color="w", lw=0.8)
            ax.axvline(last + 0.5, color="w", lw=0.8)
        ax.set(xlabel="block put in", ylabel="block replaced", aspect="equal")
        ax.set_xticks([1, 6, 12])
        ax.set_yticks([1, 6, 12])
        ax.invert_yaxis()
        drawn.colorbar(shown, ax=ax, label=label, shrink=0.85)
    return drawn


def recurrence(results: Results) -> Figure:
    """Draw ε and accuracy against the number of blocks, beside the baselines."""
    fits = results["recurrence"]["values"]
    counts = [int(k) for k in fits]
    drawn, axes = figure(1, 2, 2.6)
    for ax, name, baseline, label in (
        (axes[0, 0], "epsilon", "baseline_epsilon", "ε, largest relative error over depths"),
        (axes[0, 1], "surrogate_accuracy", "baseline_accuracy", "accuracy"),
    ):
        for index, kind in enumerate(fits["1"][0][baseline]):
            ax.plot(
                counts, [fits[str(k)][0][baseline][kind] for k in counts], color=GREY, lw=1, ls="--",
                marker=GROUP_MARKERS[index + 1], mfc="w", ms=MARKER_SIZE, label=kind,
            )  # fmt: skip
        ax.plot(
            counts,
            [np.mean([fit[name] for fit in fits[str(k)]]) for k in counts],
            color=BLUE,
            lw=LINE_WIDTH,
            label="surrogate",
        )
        for k in counts:
            ax.plot([k] * len(fits[str(k)]), [fit[name] for fit in fits[str(k)]], "o", color=BLUE, ms=MARKER_SIZE)
        ax.set(xlabel="number of blocks k", ylabel=label, xticks=counts, ylim=(0, 1.5 if name == "epsilon" else 1.05))
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return drawn


def partitions(results: Results) -> Figure:
    """Draw ε and least R² of every fit by the way of cutting depth."""
    values = results["partitions"]["values"]
    drawn, axes = figure(1, 2, 2.6)
    for index, (way, by_count) in enumerate(values.items()):
        for position, fits in enumerate(by_count.values()):
            x, label = position + 0.25 * (index - 1), way if position == 0 else None
            dots(axes[0, 0], x, [fit["epsilon"] for fit in fits], index, label)
            dots(axes[0, 1], x, [fit["surrogate_accuracy"] for fit in fits], index, label)
    for ax, label in zip(axes[0], ("ε, largest relative error over depths", "accuracy"), strict=True):
        ax.set(ylabel=label, xticks=range(len(by_count)), xticklabels=[f"k = {k}" for k in by_count])
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return drawn


def stochastic_depth(results: Results) -> Figure:
    """Draw likeness of blocks and ε against the teacher's stochastic depth; untrained models at the left."""
    values = results["stochastic_depth"]["values"]
    kinds = ["untrained", *(kind for kind in values if kind != "untrained")]
    drawn, axes = figure(1, 3, 2.5)
    for position, kind in enumerate(kinds):
        index = 6 if kind == "untrained" else 0
        dots(axes[0, 0], position, [one["likeness"]["3"]["all"] for one in values[kind]], index, None)
        dots(axes[0, 1], position, [one["likeness"]["3"]["contrast"] for one in values[kind]], index, None)
        for shift, k, colour in ((-0.12, "2", 1), (0.12, "3", 2)):
            fits = [one["fits"][k]["epsilon"] for one in values[kind]]
            dots(axes[0, 2], position + shift, fits, colour, f"k = {k}" if position == 0 else None)
    labels = ("mean similarity of two blocks", "contrast of three phases", "ε of a surrogate")
    for ax, label in zip(axes[0], labels, strict=True):
        ax.set(xlabel="stochastic depth in training", ylabel=label, xticks=range(len(kinds)))
        ax.set_xticklabels(kinds)
        ax.set_ylim(0, 1.06 * ax.get_ylim()[1])
    axes[0, 2].legend(frameon=False)
    return drawn


def draw(results: Results, folder: Path = PICTURES) -> None:
    """Write every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(dict(RC)):
        for one in (stochastic_depth, similarity, recurrence, partitions, swaps, states, pushes):
            one(results).savefig(folder / f"{one.__name__}.png", dpi=160)
