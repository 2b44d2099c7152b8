"""Run the measures on one trajectory and on its null, and keep the results together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xarray as xr

from depthflow.errors import ParameterError, StoreError
from depthflow.measures.basins import basins
from depthflow.measures.coherence import coherence
from depthflow.measures.convergence import convergence
from depthflow.measures.dmd import dmd
from depthflow.measures.phases import phases
from depthflow.measures.spectra import update_spectra
from depthflow.measures.stability import basin_stability
from depthflow.resample import random_directions
from depthflow.schema import CLS, PATCH, token_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import nn

N_BOOT = 200
N_NULL = 999
NULL_BY_CHANCE = "random directions"
TWIN = "untrained twin"

PUSH = 0.05
"""Angle of the push, rad."""
RIDGE = 1e-6
"""Share of the mean squared feature that settles what few states leave open in a linear map."""
PUSHED, LINEARISED, SWAPPED = 256, 32, 64
"""Samples, from the first on, that are pushed, differentiated along, and run with swapped blocks."""
DRAWS = 8
BATCH = 32
"""Samples that run at once; of those differentiated along, a quarter."""


@dataclass(frozen=True)
class Subject:
    """A model and its inputs, for the questions that states alone do not answer.

    Attributes
    ----------
    model : torch.nn.Module
        What was recorded.
    inputs : array, tensor, or iterable of tensors
        All samples, or batches of them; gone through several times.
    labels : array-like, optional
        One class a sample.
    blocks, device : optional
        As for :func:`depthflow.record`.
    """

    model: nn.Module
    inputs: Any
    labels: Sequence[Any] | np.ndarray | None = None
    blocks: str | None = None
    device: str | None = None

    def record(self, *, progress: bool = True) -> xr.DataArray:
        """Return the trajectory of all samples, in memory."""
        from depthflow.recording.forward import record

        return record(
            self.model,
            self.inputs,
            labels=self.labels,
            batch_size=BATCH,
            blocks=self.blocks,
            device=self.device,
            progress=progress,
        )

    def first(self, count: int, batch_size: int) -> dict[str, Any]:
        """Return the arguments that name the model and its first ``count`` samples, their labels beside them."""
        return {
            "model": self.model,
            "inputs": self._batches(count, batch_size),
            "blocks": self.blocks,
            "device": self.device,
            "progress": False,
        }

    def _batches(self, count: int, batch_size: int) -> Iterator[Any]:
        whole = hasattr(self.inputs, "shape")
        parts = (self.inputs[at : at + batch_size] for at in range(0, count, batch_size)) if whole else self.inputs
        start = 0
        for part in parts:
            batch = part[: count - start]
            if len(batch):
                yield batch if self.labels is None else (batch, self.labels[start : start + len(batch)])
            start += len(batch)
            if start >= count:
                return


@dataclass(frozen=True)
class Analysis:
    """One trajectory's results beside its null's, each measure's Dataset by its name."""

    results: Mapping[str, xr.Dataset]
    null: Mapping[str, xr.Dataset]
    null_name: str


@dataclass
class _Case:
    """What the measures are taken of, and what was found before."""

    traj: xr.DataArray
    subject: Subject | None
    seed: int
    found: dict[str, xr.Dataset] = field(default_factory=dict)

    @property
    def given(self) -> Subject:
        """The model, which the measures that need it are only asked with."""
        if self.subject is None:
            raise ParameterError("this measure needs the model itself.")
        return self.subject

    def leading(self) -> str | None:
        """Return the token type to push and to look at: cls, else patches, else all."""
        types = token_types(self.traj)
        return next((kind for kind in (CLS, PATCH) if kind in types), None)


def _coherence(case: _Case) -> xr.Dataset:
    return coherence(case.traj, tokens=PATCH if PATCH in token_types(case.traj) else None)


def _dmd(case: _Case) -> xr.Dataset:
    """Fit on every second sample and predict the others, where there are two."""
    halves = [case.traj.isel(sample=slice(start, None, 2)) for start in range(min(2, case.traj.sizes["sample"]))]
    return dmd(halves[0], ridge=RIDGE, test=halves[-1])


def _perturb(case: _Case) -> xr.Dataset:
    from depthflow.recording.perturb import perturb

    depth = (case.traj.sizes["depth"] - 1) // 3
    tokens = case.leading() or "all"
    pushed = case.given.first(PUSHED, BATCH)
    paths = BATCH * (1 + DRAWS)
    return perturb(**pushed, depth=depth, angle=PUSH, tokens=tokens, n_draws=DRAWS, batch_size=paths, seed=case.seed)


def _jacobian(case: _Case) -> xr.Dataset:
    from depthflow.recording.jacobian import jacobian

    return jacobian(**case.given.first(LINEARISED, BATCH // 4), tokens=case.leading() or "all", seed=case.seed)


def _swap_blocks(case: _Case) -> xr.Dataset:
    from depthflow.recording.intervene import swap_blocks

    swapped = case.given.first(SWAPPED, BATCH)
    return swap_blocks(**swapped, phases=case.found.get("phases"), tokens=case.leading() or "all", seed=case.seed)


MEASURES: Mapping[str, Callable[[_Case], xr.Dataset]] = {
    "convergence": lambda case: convergence(case.traj),
    "coherence": _coherence,
    "update_spectra": lambda case: update_spectra(case.traj),
    "phases": lambda case: phases(case.traj, n_boot=N_BOOT, n_null=N_NULL, seed=case.seed),
    "basins": lambda case: basins(case.traj, seed=case.seed),
    "dmd": _dmd,
}
"""Each measure of states as an analysis runs it: all defaults, and every interval and null that the measure offers."""

INTERVENTIONS: Mapping[str, Callable[[_Case], xr.Dataset]] = {
    "perturb": _perturb,
    "basin_stability": lambda case: basin_stability(case.found["perturb"], case.found["basins"]),
    "jacobian": _jacobian,
    "swap_blocks": _swap_blocks,
}
"""The measures that need the model itself."""

AFTER = {"basin_stability": ("basins", "perturb")}
"""What a measure is made of."""


def analyze(
    traj: xr.DataArray,
    *,
    measures: Sequence[str] | None = None,
    subject: Subject | None = None,
    null: xr.DataArray | None = None,
    null_subject: Subject | None = None,
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
    seed : int
        Seed of clustering, resampling, shuffling and pushing.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    ParameterError
        If a measure is not known, or needs a model, or another measure that was not chosen.
    """
    from tqdm import tqdm

    known = {**MEASURES, **(INTERVENTIONS if subject is not None and null_subject is not None else {})}
    chosen = list(known) if measures is None else [name for name in known if name in measures]
    _require_known(measures or [], known)
    cases = [
        _Case(traj, subject, seed),
        _Case(random_directions(traj, seed=seed) if null is None else null, null_subject, seed),
    ]
    with tqdm(total=2 * len(chosen), desc="analyze", unit="measure", disable=not progress, leave=False) as steps:
        for case in cases:
            for name in chosen:
                case.found[name] = known[name](case).compute()
                steps.update()
    return Analysis(cases[0].found, cases[1].found, null_name)


def analyze_beside_twin(
    subject: Subject, twin: Subject, *, measures: Sequence[str] | None = None, seed: int = 0, progress: bool = True
) -> Analysis:
    """Return every measure of a model, of its states and of itself, and the same of its untrained twin.

    Raises
    ------
    ParameterError
        As :func:`analyze`, before anything is recorded.
    """
    _require_known(measures or [], {**MEASURES, **INTERVENTIONS})
    traj, null = (one.record(progress=progress) for one in (subject, twin))
    return analyze(
        traj,
        measures=measures,
        subject=subject,
        null=null,
        null_subject=twin,
        null_name=TWIN,
        seed=seed,
        progress=progress,
    )


def _require_known(measures: Sequence[str], known: Mapping[str, object]) -> None:
    for name in measures:
        if name in INTERVENTIONS and name not in known:
            raise ParameterError(
                f"{name} needs the model itself, not its states alone: depthflow analyze MODEL IMAGES -o RESULTS."
            )
        if name not in known:
            raise ParameterError(f"analyze knows the measures {', '.join([*MEASURES, *INTERVENTIONS])}; got {name!r}.")
        lacking = [other for other in AFTER.get(name, ()) if other not in measures]
        if lacking:
            raise ParameterError(f"{name} is made from {' and '.join(AFTER[name])}; choose {lacking[0]} too.")


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
