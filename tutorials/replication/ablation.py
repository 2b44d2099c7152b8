"""Fit surrogates of three phases with the published training built up part by part, at equal steps.

python -m tutorials.replication.ablation [--seeds 3] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from depthflow import SurrogateSettings
from tutorials.replication.common import fitted, publish, run, shown, study_from

if TYPE_CHECKING:
    from tutorials.replication.common import Study

SEEDS = 3


def ways(study: Study) -> dict[str, SurrogateSettings]:
    """Return the settings of every way of training, each with one part more than the last but for the last two."""
    usual, vit = study.plan.surrogate, study.plan.vit
    each_token = {"cls": 1.0, "patch": float((vit.image_size // vit.patch_size) ** 2)}
    steps = sum(usual.steps)
    weights = SurrogateSettings().token_weights
    plain = replace(
        usual, optimizer="adamw", learning_rate=4e-3, scale_by_variance=False, token_weights=(each_token, each_token)
    )
    forced = replace(plain, steps=(steps, 0), forcing=float("inf"), depth_scale=False)
    autoregressive = replace(forced, forcing=0.25)
    scaled = replace(autoregressive, depth_scale=True)
    return {
        "teacher forcing alone": forced,
        "autoregressive": autoregressive,
        "+ depth scaling": scaled,
        "+ weighted cls": replace(scaled, token_weights=weights[1:] * 2),
        "+ stage 2": replace(plain, token_weights=weights),
        "+ errors over the variance": replace(usual, optimizer="adamw", learning_rate=4e-3),
        "+ Muon: the defaults, cut short": usual,
        "the same, with fresh blocks": replace(usual, init="fresh", layer_scale=0.1),
        "the defaults, without stage 1": replace(usual, steps=(0, steps)),
    }


def trained(study: Study, way: str, seed: int) -> dict[str, Any]:
    """Return the scores of one fit."""
    return fitted(study, study.teacher(), n_phases=3, seed=seed, settings=ways(study)[way])


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    settings = ways(study)
    pieces = {f"{way}, seed {seed}": {"way": way, "seed": seed} for seed in seeds for way in settings}
    found = run(study, "ablation", trained, pieces)
    publish(
        study,
        "ablation",
        settings={"n_phases": 3, "ways": {way: shown(of) for way, of in settings.items()}, "seeds": list(seeds)},
        spread="least and greatest over seeds of the fit",
        values={way: [found[f"{way}, seed {seed}"] for seed in seeds] for way in settings},
    )


if __name__ == "__main__":
    main()
