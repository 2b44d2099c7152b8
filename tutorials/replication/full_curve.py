"""Fit surrogates of 1, 2, 3, 4 and 6 blocks with the default settings, and draw `docs/pictures/recurrence_curve.png`.

python -m tutorials.replication.full_curve [--seeds 3] [--data cifar10 --root FOLDER --device cuda] [--quick]

About two minutes a fit on one quiet core.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

import depthflow
from tutorials.replication.common import study_from
from tutorials.replication.recurrence import COUNTS, SEEDS

PICTURE = Path("docs/pictures/recurrence_curve.png")


def main() -> None:
    """Run, draw."""
    study = study_from(__doc__ or "")
    train, test = study.samples("train"), study.samples("test")
    curve = depthflow.recurrence_curve(
        study.teacher().to(study.device),
        train.images,
        n_phases=COUNTS,
        seeds=study.count(SEEDS),
        labels=train.labels,
        test_inputs=test.images,
        test_labels=test.labels,
        settings=study.plan.surrogate if study.quick else None,
        checkpoint=study.folder / "full_curve",
        device=study.device,
    )
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for axes, variable in zip(figure.subplots(1, 2), ("epsilon", "recovery"), strict=True):
        depthflow.plot.recurrence_curve(curve, ax=axes, variable=variable)
    shipped = study.data == "digits" and not study.quick
    figure.savefig(PICTURE if shipped else study.folder / PICTURE.name, dpi=200, bbox_inches="tight")


if __name__ == "__main__":
    main()
