"""Print the tables of `docs/findings.md`: the bundled digits model beside five untrained twins.

python tutorials/findings.py
"""

from __future__ import annotations

import xarray as xr

import depthflow

TWINS = 5


def line(name: str, values: xr.DataArray, digits: int = 2) -> str:
    """Return one row of a Markdown table."""
    return f"| {name} | " + " | ".join(f"{float(value):.{digits}f}" for value in values) + " |"


def over_twins(results: list[xr.DataArray]) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return mean, least and greatest over the twins."""
    stacked = xr.concat(results, "twin", join="exact")
    return stacked.mean("twin"), stacked.min("twin"), stacked.max("twin")


def table(title: str, along: str, trained: xr.DataArray, twins: list[xr.DataArray]) -> None:
    """Print the trained model's curve, and the twins' mean and range."""
    mean, low, high = over_twins(twins)
    print(f"\n**{title}**\n\n| {along} | " + " | ".join(map(str, trained[along].values)) + " |")
    print("|---|" + "---|" * trained.size)
    print(line("trained", trained))
    print(line("untrained, mean", mean))
    print(line("untrained, least", low))
    print(line("untrained, greatest", high))


def curves(traj: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return every curve of the page, as a mean over samples, by its title."""
    found = {}
    for kind in ("cls", "patch"):
        paths = depthflow.convergence(traj, tokens=kind)
        for variable in ("alignment", "speed"):
            found[f"{variable}, {kind}"] = paths[variable].mean(["sample", "token"])
    found["coherence of the patches"] = depthflow.coherence(traj).coherence.mean("sample")
    for center in (False, True):
        spectra = depthflow.update_spectra(traj, center=center)
        found[f"stable rank, center={center}"] = spectra.stable_rank.mean("sample")
    for count in (10, None):
        basins = depthflow.basins(traj, count)
        found |= {f"{score}, n_basins={count}": basins[score] for score in ("ari", "nmi")}
    return found


def account(name: str, traj: xr.DataArray) -> None:
    """Print what is one number a model: phases, basins, silhouettes, commitment."""
    phases = depthflow.phases(traj, n_boot=200, n_null=999)
    print(
        f"{name}: phases end at {phases.boundary.values.tolist()}, contrast {float(phases.contrast):.3f} "
        f"[{float(phases.contrast_low):.3f}, {float(phases.contrast_high):.3f}], p = {float(phases.p_value):.3f}"
    )
    for count in (10, None):
        basins = depthflow.basins(traj, count)
        print(
            f"  n_basins={count}: {basins.sizes['basin']} basins, silhouette {float(basins.silhouette.mean()):.2f}, "
            f"median commitment depth {float(basins.commitment_depth.median()):g}"
        )


def main() -> None:
    """Record, measure, print."""
    data = depthflow.datasets.digits("test")
    models = [depthflow.datasets.digits_vit()]
    models += [depthflow.datasets.digits_vit(trained=False, seed=seed) for seed in range(TWINS)]
    trajs = [depthflow.record(model, data.images, labels=data.labels, progress=False) for model in models]
    trained, *twins = [curves(traj) for traj in trajs]
    for title, curve in trained.items():
        table(title, str(curve.dims[0]), curve, [twin[title] for twin in twins])
    print()
    for number, traj in enumerate(trajs):
        account("trained" if number == 0 else f"untrained {number}", traj)


if __name__ == "__main__":
    main()
