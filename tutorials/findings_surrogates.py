"""Print the tables of `docs/findings.md` on surrogates: the recurrence curve, the controls, the ablation, the twins.

python tutorials/findings_surrogates.py [--folder F] [--processes 2] [curve | controls | ablation | twins]

Every fit's scores are kept in the folder, so that a second run goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

import depthflow
from depthflow import SurrogateSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


SHORT = SurrogateSettings(steps=(100, 1000))
"""A quarter of the default: what the ablation has."""
SHORTEST = SurrogateSettings(steps=(50, 500))
"""Of the many fits of the controls, and of the untrained teachers."""

CURVE = (1, 2, 3, 4, 6)
CONTROL_PHASES = (2, 3, 4)
CURVE_SEEDS, CONTROL_SEEDS, ABLATION_SEEDS, TWINS = 3, 10, 3, 3

EQUAL = {"cls": 1.0, "patch": 16.0}
"""Weights that make every token count the same."""
PAPER = replace(SHORT, optimizer="adamw", learning_rate=4e-3, scale_by_variance=False, token_weights=(EQUAL, EQUAL))
FORCED = replace(PAPER, steps=(1100, 0), forcing=float("inf"), depth_scale=False)
ABLATION = {
    "teacher forcing alone": FORCED,
    "autoregressive": replace(FORCED, forcing=0.25),
    "+ depth scaling": replace(FORCED, forcing=0.25, depth_scale=True),
    "+ weighted cls": replace(
        FORCED, forcing=0.25, depth_scale=True, token_weights=SurrogateSettings().token_weights[1:] * 2
    ),
    "+ stage 2": replace(PAPER, token_weights=SurrogateSettings().token_weights),
    "+ errors over the variance": replace(SHORT, optimizer="adamw", learning_rate=4e-3),
    "+ Muon": SHORT,
    "the last, with fresh blocks": replace(SHORT, init="fresh", layer_scale=0.1),
    "the last but one, without stage 1": replace(SHORT, steps=(0, 1100)),
}


def one(kind: str, name: str, folder: Path, **options: Any) -> dict[str, Any]:
    """Return the scores of one fit, as kept or anew."""
    import torch

    torch.set_num_threads(1)
    kept = folder / f"{kind}-{name}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    twin = options.pop("twin", None)
    model = depthflow.datasets.digits_vit(trained=twin is None, seed=twin or 0)
    train, test = depthflow.datasets.digits("train"), depthflow.datasets.digits("test")
    surrogate = depthflow.fit_surrogate(model, train.images, progress=False, **options)
    scores = depthflow.score_surrogate(
        surrogate, model, test.images, labels=test.labels, train_inputs=train.images, train_labels=train.labels,
        progress=False,
    )  # fmt: skip
    found = {
        "phases": surrogate.phases.tolist(),
        "r2": scores.r2.sel(token_type="all").values.tolist(),
        "relative_error": scores.relative_error.sel(token_type="all").values.tolist(),
        "seconds": surrogate.history["seconds"][-1],
        **{name: float(value) for name, value in scores.data_vars.items() if value.ndim == 0},
    }
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found))
    print(f"  {kind} {name}: {found['seconds']:.0f} s, accuracy {found['surrogate_accuracy']:.4f}", flush=True)
    return found


def run(pool: ProcessPoolExecutor, kind: str, folder: Path, fits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the scores of all fits of a kind, by name."""
    waiting = {name: pool.submit(one, kind, name, folder, **options) for name, options in fits.items()}
    return {name: future.result() for name, future in waiting.items()}


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Return mean and range of several seeds."""
    array = np.array(list(values))
    return f"{array.mean():.{digits}f} [{array.min():.{digits}f}, {array.max():.{digits}f}]"


def table(title: str, columns: list[str], rows: Iterable[list[str]]) -> None:
    """Print a table."""
    print(f"\n**{title}**\n\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


def summary(name: str, fits: list[dict[str, Any]]) -> list[str]:
    """Return the row of one way of fitting over its seeds."""
    return [
        name,
        spread(fit["surrogate_accuracy"] for fit in fits),
        spread(fit["recovery"] for fit in fits),
        spread(min(fit["r2"]) for fit in fits),
        spread(fit["r2"][-1] for fit in fits),
        spread(fit["epsilon"] for fit in fits),
    ]


COLUMNS = ["", "accuracy", "recovery", "least R²", "last R²", "ε"]


def curve(pool: ProcessPoolExecutor, folder: Path) -> None:
    """Print the recurrence curve, R² by depth and the baselines; draw the curve."""
    kept, seeds = folder / "curve", range(CURVE_SEEDS)
    run(
        pool,
        "curve",
        folder,
        {
            f"{k}-{seed}": {"n_phases": k, "seed": seed, "checkpoint": kept / f"k{k}-seed{seed}"}
            for k in CURVE
            for seed in seeds
        },
    )
    train, test = depthflow.datasets.digits("train"), depthflow.datasets.digits("test")
    ds = depthflow.recurrence_curve(
        depthflow.datasets.digits_vit(),
        train.images,
        n_phases=CURVE,
        seeds=seeds,
        labels=train.labels,
        test_inputs=test.images,
        test_labels=test.labels,
        checkpoint=kept,
        progress=False,
    )
    scores = ("surrogate_accuracy", "recovery", "surrogate_probe_accuracy", "agreement", "epsilon")
    rows = [[f"k = {k}", *(spread(ds[name].sel(n_phases=k).values) for name in scores)] for k in CURVE]
    table("Recurrence curve, three seeds", ["", "accuracy", "recovery", "probe accuracy", "agreement", "ε"], rows)
    print("\nteacher: accuracy", float(ds.teacher_accuracy[0, 0]), "probe", float(ds.teacher_probe_accuracy[0, 0]))
    for name, title in (("r2", "R²"), ("relative_error", "Relative error")):
        for kind in ds.token_type.values:
            least = ds[name].sel(token_type=kind).mean("seed")
            rows = [[f"k = {k}", *(f"{value:.3f}" for value in least.sel(n_phases=k).values)] for k in CURVE]
            table(f"{title} by depth, {kind}, mean of the seeds", ["", *map(str, ds.depth.values)], rows)
    least = ds.r2.sel(token_type="all").min("depth")
    table("Least R² over depths", ["", "R²"], [[f"k = {k}", spread(least.sel(n_phases=k).values)] for k in CURVE])
    rows = []
    for k in CURVE:
        for base in ds.baseline.values:
            one_of = ds.isel(seed=0).sel(n_phases=k, baseline=base)
            numbers = (
                one_of.baseline_accuracy,
                one_of.baseline_epsilon,
                one_of.baseline_r2.sel(token_type="all").min(),
            )
            rows.append([f"k = {k}, {base}", *(f"{float(number):.3f}" for number in numbers)])
    table("Baselines", ["", "accuracy", "ε", "least R²"], rows)
    table("Phases", ["", "phases"], [[f"k = {k}", str(ds.phase.sel(n_phases=k).values[0].tolist())] for k in CURVE])
    print("\nseconds a fit:", spread(ds.seconds.values.ravel(), 0))
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for axes, variable in zip(figure.subplots(1, 2), ("epsilon", "recovery"), strict=True):
        depthflow.plot.recurrence_curve(ds, ax=axes, variable=variable)
    figure.savefig(folder / "recurrence_curve.png", dpi=200, bbox_inches="tight")


def controls(pool: ProcessPoolExecutor, folder: Path) -> None:
    """Print max-cut partitions against random ones."""
    ways: dict[str, dict[str, Any]] = {
        "max-cut": {},
        "random contiguous": {"phases": "random"},
        "random scattered": {"phases": "random", "contiguous": False},
    }
    fits = {
        f"{k}-{way}-{seed}": {"n_phases": k, "seed": seed, "settings": SHORTEST, **options}
        for k in CONTROL_PHASES
        for way, options in ways.items()
        for seed in range(CONTROL_SEEDS)
    }
    found = run(pool, "controls", folder, fits)
    rows = [
        summary(f"k = {k}, {way}", [found[f"{k}-{way}-{seed}"] for seed in range(CONTROL_SEEDS)])
        for k in CONTROL_PHASES
        for way in ways
    ]
    table("Partitions, ten seeds, 550 steps", COLUMNS, rows)


def ablation(pool: ProcessPoolExecutor, folder: Path) -> None:
    """Print what each part of the training adds at k = 3."""
    fits = {
        f"{number}-{seed}": {"n_phases": 3, "seed": seed, "settings": settings}
        for number, settings in enumerate(ABLATION.values())
        for seed in range(ABLATION_SEEDS)
    }
    found = run(pool, "ablation", folder, fits)
    rows = [
        summary(way, [found[f"{number}-{seed}"] for seed in range(ABLATION_SEEDS)])
        for number, way in enumerate(ABLATION)
    ]
    table("Ablation at k = 3, three seeds, 1,100 steps", COLUMNS, rows)


def twins(pool: ProcessPoolExecutor, folder: Path) -> None:
    """Print surrogates of untrained models."""
    fits = {
        f"{k}-{twin}": {"n_phases": k, "twin": twin, "settings": SHORTEST}
        for k in (2, 3)
        for twin in range(1, TWINS + 1)
    }
    found = run(pool, "twins", folder, fits)
    rows = [
        [cells[0], *cells[3:]]
        for k in (2, 3)
        for cells in [summary(f"k = {k}", [found[f"{k}-{t}"] for t in range(1, TWINS + 1)])]
    ]
    table("Untrained teachers, 550 steps", [COLUMNS[0], *COLUMNS[3:]], rows)


PARTS: dict[str, Callable[[ProcessPoolExecutor, Path], None]] = {
    "curve": curve, "controls": controls, "ablation": ablation, "twins": twins,
}  # fmt: skip


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--folder", type=Path, default=Path("findings-surrogates"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for part in arguments.parts:
            PARTS[part](pool, arguments.folder)


if __name__ == "__main__":
    main()
