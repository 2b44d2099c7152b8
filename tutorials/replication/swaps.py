"""Run each block in every other's place, in trained and untrained models, within phases and between them.

python -m tutorials.replication.swaps [--seeds 5] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import depthflow
from tutorials.replication.common import model_of, models, publish, run, study_from

if TYPE_CHECKING:
    import xarray as xr

    from tutorials.replication.common import Study

SEEDS = 5
EARLY = 3
"""Blocks whose replacement does most, left out of a second comparison."""
SAMPLES = 1024


def accuracies(found: xr.Dataset) -> dict[str, float]:
    """Return the mean accuracy after swaps within and between phases, of all blocks and without the early ones."""
    phase = found.phase.values
    same, off = np.equal.outer(phase, phase), ~np.eye(len(phase), dtype=bool)
    late = np.minimum.outer(np.arange(len(phase)), np.arange(len(phase))) >= EARLY
    return {
        f"{where}, {which}": float(found.accuracy.values[chosen & of].mean())
        for where, chosen in (("within", same & off), ("between", ~same))
        for which, of in (("all", off), ("late", off & late))
    }


def model(study: Study, twin: int | None) -> dict[str, Any]:
    """Return what every swap does to one model."""
    net = model_of(study, twin).to(study.device)
    data = study.samples("test")
    images, labels = data.images[:SAMPLES], data.labels[:SAMPLES]
    phases = depthflow.phases(depthflow.record(net, images, device=study.device, progress=False))
    found = depthflow.swap_blocks(
        net, images, labels=labels, phases=phases, batch_size=120, device=study.device, progress=False
    )
    return {
        "boundary": phases.boundary.values.tolist(),
        "within": float(found.within_effect),
        "between": float(found.between_effect),
        **{
            name: [float(found[f"{name}{end}"]) for end in ("", "_low", "_high")]
            for name in ("difference", "matched_difference")
        },
        "effect": found.effect.values.round(4).tolist(),
        "accuracy": found.accuracy.values.round(4).tolist(),
        "accuracy_unswapped": float(found.accuracy_unswapped),
        "accuracies": accuracies(found),
    }


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    publish(
        study,
        "swaps",
        settings={"samples": SAMPLES, "early_blocks": EARLY, "seeds": list(seeds)},
        spread="95 % interval over resampled test images for one model; least and greatest over untrained twins",
        values=run(study, "swaps", model, models(seeds)),
    )


if __name__ == "__main__":
    main()
