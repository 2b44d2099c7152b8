"""Run the measures on one trajectory and on its null, and keep the results together."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import dask
from dask.system import CPU_COUNT

from depthflow.cases import AFTER, EACH, INTERVENTIONS, MEASURES, OF_BLOCKS, Case
from depthflow.errors import ParameterError
from depthflow.lazy import loaded_parts, watched
from depthflow.resample import random_directions
from depthflow.results import GROUPS, NewResults, open_results
from depthflow.schema import check_consecutive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from tqdm import tqdm

    from depthflow.cases import Subject

NULL_BY_CHANCE = "random directions"
TWIN = "untrained twin"
READERS = 8
"""Threads that read a lazy trajectory at most."""


@dataclass(frozen=True)
class Analysis:
    """One trajectory's results beside its null's, each measure's Dataset by its name.

    Attributes
    ----------
    store : Path or None
        Where all of it is written, if it is; large variables are then dask-backed.
    """

    results: Mapping[str, xr.Dataset]
    null: Mapping[str, xr.Dataset]
    null_name: str
    store: Path | None = None


def analyze(
    traj: xr.DataArray,
    *,
    measures: Sequence[str] | None = None,
    subject: Subject | None = None,
    null: xr.DataArray | None = None,
    null_subject: Subject | None = None,
    null_name: str = NULL_BY_CHANCE,
    store: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Analysis:
    """Return every measure of a trajectory, and the same of its null.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory with samples and tokens.
    measures : sequence of str
        Among ``MEASURES`` and, with a ``subject``, ``INTERVENTIONS``; all by default.
    subject : Subject, optional
        The model that ``traj`` is a recording of.
    null : xarray.DataArray
        The null's trajectory, such as the untrained twin's on the same inputs. By default the same states with random
        directions, which keeps their norms.
    null_subject : Subject, optional
        The null's model; needed with ``subject``.
    null_name : str
        What to call the null.
    store : str or Path, optional
        Where to write the results as they come; nothing may be there yet. Of a dask-backed trajectory neither the
        states nor what the measures of single samples make of them is then held in memory, but for a part at a time.
        Without it all results are returned in memory.
    seed : int
        Seed of clustering, resampling, shuffling and pushing.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    ParameterError
        As :func:`known_measures`.
    TrajectoryError
        What the measures raise; before anything is measured, if a measure of blocks lacks consecutive depths.
    StoreError
        If something is at ``store`` already.
    """
    from tqdm import tqdm

    chosen = known_measures(measures, "analyze", model=subject is not None and null_subject is not None)
    null = random_directions(traj, seed=seed) if null is None else null
    if not OF_BLOCKS.isdisjoint(chosen):
        for one in (traj, null):
            check_consecutive(one, "analyze")
    cases = dict(zip(GROUPS, (Case(traj, subject, seed), Case(null, null_subject, seed)), strict=True))
    # Measures differ too much in their time for a forecast.
    look = "{l_bar}{bar}| {elapsed}{postfix}"
    with ExitStack() as stack:
        # Each of dask's threads holds chunks: memory is not to grow with the machine's cores.
        workers = min(READERS, dask.config.get("num_workers", None) or CPU_COUNT)
        stack.enter_context(dask.config.set(num_workers=workers))
        new = None if store is None else stack.enter_context(NewResults(Path(store), null_name))
        bar = stack.enter_context(
            tqdm(total=2 * len(chosen), desc="analyze", bar_format=look, disable=not progress, leave=False)
        )
        for group, case in cases.items():
            left, whose = chosen, f" of {null_name}" if group == "null" else ""
            if new is not None and case.lazy:
                each = [name for name in chosen if name in EACH]
                left = [name for name in chosen if name not in each]
                bar.set_description(", ".join(each) + whose)
                _measure_parts(case, each, new, group, bar)
            for name in left:
                bar.set_description(name + whose)
                result = {**MEASURES, **INTERVENTIONS}[name](replace(case, traj=watched(case.traj, bar))).compute()
                bar.set_postfix_str("")
                bar.update()
                case.found[name] = result
                if new is not None:
                    new.write(group, name, result)
    if store is not None:
        found = open_results(Path(store))
        return Analysis(found["results"], found["null"], null_name, Path(store))
    return Analysis(cases["results"].found, cases["null"].found, null_name)


def _measure_parts(case: Case, names: Sequence[str], new: NewResults, group: str, bar: tqdm[None]) -> None:
    """Write the measures of single samples of a lazy trajectory, which is read once for all of them."""
    if not names:
        return
    gathered = {}
    for part in loaded_parts(case.traj):
        for name in names:
            result = EACH[name](replace(case, traj=part))
            if name not in gathered:
                gathered[name] = new.gather(group, name, result, case.traj)
            gathered[name].add(result)
            bar.update(part.sizes["sample"] / case.traj.sizes["sample"])
    for one in gathered.values():
        one.close()


def known_measures(measures: Sequence[str] | None, caller: str, *, model: bool = True) -> list[str]:
    """Return the measures to take, all by default, in the order in which they are taken.

    Raises
    ------
    ParameterError
        If there is none, one is not known, needs a ``model`` where there is none, or is made from another that was not
        chosen.
    """
    everything = [*MEASURES, *INTERVENTIONS]
    if measures is None:
        return everything if model else [*MEASURES]
    chosen = [measures] if isinstance(measures, str) else list(measures)
    if not chosen:
        raise ParameterError(f"{caller} needs at least one of the measures {', '.join(everything)}; got none.")
    for name in chosen:
        if name not in everything:
            raise ParameterError(f"{caller} knows the measures {', '.join(everything)}; got {name!r}.")
        if name in INTERVENTIONS and not model:
            raise ParameterError(
                f"{name} needs the model itself, not its states alone: depthflow {caller} MODEL IMAGES -o RESULTS."
            )
        lacking = [other for other in AFTER.get(name, ()) if other not in chosen]
        if lacking:
            raise ParameterError(f"{name} is made from {' and '.join(AFTER[name])}; choose {lacking[0]} too.")
    return [name for name in everything if name in chosen]


def save(analysis: Analysis, path: Path) -> None:
    """Write all results to a new zarr store: the group ``results`` and the group ``null``, a Dataset a measure in each.

    Read them back with ``xarray.open_datatree(path, engine="zarr", consolidated=False)``.

    Raises
    ------
    StoreError
        If something is at ``path`` already.
    """
    with NewResults(path, analysis.null_name) as new:
        for group, found in zip(GROUPS, (analysis.results, analysis.null), strict=True):
            for name, result in found.items():
                new.write(group, name, result)
