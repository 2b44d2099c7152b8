"""Compare what happens to pairs of blocks within one phase and in two: means over pairs, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError
from depthflow.resample import mean_interval
from depthflow.trajectories import STRING

REMEDY = "Pass what `depthflow.phases` returns for a recording of this model, or one number or name a block."


def phase_array(phases: Any, what: str) -> np.ndarray:
    """Return the phase of each block, as numbers or names, of a result of ``phases`` or a sequence.

    Raises
    ------
    ParameterError
        If ``phases`` is neither, or is of other blocks than 1, 2, … in order.
    """
    if isinstance(phases, xr.Dataset):
        if "phase" not in phases.variables:
            raise ParameterError(
                f"{what} needs phases with the variable 'phase' (block); got a Dataset of "
                f"{sorted(map(str, phases.data_vars))}. {REMEDY}"
            )
        phases = phases["phase"]
    if isinstance(phases, xr.DataArray):
        if phases.dims != ("block",):
            raise ParameterError(
                f"{what} needs phases on the dim 'block'; got {tuple(map(str, phases.dims))}. {REMEDY}"
            )
        blocks = phases["block"].values if "block" in phases.coords else np.arange(1, phases.size + 1)
        if not np.array_equal(blocks, np.arange(1, phases.size + 1)):
            raise ParameterError(
                f"{what} needs the phase of every block, from 1 on; got blocks {blocks.tolist()}. {REMEDY}"
            )
        phases = phases.values
    if not isinstance(phases, Sequence | np.ndarray) or isinstance(phases, str):
        raise ParameterError(f"{what} needs phases as one a block; got {type(phases).__name__}. {REMEDY}")
    kinds = {"number" if isinstance(kind, int | np.integer) else type(kind).__name__ for kind in phases}
    if not kinds <= {"number"} and not kinds <= {"str"}:
        raise ParameterError(
            f"{what} needs phases as integers or names, one a block; got {' and '.join(sorted(kinds))}. {REMEDY}"
        )
    return np.array(list(phases), dtype=STRING if kinds == {"str"} else np.int64)


def require_blocks(phase: np.ndarray, blocks: int, what: str) -> None:
    """Raise unless ``phase`` has one entry for each of the model's ``blocks``."""
    if len(phase) != blocks:
        raise ParameterError(f"{what} needs one phase for each of the model's {blocks} blocks; got {len(phase)}.")


def compared(each: np.ndarray, phase: np.ndarray, n_boot: int, seed: int) -> dict[str, float]:
    """Return the means of ``each`` (sample, block, block_other) over pairs within and between phases, and differences.

    With ``n_boot`` resamples of the samples also the ends of the differences' intervals. NaN where there is no pair.
    """
    found: dict[str, float] = {}
    for name, weight in weights(phase).items():
        values = np.tensordot(each, weight, 2)
        found[name] = float(values.mean())
        if n_boot and name in ("difference", "matched_difference"):
            _, found[f"{name}_low"], found[f"{name}_high"] = mean_interval(values, n=n_boot, seed=seed)
    return found


def weights(phase: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weight of each pair of blocks (block, block_other) in each mean; all NaN where it has no pair."""
    number = np.arange(len(phase))
    distance = np.abs(number[:, None] - number)
    alike = phase[:, None] == phase
    within, between = _mean(alike & (distance > 0)), _mean(~alike)
    matched, total = np.zeros(distance.shape), 0.0
    for apart in range(1, len(phase)):
        inside, across = alike & (distance == apart), ~alike & (distance == apart)
        if inside.any() and across.any():
            share = inside.sum() * across.sum() / (inside.sum() + across.sum())
            matched += share * (_mean(across) - _mean(inside))
            total += share
    return {
        "within_effect": within,
        "between_effect": between,
        "difference": between - within,
        "matched_difference": matched / total if total else np.full(distance.shape, np.nan),
    }


def _mean(pairs: np.ndarray) -> np.ndarray:
    count = pairs.sum()
    return pairs / count if count else np.full(pairs.shape, np.nan)
