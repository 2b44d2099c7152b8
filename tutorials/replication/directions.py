"""Measure similarity, phases, convergence, coherence, ranks, basins and linear maps of trained and untrained models.

python -m tutorials.replication.directions [--seeds 5] [--data cifar10 --root FOLDER --device cuda] [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import depthflow
from tutorials.replication.common import by_depth, model_of, models, publish, run, study_from, summary

if TYPE_CHECKING:
    import xarray as xr

    from tutorials.replication.common import Study

SEEDS = 5
METRICS = ("cosine", "cka")


def curves(traj: xr.DataArray) -> dict[str, Any]:
    """Return every curve over depth or blocks: the mean over samples, with its interval."""
    found: dict[str, Any] = {}
    for kind in ("cls", "patch"):
        paths = depthflow.convergence(traj, tokens=kind)
        for variable in ("alignment", "speed"):
            found[f"{variable}, {kind}"] = by_depth(paths[variable].mean("token"))
    found["coherence"] = by_depth(depthflow.coherence(traj).coherence)
    for name, center in (("stable rank", False), ("centered stable rank", True)):
        found[name] = by_depth(depthflow.update_spectra(traj, center=center).stable_rank)
    return found


def phases(traj: xr.DataArray) -> dict[str, Any]:
    """Return the phases that the default rule finds, beside shuffled depth, and the similarity in two metrics."""
    found = depthflow.phases(traj, n_boot=200, n_null=999)
    return {
        "boundary": found.boundary.values.tolist(),
        "contrast": [float(found[name]) for name in ("contrast", "contrast_low", "contrast_high")],
        "p_value": float(found.p_value),
        "null": np.percentile(found.null_contrast, (2.5, 50, 97.5)).tolist(),
        "boundary_probability": found.boundary_probability.values.tolist(),
        "similarity": {
            metric: depthflow.similarity(traj, metric=metric).values.round(4).tolist() for metric in METRICS
        },
    }


def basins(traj: xr.DataArray, count: int) -> dict[str, Any]:
    """Return how far clusters of final directions agree with the classes, and when samples are committed."""
    found = depthflow.basins(traj, count)
    return {
        "ari": found.ari.values.tolist(),
        "silhouette": summary(found.silhouette.values),
        "commitment_depth": summary(found.commitment_depth.values),
        "committed": [float((found.commitment_depth <= depth).mean()) for depth in range(found.sizes["depth"])],
    }


def linear_maps(traj: xr.DataArray) -> dict[str, Any]:
    """Return the errors of one operator and its baselines on held-out samples."""
    found = {}
    for kind in ("cls", "patch"):
        maps = depthflow.dmd(
            traj[::2], span=(1, traj.sizes["depth"] - 1), tokens=kind, ridge=1e-6, test=traj[1::2]
        ).isel(token_type=0)
        names = ("error", "error_identity", "error_endpoint", "error_per_step")
        found[kind] = {name: maps[name].values.tolist() for name in names}
        found[kind]["largest_eigenvalue"] = float(np.abs(maps.eigenvalue.values).max())
    return found


def model(study: Study, twin: int | None) -> dict[str, Any]:
    """Return what one model's states say."""
    net = model_of(study, twin)
    traj = study.record(net)
    return {
        "accuracy": study.accuracy(net.cpu(), "test"),
        "phases": phases(traj),
        "curves": curves(traj),
        "basins": basins(traj, study.plan.vit.classes),
        "linear_maps": linear_maps(traj),
    }


def main() -> None:
    """Run, write."""
    study = study_from(__doc__ or "")
    seeds = study.count(SEEDS)
    found = run(study, "directions", model, models(seeds))
    publish(
        study,
        "directions",
        settings={"basins": study.plan.vit.classes, "seeds": list(seeds)},
        spread="95 % interval over resampled test images for one model; least and greatest over untrained twins",
        values=found,
    )


if __name__ == "__main__":
    main()
