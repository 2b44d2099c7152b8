"""What an analysis is taken of, and how it runs each measure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from depthflow.errors import ParameterError
from depthflow.measures.basins import basins
from depthflow.measures.coherence import coherence
from depthflow.measures.convergence import convergence
from depthflow.measures.dmd import dmd
from depthflow.measures.phases import phases
from depthflow.measures.spectra import update_spectra
from depthflow.measures.stability import basin_stability
from depthflow.schema import CLS, PATCH, token_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import xarray as xr
    from torch import nn

N_BOOT = 200
N_NULL = 999
PUSH = 0.05
"""Angle of the push, rad."""
RIDGE = 1e-6
"""Share of the mean squared feature that settles what few states leave open in a linear map."""
FITTED = 2**15
"""Tokens of all samples, at each depth, that a linear map is fitted to, and as many that it is judged by.

A map of 768 features has 0.6 million numbers; with 12 blocks these are 0.4 million states, each of 768 numbers.
"""
PUSHED, LINEARISED, SWAPPED = 256, 32, 64
"""Samples, from the first on, that are pushed, differentiated along, and run with swapped blocks, at most."""
SMALL = 2**18
"""Numbers in one sample's states, of all depths; where there are more, fewer samples are taken, down to a quarter.

ViT-S/16 has 983,000; to differentiate along one sample of it takes some 15 s on two cores.
"""
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
    inputs : optional
        All samples, in any form that :func:`depthflow.record` takes; gone through several times.
    labels, sample_ids : array-like, optional
        One class and one name a sample.
    blocks, device : optional
        As for :func:`depthflow.record`.
    """

    model: nn.Module
    inputs: Any
    labels: Sequence[Any] | np.ndarray | None = None
    sample_ids: Sequence[Any] | np.ndarray | None = None
    blocks: str | None = None
    device: str | None = None

    def record(self, *, progress: bool = True) -> xr.DataArray:
        """Return the trajectory of all samples, in memory."""
        from depthflow.recording.forward import record

        return record(
            self.model,
            self.inputs,
            labels=self.labels,
            sample_ids=self.sample_ids,
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
        from depthflow.recording.feed import Feed

        feed, start = Feed(self.inputs, batch_size, self.labels), 0
        for batch in feed:
            part = batch.part(0, min(batch.size, count - start))
            labels = feed.labels_of(batch, start)
            given = dict(part.call.kwargs) or part.call.args[0]
            yield given if labels is None else (given, labels[: part.size])
            start += batch.size
            if start >= count:
                return


@dataclass
class Case:
    """What the measures are taken of, and what was found before."""

    traj: xr.DataArray
    subject: Subject | None
    seed: int
    found: dict[str, xr.Dataset] = field(default_factory=dict)

    @property
    def lazy(self) -> bool:
        """Whether the states are dask-backed samples."""
        return self.traj.chunks is not None and "sample" in self.traj.dims

    @property
    def given(self) -> Subject:
        """The model, which the measures that need it are only asked with."""
        if self.subject is None:
            raise ParameterError("this measure needs the model itself.")
        return self.subject

    def few(self, most: int) -> int:
        """Return how many samples to run the model on again and again."""
        each = self.traj.size // self.traj.sizes.get("sample", 1)
        return max(most // 4, min(most, most * SMALL // each))

    def leading(self) -> str | None:
        """Return the token type to push and to look at: cls, else patches, else all."""
        types = token_types(self.traj)
        return next((kind for kind in (CLS, PATCH) if kind in types), None)


def _coherence(case: Case) -> xr.Dataset:
    return coherence(case.traj, tokens=PATCH if PATCH in token_types(case.traj) else None)


def _dmd(case: Case) -> xr.Dataset:
    """Fit on every second sample and predict the others, where there are two; of many, on evenly spaced ones."""
    if "sample" not in case.traj.dims:
        return dmd(case.traj, ridge=RIDGE)
    samples, tokens = case.traj.sizes["sample"], case.traj.sizes.get("token", 1)
    step = 2 * max(1, min(-(-samples * tokens // (2 * FITTED)), samples // 2))
    halves = [case.traj.isel(sample=slice(start, None, step)) for start in (0, step // 2) if start < samples]
    return dmd(halves[0], ridge=RIDGE, test=halves[-1])


def _perturb(case: Case) -> xr.Dataset:
    from depthflow.recording.perturb import perturb

    depth = (case.traj.sizes["depth"] - 1) // 3
    tokens = case.leading() or "all"
    pushed = case.given.first(case.few(PUSHED), BATCH)
    paths = BATCH * (1 + DRAWS)
    return perturb(**pushed, depth=depth, angle=PUSH, tokens=tokens, n_draws=DRAWS, batch_size=paths, seed=case.seed)


def _jacobian(case: Case) -> xr.Dataset:
    from depthflow.recording.jacobian import jacobian

    linearised = case.given.first(case.few(LINEARISED), BATCH // 4)
    return jacobian(**linearised, tokens=case.leading() or "all", seed=case.seed)


def _swap_blocks(case: Case) -> xr.Dataset:
    from depthflow.recording.intervene import swap_blocks

    swapped = case.given.first(case.few(SWAPPED), BATCH)
    return swap_blocks(**swapped, phases=case.found.get("phases"), tokens=case.leading() or "all", seed=case.seed)


EACH: Mapping[str, Callable[[Case], xr.Dataset]] = {
    "convergence": lambda case: convergence(case.traj),
    "coherence": _coherence,
    "update_spectra": lambda case: update_spectra(case.traj),
}
"""The measures of single samples, of which some samples' results are part of all samples' results."""

POOLED: Mapping[str, Callable[[Case], xr.Dataset]] = {
    "phases": lambda case: phases(case.traj, n_boot=N_BOOT, n_null=N_NULL, seed=case.seed),
    "basins": lambda case: basins(case.traj, seed=case.seed),
    "dmd": _dmd,
}
"""The measures that take all samples together, and go through a lazy trajectory by themselves, part by part."""

OF_BLOCKS = frozenset({*EACH, "dmd"})
"""The measures of what single blocks do, which need consecutive depths."""

MEASURES = {**EACH, **POOLED}
"""Each measure of states as an analysis runs it: all defaults, and every interval and null that the measure offers."""

INTERVENTIONS: Mapping[str, Callable[[Case], xr.Dataset]] = {
    "perturb": _perturb,
    "basin_stability": lambda case: basin_stability(case.found["perturb"], case.found["basins"]),
    "jacobian": _jacobian,
    "swap_blocks": _swap_blocks,
}
"""The measures that need the model itself."""

AFTER = {"basin_stability": ("basins", "perturb")}
"""What a measure is made of."""
