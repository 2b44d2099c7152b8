"""Fit the bundled surrogate, two blocks in place of the digits model's twelve, score it, and write it.

    python tutorials/training/digits_surrogate.py [--steps 200 4000] [--seed 0] [--output FOLDER]

About two minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import depthflow

KEPT_EVERY = 10
"""Of the history, which has an entry every ten steps, this share is shipped."""


def main() -> None:
    """Fit, score on the unseen images, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs=2, default=depthflow.SurrogateSettings().steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("depthflow/data/digits_surrogate"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one order of summation, so that a seed gives the same weights on any machine size
    model = depthflow.datasets.digits_vit()
    train, test = depthflow.datasets.digits("train"), depthflow.datasets.digits("test")
    settings = depthflow.SurrogateSettings(steps=tuple(arguments.steps))
    surrogate = depthflow.fit_surrogate(model, train.images, n_phases=2, settings=settings, seed=arguments.seed)
    scores = depthflow.score_surrogate(
        surrogate,
        model,
        test.images,
        labels=test.labels,
        train_inputs=train.images,
        train_labels=train.labels,
        progress=False,
    )
    surrogate.history = {
        name: [round(value, 6) for value in values[KEPT_EVERY - 1 :: KEPT_EVERY]] if len(values) > 100 else values
        for name, values in surrogate.history.items()
    }
    surrogate.save_pretrained(arguments.output)
    print(scores)


if __name__ == "__main__":
    main()
