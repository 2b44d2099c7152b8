"""Take every measure that a trajectory allows, and say of each other one why it is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from depthflow.analysis import Analysis
from depthflow.cases import AFTER, EACH, INTERVENTIONS
from depthflow.errors import DepthflowError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import xarray as xr

    from depthflow.reporting.sources import Sources

TOGETHER = (tuple(EACH), ("phases", "swap_blocks"), ("basins", "perturb", "basin_stability"), ("dmd",), ("jacobian",))
"""Measures that share a reading of the states, or of which one is made from another."""


class Measured(NamedTuple):
    """The results, and why each measure that is not among them is left out."""

    analysis: Analysis
    left_out: Mapping[str, str]


def measure(sources: Sources, measures: Sequence[str], *, folder: Path, seed: int, progress: bool) -> Measured:
    """Return the results of ``measures`` of the sources, as :func:`depthflow.analysis.analyze` does.

    A measure that refuses the trajectory is left out with its own words; one that needs the model, with those of the
    sources where there is none of the null. Of a dask-backed trajectory the results are written into ``folder``.

    Raises
    ------
    DepthflowError
        If no measure can be taken.
    """
    results: dict[str, xr.Dataset] = {}
    null: dict[str, xr.Dataset] = {}
    left_out: dict[str, str] = {}
    why = sources.without_model
    fault: DepthflowError = ParameterError(f"report: nothing that was asked for can be measured: {why}")
    if sources.null.subject is None:
        left_out = {name: why for name in measures if name in INTERVENTIONS}
    waiting = [tuple(name for name in unit if name in measures and name not in left_out) for unit in TOGETHER]
    while waiting:
        unit = waiting.pop(0)
        if not unit:
            continue
        store = None if sources.case.traj.chunks is None else folder / f"{'-'.join(unit)}.zarr"
        try:
            found = sources.analyze(measures=unit, store=store, seed=seed, progress=progress)
        except DepthflowError as error:
            if len(unit) > 1:
                waiting[:0] = [(name,) for name in unit]
                continue
            lost = [name for name in AFTER.get(unit[0], ()) if name in left_out]
            left_out[unit[0]] = f"It is made from {lost[0]}, which is left out." if lost else str(error)
            fault = error
            continue
        results |= found.results
        null |= found.null
    if not results:
        raise fault
    return Measured(Analysis(results, null, sources.null_name), left_out)
