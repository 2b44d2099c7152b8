"""Train teachers with more and less stochastic depth, measure their blocks' similarity, and fit surrogates to them.

python -m tutorials.replication.stochastic_depth [--seeds 3] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import depthflow
from tutorials.replication.common import fitted, publish, run, shown, study_from

if TYPE_CHECKING:
    import xarray as xr

    from depthflow.models.vit import VisionTransformer
    from tutorials.replication.common import Study

SEEDS = 3
RATES = (0.0, 0.1, 0.3, 0.5)
COUNTS = (2, 3)


def likeness(traj: xr.DataArray, n_phases: int) -> dict[str, Any]:
    """Return the blocks' mean similarity: of all pairs, within and between the best phases, and the contrast."""
    matrix = depthflow.similarity(traj).values
    phases = depthflow.phases(traj, n_phases)
    same = np.equal.outer(phases.phase.values, phases.phase.values)
    apart = ~np.eye(len(matrix), dtype=bool)
    return {
        "boundary": phases.boundary.values.tolist(),
        "all": float(matrix[apart].mean()),
        "within": float(matrix[same & apart].mean()),
        "between": float(matrix[~same].mean()),
        "contrast": float(phases.contrast),
        "neighbours": float(np.diag(matrix, 1).mean()),
    }


def teacher(study: Study, rate: float | None, seed: int) -> dict[str, Any]:
    """Return what one teacher's blocks are like, and how well surrogates follow them; without a rate, untrained."""
    return account(study, study.untrained(seed) if rate is None else study.trained(seed, rate))


def account(study: Study, model: VisionTransformer) -> dict[str, Any]:
    """Return how accurate a model is, what its blocks are like, and how well surrogates follow them."""
    accuracy = {split: study.accuracy(model, split) for split in ("train", "test")}
    traj = study.record(model)
    return {
        "accuracy": accuracy,
        "likeness": {str(k): likeness(traj, k) for k in COUNTS},
        "fits": {str(k): fitted(study, model, n_phases=k, seed=0, settings=study.plan.surrogate) for k in COUNTS},
    }


def name(rate: float | None, seed: int) -> str:
    """Return what to call a teacher."""
    return f"untrained, seed {seed}" if rate is None else f"drop {rate:g}, seed {seed}"


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    kinds: list[float | None] = [*RATES, None]
    pieces = {name(rate, seed): {"rate": rate, "seed": seed} for seed in seeds for rate in kinds}
    found = run(study, "stochastic_depth", teacher, pieces)
    publish(
        study,
        "stochastic_depth",
        settings={
            "teacher": shown(study.plan.vit),
            "epochs": study.plan.epochs,
            "surrogate": shown(study.plan.surrogate),
            "seeds": list(seeds),
        },
        spread="least and greatest over seeds of the teacher",
        values={
            "untrained" if rate is None else f"{rate:g}": [found[name(rate, seed)] for seed in seeds] for rate in kinds
        },
    )


if __name__ == "__main__":
    main()
