"""Train a head anew on the class tokens of surrogates of three phases, beside the model's own head.

python -m tutorials.replication.head [--seeds 3] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import depthflow
from tutorials.replication.common import publish, run, shown, study_from

if TYPE_CHECKING:
    from tutorials.replication.common import Study

SEEDS = 3
SCORES = ("teacher_accuracy", "surrogate_accuracy", "recovery_low", "recovery_high", "teacher_probe_accuracy")
SCORES += ("surrogate_probe_accuracy",)


def heads(study: Study, seed: int) -> dict[str, Any]:
    """Return the accuracies of one surrogate and its teacher, through the teacher's head and through new ones."""
    device: dict[str, Any] = {"device": study.device, "progress": False}
    model, train, test = study.teacher().to(study.device), study.samples("train"), study.samples("test")
    surrogate = depthflow.fit_surrogate(
        model, train.images, n_phases=3, seed=seed, settings=study.plan.surrogate, **device
    )
    scores = depthflow.score_surrogate(
        surrogate,
        model,
        test.images,
        labels=test.labels,
        train_inputs=train.images,
        train_labels=train.labels,
        **device,
    )
    return {name: float(scores[name]) for name in SCORES}


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    found = run(study, "head", heads, {f"seed {seed}": {"seed": seed} for seed in seeds})
    publish(
        study,
        "head",
        settings={"n_phases": 3, "surrogate": shown(study.plan.surrogate), "seeds": list(seeds)},
        spread="least and greatest over seeds of the fit",
        values=list(found.values()),
    )


if __name__ == "__main__":
    main()
