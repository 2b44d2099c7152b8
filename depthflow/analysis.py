"""Run the measures on one trajectory and on its null, and keep the results together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import xarray as xr

from depthflow.errors import ParameterError, StoreError
from depthflow.measures.basins import basins
from depthflow.measures.coherence import coherence
from depthflow.measures.convergence import convergence
from depthflow.measures.phases import phases
from depthflow.measures.spectra import update_spectra
from depthflow.resample import random_directions
from depthflow.schema import PATCH, token_types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

N_BOOT = 200
N_NULL = 999
NULL_BY_CHANCE = "random directions"


@dataclass(frozen=True)
class Analysis:
    """One trajectory's results beside its null's, each measure's Dataset by its name."""

    results: Mapping[str, xr.Dataset]
    null: Mapping[str, xr.Dataset]
    null_name: str


def _coherence(traj: xr.DataArray, seed: int) -> xr.Dataset:
    return coherence(traj, tokens=PATCH if PATCH in token_types(traj) else None)


MEASURES: Mapping[str, Callable[[xr.DataArray, int], xr.Dataset]] = {
    "convergence": lambda traj, seed: convergence(traj),
    "coherence": _coherence,
    "update_spectra": lambda traj, seed: update_spectra(traj),
    "phases": lambda traj, seed: phases(traj, n_boot=N_BOOT, n_null=N_NULL, seed=seed),
    "basins": lambda traj, seed: basins(traj, seed=seed),
}
"""Each measure as an analysis runs it: all defaults, and every interval and null that the measure offers."""


def analyze(
    traj: xr.DataArray,
    *,
    measures: Sequence[str] | None = None,
    null: xr.DataArray | None = None,
    null_name: str = NULL_BY_CHANCE,
    seed: int = 0,
    progress: bool = True,
) -> Analysis:
    """Return every measure of a trajectory, and the same of its null.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory with samples and tokens.
    measures : sequence of str
        Among ``MEASURES``; all by default.
    null : xarray.DataArray
        The null's trajectory, such as the untrained twin's on the same inputs. By default the same states with random
        directions, which keeps their norms.
    null_name : str
        What to call the null.
    seed : int
        Seed of clustering, resampling and shuffling.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    ParameterError
        If a measure is not known.
    """
    from tqdm import tqdm

    chosen = list(MEASURES) if measures is None else list(measures)
    unknown = [name for name in chosen if name not in MEASURES]
    if unknown:
        raise ParameterError(f"analyze knows the measures {', '.join(MEASURES)}; got {unknown[0]!r}.")
    null = random_directions(traj, seed=seed) if null is None else null
    found: list[dict[str, xr.Dataset]] = []
    steps = tqdm(total=2 * len(chosen), desc="analyze", unit="measure", disable=not progress, leave=False)
    with steps:
        for states in (traj, null):
            found.append({})
            for name in chosen:
                found[-1][name] = MEASURES[name](states, seed).compute()
                steps.update()
    return Analysis(found[0], found[1], null_name)


def save(analysis: Analysis, path: Path) -> None:
    """Write all results to a new zarr store: the group ``results`` and the group ``null``, a Dataset a measure in each.

    Read them back with ``xarray.open_datatree(path, engine="zarr", consolidated=False)``.

    Raises
    ------
    StoreError
        If something is at ``path`` already.
    """
    if path.exists():
        raise StoreError(f"{path} exists already and is not overwritten. Remove it, or choose another folder.")
    both = {"results": analysis.results, "null": analysis.null}
    tree = xr.DataTree.from_dict(
        {f"/{group}/{name}": result for group, results in both.items() for name, result in results.items()}
    )
    tree["null"].attrs["null"] = analysis.null_name
    tree.to_zarr(path, mode="w-", zarr_format=3, consolidated=False)
