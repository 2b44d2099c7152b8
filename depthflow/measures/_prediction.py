"""How far the predictions of linear maps lie from the states that came."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from depthflow.measures._accumulate import accumulated
from depthflow.measures._linear_maps import pieces, require_squares

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

    from depthflow.measures._linear_maps import Maps

PREDICTIONS = ("error", "error_identity", "error_endpoint", "error_per_step")


def prediction_errors(
    traj: xr.DataArray, maps: Maps, horizons: Sequence[int], token_type: np.ndarray, types: int, measure: str
) -> dict[str, np.ndarray]:
    """Return the relative error (horizon, token_type) of K, the identity, the endpoint maps and the maps of each block.

    Parameters
    ----------
    traj : xarray.DataArray
        Prepared; its depths are those of the span.
    token_type : numpy.ndarray
        Each token's type as an integer below ``types``.

    Raises
    ------
    TrajectoryError
        If a state is not finite, or squares overflow.
    """
    found = accumulated(traj, partial(Misses, maps, horizons, token_type, types, measure))
    require_squares(found.reached, measure)
    return relative_errors(found.missed, found.reached, maps, horizons)


def relative_errors(
    missed: dict[str, np.ndarray], reached: np.ndarray, maps: Maps, horizons: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return √(missed/reached) of sums of squares (horizon, token_type), NaN for maps that are not determined."""
    for at, horizon in enumerate(horizons):
        if maps.far[horizon] is None:
            missed["error_endpoint"][at] = np.nan
    if _chain(maps) is None:
        missed["error_per_step"][:] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: np.sqrt(total / reached) for name, total in missed.items()}


class Misses:
    """Sums of squares (horizon, token_type) of the states to be predicted, and of what predictions miss of them."""

    def __init__(self, maps: Maps, horizons: Sequence[int], token_type: np.ndarray, types: int, measure: str) -> None:
        self.maps, self.horizons, self.token_type, self.types = maps, horizons, token_type, types
        self.measure = measure
        self.missed = {name: np.zeros((len(horizons), types)) for name in PREDICTIONS}
        self.reached = np.zeros((len(horizons), types))

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples, of the span's depths."""
        with np.errstate(over="ignore", invalid="ignore"):
            for states in pieces(part, self.measure):
                for at, horizon in enumerate(self.horizons):
                    self.reached[at] += self._squares(states[horizon:])
                for name, horizon, predicted in _predictions(states, self.maps, self.horizons):
                    predicted -= states[horizon:]
                    self.missed[name][self.horizons.index(horizon)] += self._squares(predicted)

    def merge(self, later: Misses) -> None:
        """Take in the samples of ``later``."""
        self.reached += later.reached
        for name, total in self.missed.items():
            total += later.missed[name]

    def _squares(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of the squares of ``values`` (depth, row, feature) by type of token."""
        of_row = np.einsum("drf,drf->r", values, values)
        kinds = np.tile(self.token_type, len(of_row) // len(self.token_type))
        return np.bincount(kinds, weights=of_row, minlength=self.types)


def _predictions(states: np.ndarray, maps: Maps, horizons: Sequence[int]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Give the name, the horizon p and the predictions (start, row, feature) of ``states`` (depth, row, feature).

    Start ℓ is predicted at depth ℓ + p. Each prediction is a new array.
    """
    for horizon in horizons:
        yield "error_identity", horizon, states[:-horizon].copy()
        far = maps.far[horizon]
        if far is not None:
            yield "error_endpoint", horizon, states[:-horizon] @ far.T
    blocks = len(states) - 1
    for name, chain in (("error", [maps.operator] * blocks), ("error_per_step", _chain(maps) or [])):
        predicted = states[:-1].copy()
        for horizon in range(1, max(horizons) + 1 if chain else 0):
            predicted = predicted[: blocks - horizon + 1]
            for start, step in enumerate(chain[horizon - 1 :]):
                predicted[start] = predicted[start] @ step.T
            if horizon in horizons:
                yield name, horizon, predicted.copy()


def _chain(maps: Maps) -> list[np.ndarray] | None:
    """Return the map of each block, or None if one is not determined."""
    steps = [step for step in maps.step if step is not None]
    return steps if len(steps) == len(maps.step) else None
