"""One spectrum a block over the updates of all samples, which arrive part by part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from depthflow.kernels import lowrank
from depthflow.kernels.running import RunningFactor, RunningGram
from depthflow.measures._accumulate import accumulated
from depthflow.measures._chunks import require_finite
from depthflow.measures._ufunc import Where, as_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

NAME = "update_spectra"
RANKS = ("stable_rank", "effective_rank", "participation_ratio", "energy_rank")


def difference(states: np.ndarray, block: int) -> np.ndarray:
    """Return the updates (sample, token, feature) by the block at position ``block``, in float64.

    The difference of float32 states would round away singular values far below the largest.
    """
    update: np.ndarray = np.subtract(states[:, block + 1], states[:, block], dtype=np.float64)
    return update


class Updates:
    """For each of ``blocks``, a running Gram matrix or triangular factor of its updates: a row a sample and token."""

    def __init__(
        self, kind: type[RunningGram | RunningFactor], blocks: Sequence[int], features: int, center: bool
    ) -> None:
        self.rows = 0
        self._of = {block: kind(features, center) for block in blocks}

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples."""
        states = as_states(part.values)
        require_finite(states, Where.of(part), NAME)
        for block, running in self._of.items():
            running.add(difference(states, block).reshape(-1, states.shape[-1]))
        self.rows += states.shape[0] * states.shape[2]

    def merge(self, later: Updates) -> None:
        """Take in the samples of ``later``."""
        for block, running in self._of.items():
            running.merge(later._of[block])  # type: ignore[arg-type]  # both of one kind
        self.rows += later.rows

    @property
    def matrices(self) -> list[np.ndarray]:
        """The matrix of each block."""
        return [running.matrix for running in self._of.values()]


def pooled_singular_values(traj: xr.DataArray, center: bool, exact: bool) -> np.ndarray:
    """Return the singular values (block, mode) of all samples' updates of a prepared trajectory.

    Where a Gram matrix does not resolve the spectrum, the states are read again for a triangular factor.
    """
    blocks, features = traj.sizes["depth"] - 1, traj.sizes["feature"]
    rows = traj.sizes["sample"] * traj.sizes["token"]
    values = np.zeros((blocks, min(rows, features)))
    unresolved = list(range(blocks))
    if not exact and rows > features:
        grams = accumulated(traj, partial(Updates, RunningGram, unresolved, features, center)).matrices
        values, resolved = lowrank.singular_values_of_grams(np.stack(grams))
        unresolved = np.flatnonzero(~resolved).tolist()
    if unresolved:
        factors = accumulated(traj, partial(Updates, RunningFactor, unresolved, features, center))
        values[unresolved] = factor_singular_values(factors, exact)
    return values


def factor_singular_values(factors: Updates, exact: bool) -> np.ndarray:
    """Return the singular values (block, mode) of triangular factors; zero beyond the rows of one."""
    matrices = factors.matrices
    values = np.zeros((len(matrices), min(factors.rows, matrices[0].shape[1])))
    for row, matrix in zip(values, matrices, strict=True):
        found = lowrank.singular_values(matrix, exact=exact)[: len(row)]
        row[: len(found)] = found
    return values


def pooled_variables(values: np.ndarray, energy: float, kept: int) -> dict[str, Any]:
    """Return the singular values (block, mode), as many as are to be ``kept``, and the ranks of all of them."""
    ranks = {name: ("block", rank) for name, rank in zip(RANKS, lowrank.ranks(values, energy), strict=True)}
    return {"singular_value": (("block", "mode"), values[:, :kept]), **ranks}
