"""Push states of trained and untrained models, see whether they come back, and linearise their blocks.

python -m tutorials.replication.pushes [--seeds 5] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import depthflow
from tutorials.replication.common import model_of, models, publish, run, study_from, summary

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from tutorials.replication.common import Study

SEEDS = 5
ANGLE = 0.05
DEPTHS = (0, 3, 6, 9)
DRAWS = 4
SAMPLES = 512
LINEARISED = 64


def pushed(study: Study, net: nn.Module, kind: str, depth: int, basins: xr.Dataset) -> dict[str, Any]:
    """Return what a push in random directions at one depth comes to."""
    images = study.samples("test").images[:SAMPLES]
    found = depthflow.perturb(
        net, images, depth=depth, angle=ANGLE, tokens=kind, n_draws=DRAWS, batch_size=360, device=study.device,
        progress=False,
    )  # fmt: skip
    stable = depthflow.basin_stability(found, basins)
    worst = int(stable.basin_stability.values.argmin())
    return {
        "gain": np.sqrt((found.gain**2).mean(["draw", "sample"])).values.tolist(),
        **recoveries(found),
        "stable_share": float(stable.stable_share.mean()),
        "carried_share": float(stable.carried_share.mean()),
        "least_stable_basin": [float(stable[name][worst]) for name in ("basin_stability", "low", "high")],
    }


def recoveries(found: xr.Dataset) -> dict[str, Any]:
    """Return the share of the angle that is gone at the end, what of it would be if no block answered, and the rest."""
    carried = 1 - found.carried_gain.isel(depth=-1).mean("draw")
    named = {"recovery": found.recovery, "carried": carried, "returned": found.recovery - carried}
    return {name: summary(values.values) for name, values in named.items()}


def towards_class(study: Study, net: nn.Module, depth: int) -> dict[str, Any]:
    """Return what a push of the class token towards the mean of another class comes to."""
    data = study.samples("test")
    found = depthflow.perturb(
        net, data.images[:SAMPLES], labels=data.labels[:SAMPLES], depth=depth, angle=ANGLE, directions="other_class",
        batch_size=360, device=study.device, progress=False,
    )  # fmt: skip
    return recoveries(found)


def linearised(study: Study, net: nn.Module, span: str) -> dict[str, Any]:
    """Return medians over samples of what blocks, or all blocks up to a depth, do to small changes of direction."""
    images = study.samples("test").images[: 4 if study.quick else LINEARISED]
    found = depthflow.jacobian(net, images, span=span, batch_size=16, device=study.device, progress=False)
    largest = found.singular_value[..., 0]
    return {
        "largest": largest.median("sample").values.tolist(),
        "rms_gain": found.rms_gain.median("sample").values.tolist(),
        "share_below_one": (largest < 1).mean("sample").values.tolist(),
        "nonnormality": found.nonnormality.median("sample").values.tolist(),
        "symmetry": found.symmetry.median("sample").values.tolist(),
    }


def model(study: Study, twin: int | None) -> dict[str, Any]:
    """Return what becomes of pushes and small changes in one model."""
    net = model_of(study, twin).to(study.device)
    data = study.samples("test")
    traj = depthflow.record(net, data.images[:SAMPLES], device=study.device, progress=False)
    basins = depthflow.basins(traj, study.plan.vit.classes)
    return {
        **{
            f"push of {token}": {str(depth): pushed(study, net, token, depth, basins) for depth in DEPTHS}
            for token in ("cls", "patch")
        },
        "push of cls to another class": {str(depth): towards_class(study, net, depth) for depth in DEPTHS[1:]},
        "jacobian": {span: linearised(study, net, span) for span in ("blocks", "cumulative")},
    }


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    publish(
        study,
        "pushes",
        settings={
            "angle": ANGLE, "depths": list(DEPTHS), "draws": DRAWS, "samples": SAMPLES, "linearised": LINEARISED,
            "seeds": list(seeds),
        },
        spread="95 % interval over resampled test images for one model; least and greatest over untrained twins",
        values=run(study, "pushes", model, models(seeds)),
    )  # fmt: skip


if __name__ == "__main__":
    main()
