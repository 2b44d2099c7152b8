"""Print the tables of `docs/findings.md` on pushes, Jacobians, swaps and linear maps: the model beside its twins.

python tutorials/findings_dynamics.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import depthflow
from depthflow.resample import mean_interval

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

TWINS = 5
ANGLE = 0.05
PUSHES = (0, 3, 6, 9)
LINEARISED = 64


def heading(title: str, columns: list[str]) -> None:
    """Print a table's title and head."""
    print(f"\n**{title}**\n\n| | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))


def row(name: str, values: np.ndarray, digits: int = 2) -> None:
    """Print one line of a table; what is not defined is a dash."""
    print(f"| {name} | " + " | ".join("–" if np.isnan(value) else f"{value:.{digits}f}" for value in values) + " |")


def title(number: int) -> str:
    """Return what to call a model."""
    return f"untrained {number}" if number else "trained"


def beside_twins(name: str, curves: list[np.ndarray], digits: int = 2) -> None:
    """Print a quantity of the trained model, and its range over the twins."""
    low, high = np.min(curves[1:], axis=0), np.max(curves[1:], axis=0)
    row(f"{name}, trained", curves[0], digits)
    row(f"{name}, untrained, least", low, digits)
    row(f"{name}, untrained, greatest", high, digits)


def pushes(models: list[nn.Module], images: np.ndarray, trajs: list[xr.DataArray]) -> None:
    """Print deviation curves, recoveries and basin stabilities."""
    basins = [depthflow.basins(traj, 10) for traj in trajs]
    for kind in ("cls", "patch"):
        results = [
            [
                depthflow.perturb(model, images, depth=depth, angle=ANGLE, tokens=kind, batch_size=360, progress=False)
                for depth in PUSHES
            ]
            for model in models
        ]
        heading(f"gain after a push of {kind} by {ANGLE} rad, by depth", [str(d) for d in range(13)])
        for index, depth in enumerate(PUSHES):
            curves = [np.sqrt((of[index].gain ** 2).mean(["draw", "sample"])).values for of in results]
            for curve in curves:
                curve[:depth] = np.nan
            beside_twins(f"pushed at {depth}", curves)
        heading(f"recovery of {kind}, mean over samples [95 % interval]", [f"pushed at {d}" for d in PUSHES])
        for number, of in enumerate(results):
            shown = ["{:.3f} [{:.3f}, {:.3f}]".format(*mean_interval(result.recovery.values)) for result in of]
            print(f"| {title(number)} | " + " | ".join(shown) + " |")
        heading(f"basin stability after a push of {kind}, n_basins=10", [f"pushed at {d}" for d in PUSHES])
        for number, of in enumerate(results):
            stable = [depthflow.basin_stability(result, basins[number]) for result in of]
            shown = [
                f"mean {float(one.stable_share.mean()):.3f}, least basin {float(one.basin_stability.min()):.3f} "
                f"[{float(one.low[int(one.basin_stability.values.argmin())]):.2f}, "
                f"{float(one.high[int(one.basin_stability.values.argmin())]):.2f}]"
                for one in stable
            ]
            print(f"| {title(number)} | " + " | ".join(shown) + " |")
            if number == 0:
                each = [
                    f"pushed at {d}: {one.basin_stability.values.round(3).tolist()}"
                    for d, one in zip(PUSHES, stable, strict=True)
                ]
        print("\ntrained, each basin, " + "; ".join(each))


def pushes_towards_classes(models: list[nn.Module], data: depthflow.datasets.Digits) -> None:
    """Print recoveries from pushes towards another class; at depth 0 the class token is the same for all."""
    heading(f"recovery of cls after {ANGLE} rad towards another class", [f"pushed at {d}" for d in PUSHES[1:]])
    for number, model in enumerate(models):
        shown = []
        for depth in PUSHES[1:]:
            found = depthflow.perturb(
                model,
                data.images,
                labels=data.labels,
                depth=depth,
                angle=ANGLE,
                directions="other_class",
                batch_size=360,
                progress=False,
            )
            shown.append("{:.3f} [{:.3f}, {:.3f}]".format(*mean_interval(found.recovery.values)))
        print(f"| {title(number)} | " + " | ".join(shown) + " |")


def jacobians(models: list[nn.Module], images: np.ndarray) -> None:
    """Print the directional singular values and gains by block and from depth 0."""
    for span in ("blocks", "cumulative"):
        results = [
            depthflow.jacobian(model, images[:LINEARISED], span=span, batch_size=16, progress=False) for model in models
        ]
        heading(
            f"directional Jacobian of cls, span={span}, median over {LINEARISED} samples",
            [str(d) for d in range(1, 13)],
        )
        beside_twins("largest singular value", [of.singular_value[..., 0].median("sample").values for of in results])
        beside_twins("rms gain", [of.rms_gain.median("sample").values for of in results])
        beside_twins(
            "share of samples with every value below 1",
            [(of.singular_value[..., 0] < 1).mean("sample").values for of in results],
        )
        beside_twins("nonnormality of J", [of.nonnormality.median("sample").values for of in results])
        beside_twins("symmetry of J", [of.symmetry.median("sample").values for of in results])


def swaps(models: list[nn.Module], data: depthflow.datasets.Digits, trajs: list[xr.DataArray]) -> None:
    """Print effects within and between phases, and what each swap of the trained model does."""
    off = ~np.eye(12, dtype=bool)
    columns = ["phases end at", "within", "between", "difference [95 % interval]", "at equal distance", "accuracy"]
    heading("swaps: effects in rad", [*columns, "over swaps"])
    results = []
    for number, (model, traj) in enumerate(zip(models, trajs, strict=True)):
        phases = depthflow.phases(traj)
        found = depthflow.swap_blocks(
            model, data.images, labels=data.labels, phases=phases, batch_size=120, progress=False
        )
        results.append(found)
        shown = [
            f"{float(found[name]):.3f} [{float(found[f'{name}_low']):.3f}, {float(found[f'{name}_high']):.3f}]"
            for name in ("difference", "matched_difference")
        ]
        print(
            f"| {title(number)} | {phases.boundary.values.tolist()} | {float(found.within_effect):.3f} | "
            f"{float(found.between_effect):.3f} | {' | '.join(shown)} | {float(found.accuracy_unswapped):.3f} | "
            f"{float(found.accuracy.values[off].mean()):.3f} |"
        )
    trained = results[0]
    for variable, what in (("effect", "effect of a swap, rad"), ("accuracy", "accuracy after a swap")):
        heading(f"{what}: block replaced (rows), block put in (columns)", [str(d) for d in range(1, 13)])
        for block in range(12):
            row(str(block + 1), trained[variable].values[block])
    phase, block = trained.phase.values, np.arange(12)
    same = phase[:, None] == phase
    late = np.minimum.outer(block, block) >= 3
    print()
    for name, chosen in (("within", same & off), ("between", ~same)):
        print(
            f"accuracy {name} phases {trained.accuracy.values[chosen].mean():.3f}; without blocks 1 to 3 "
            f"{trained.accuracy.values[chosen & late].mean():.3f}, effect there "
            f"{trained.effect.values[chosen & late].mean():.3f} rad"
        )


def linear_maps(trajs: list[xr.DataArray]) -> None:
    """Print the errors of one operator and its baselines on held-out samples."""
    for kind in ("cls", "patch"):
        results = [
            depthflow.dmd(traj[::2], span=(1, 12), tokens=kind, ridge=1e-6, test=traj[1::2]).isel(token_type=0)
            for traj in trajs
        ]
        heading(
            f"relative error of linear maps, {kind}, held out, by horizon", [str(h) for h in results[0].horizon.values]
        )
        for name in ("error_identity", "error", "error_endpoint", "error_per_step"):
            beside_twins(name, [of[name].values for of in results])
        moduli = [np.abs(of.eigenvalue.values) for of in results]
        least, greatest = min(of.max() for of in moduli[1:]), max(of.max() for of in moduli[1:])
        print(
            f"\nlargest modulus of an eigenvalue {moduli[0].max():.3f} (untrained {least:.3f} to {greatest:.3f}); "
            f"above 1: {int((moduli[0] > 1).sum())} of {len(moduli[0])}"
        )


def main() -> None:
    """Record, push, linearise, swap, fit, print."""
    data = depthflow.datasets.digits("test")
    models = [depthflow.datasets.digits_vit()]
    models += [depthflow.datasets.digits_vit(trained=False, seed=seed) for seed in range(TWINS)]
    trajs = [depthflow.record(model, data.images, labels=data.labels, progress=False) for model in models]
    linear_maps(trajs)
    jacobians(models, data.images)
    pushes(models, data.images, trajs)
    pushes_towards_classes(models, data)
    swaps(models, data, trajs)


if __name__ == "__main__":
    main()
