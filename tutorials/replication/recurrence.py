"""Fit surrogates of 1, 2, 3, 4 and 6 blocks to the teacher; those that `partitions` has fitted are not fitted again.

python -m tutorials.replication.recurrence [--seeds 3] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from tutorials.replication.common import publish, shown, study_from
from tutorials.replication.partitions import fits

SEEDS = 3
COUNTS = (1, 2, 3, 4, 6)
WAY = "max-cut"


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    publish(
        study,
        "recurrence",
        settings={"surrogate": shown(study.plan.surrogate), "seeds": list(seeds)},
        spread="least and greatest over seeds of the fit",
        values=fits(study, seeds, COUNTS, (WAY,))[WAY],
    )


if __name__ == "__main__":
    main()
