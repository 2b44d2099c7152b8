"""Measures of trajectories that come batch by batch and are not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from depthflow.kernels.running import RunningFactor
from depthflow.measures import spectra
from depthflow.measures._accumulate import Accumulator
from depthflow.measures._phase_arguments import NAME as PHASES
from depthflow.measures._phase_arguments import most_phases
from depthflow.measures._pooled_spectra import Updates, factor_singular_values
from depthflow.measures.phases import phases
from depthflow.measures.similarity import NAME as SIMILARITY
from depthflow.measures.similarity import Cosines, compared, labelled

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from depthflow.trajectories import Tokens

Total = TypeVar("Total", bound=Accumulator)


class Stream(Protocol):
    """A measure that is fed one trajectory of some samples after another."""

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples, of which nothing is held."""

    def result(self) -> xr.Dataset | xr.DataArray:
        """Return the measure of all samples that came, of which there is at least one."""


class Pooled(Generic[Total]):
    """A measure that pools samples: what its whole-trajectory form does once, in its three steps.

    Parameters
    ----------
    prepared : callable
        From a trajectory to the one that takes part; raises for what does not fit.
    start : callable
        From the first of these to an empty accumulator.
    finish : callable
        From the accumulator of all, and the labels of the trajectory (without samples), to the result.
    """

    def __init__(
        self,
        prepared: Callable[[xr.DataArray], xr.DataArray],
        start: Callable[[xr.DataArray], Total],
        finish: Callable[[Total, xr.DataArray], xr.Dataset | xr.DataArray],
    ) -> None:
        self._prepared, self._start, self._finish = prepared, start, finish
        self._begun: list[tuple[Total, xr.DataArray]] = []

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples."""
        ready = self._prepared(part)
        if not self._begun:
            self._begun = [(self._start(ready), ready.isel(sample=slice(0, 0)).copy(deep=True))]
        self._begun[0][0].add(ready)

    def result(self) -> xr.Dataset | xr.DataArray:
        """Return the measure of all samples that came."""
        return self._finish(*self._begun[0])


def similarity_stream(*, metric: str = "cosine", tokens: Tokens = None, include_input: bool = False) -> Stream:
    """Return :func:`depthflow.similarity` batch by batch."""
    return Pooled(
        lambda part: compared(part, metric, tokens, include_input, SIMILARITY),
        lambda first: Cosines(SIMILARITY),
        lambda total, like: labelled(total.mean, like, metric),
    )


def phases_stream(
    *,
    n_phases: int | None = None,
    method: str = "optimal",
    min_size: int = 1,
    threshold: float = 0.1,
    max_phases: int | None = None,
    metric: str = "cosine",
    tokens: Tokens = None,
    n_boot: int = 0,
    n_null: int = 0,
    seed: int = 0,
) -> Stream:
    """Return :func:`depthflow.phases` of the similarity that comes batch by batch."""
    chosen: dict[str, Any] = {
        "n_phases": n_phases,
        "method": method,
        "min_size": min_size,
        "threshold": threshold,
        "max_phases": max_phases,
        "n_null": n_null,
    }

    def start(first: xr.DataArray) -> Cosines:
        most_phases(first.sizes["depth"], n_boot=n_boot, **chosen)
        return Cosines(PHASES)

    def finish(total: Cosines, like: xr.DataArray) -> xr.Dataset:
        return phases(labelled(total.mean, like, metric), seed=seed, **chosen).assign_attrs(metric=metric)

    return Pooled(lambda part: compared(part, metric, tokens, False, PHASES), start, finish)


def pooled_spectra_stream(
    *,
    tokens: Tokens = None,
    center: bool = False,
    pool: bool = True,
    energy: float = 0.9,
    n_modes: int | None = None,
    exact: bool = False,
) -> Stream:
    """Return :func:`depthflow.update_spectra` with ``pool=True`` batch by batch.

    By triangular factors: in one pass it is not known beforehand where a Gram matrix would not do.
    """

    def start(first: xr.DataArray) -> Updates:
        features = first.sizes["feature"]
        spectra.number_of_modes(max(2, features), features, n_modes, center)
        return Updates(RunningFactor, range(first.sizes["depth"] - 1), features, center)

    def finish(total: Updates, like: xr.DataArray) -> xr.Dataset:
        kept = spectra.number_of_modes(total.rows, like.sizes["feature"], n_modes, center)
        return spectra.described(factor_singular_values(total, exact), energy, kept, like, [], center, exact)

    return Pooled(lambda part: spectra.settled(part, tokens, pool, energy, n_modes)[0], start, finish)
