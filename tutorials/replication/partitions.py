"""Fit surrogates to max-cut partitions of depth, and to random ones: runs of depth, and scattered blocks.

python -m tutorials.replication.partitions [--seeds 10] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tutorials.replication.common import fitted, publish, run, shown, study_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tutorials.replication.common import Study

SEEDS = 10
COUNTS = (2, 3, 4)
WAYS: dict[str, dict[str, Any]] = {
    "max-cut": {},
    "random, contiguous": {"phases": "random"},
    "random, scattered": {"phases": "random", "contiguous": False},
}


def partition(study: Study, way: str, n_phases: int, seed: int) -> dict[str, Any]:
    """Return the scores of one fit."""
    return fitted(study, study.teacher(), n_phases=n_phases, seed=seed, settings=study.plan.surrogate, **WAYS[way])


def fits(study: Study, seeds: range, counts: Sequence[int], ways: Sequence[str]) -> dict[str, Any]:
    """Return the scores of all fits: way, number of phases, seed."""
    pieces = {
        f"{way}, k={k}, seed {seed}": {"way": way, "n_phases": k, "seed": seed}
        for seed in seeds
        for k in counts
        for way in ways
    }
    found = run(study, "partitions", partition, pieces)
    return {way: {str(k): [found[f"{way}, k={k}, seed {seed}"] for seed in seeds] for k in counts} for way in ways}


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    publish(
        study,
        "partitions",
        settings={"surrogate": shown(study.plan.surrogate), "seeds": list(seeds)},
        spread="least and greatest over seeds of the fit; the seed also draws the random partition",
        values=fits(study, seeds, COUNTS, tuple(WAYS)),
    )


if __name__ == "__main__":
    main()
