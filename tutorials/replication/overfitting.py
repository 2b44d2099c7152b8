"""Train teachers on fewer and fewer images, for as many steps, measure their blocks' similarity, and fit surrogates.

python -m tutorials.replication.overfitting [--seeds 3] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tutorials.replication.common import publish, run, shown, study_from
from tutorials.replication.stochastic_depth import account

if TYPE_CHECKING:
    from tutorials.replication.common import Study

SEEDS = 3
SHARES = (1, 4, 16)
"""One in so many training images is trained on."""


def teacher(study: Study, one_in: int, seed: int) -> dict[str, Any]:
    """Return what the blocks of a teacher of one in so many images are like, and how well surrogates follow them.

    Surrogates are fitted to all training images, as ever.
    """
    model = study.trained(seed, 0.0, one_in)
    return account(study, model) | {"seen_accuracy": study.accuracy(model, "train", one_in)}


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    pieces = {f"one in {share}, seed {seed}": {"one_in": share, "seed": seed} for seed in seeds for share in SHARES}
    found = run(study, "overfitting", teacher, pieces)
    publish(
        study,
        "overfitting",
        settings={
            "teacher": shown(study.plan.vit) | {"stochastic_depth": 0.0},
            "epochs": study.plan.epochs,
            "images": {str(share): len(study.samples("train").images[::share]) for share in SHARES},
            "surrogate": shown(study.plan.surrogate),
            "seeds": list(seeds),
        },
        spread="least and greatest over seeds of the teacher",
        values={str(share): [found[f"one in {share}, seed {seed}"] for seed in seeds] for share in SHARES},
    )


if __name__ == "__main__":
    main()
