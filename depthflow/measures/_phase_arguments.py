"""The arguments of phases: what is a similarity, and what fits it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError, is_whole_number, raise_faults

if TYPE_CHECKING:
    from depthflow.trajectories import Tokens

NAME = "phases"
METHODS = ("optimal", "bisection")
MOST_PHASES = 10
ASYMMETRY = 1e-6
"""Asymmetry of a given similarity, relative to its largest entry, that counts as rounding in float32."""


def given_similarity(data: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a given similarity in float64, exactly symmetric, and the labels of its blocks."""
    matrix = data.values if isinstance(data, xr.DataArray) else np.asarray(data)
    if matrix.dtype.kind not in "fiu":
        raise ParameterError(f"{NAME} needs a trajectory or a similarity of real numbers; got {type(data).__name__}.")
    shape = matrix.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2:
        raise ParameterError(
            f"{NAME} needs a trajectory, or a square similarity of at least two blocks; got an array of shape {shape}. "
            "Build a trajectory from states with `depthflow.trajectory(states)`."
        )
    matrix = matrix.astype(np.float64)
    raise_faults(ParameterError, NAME, _matrix_faults(matrix))
    if not np.array_equal(matrix, matrix.T):
        matrix = (matrix + matrix.T) / 2
    block = np.arange(1, len(matrix) + 1)
    if isinstance(data, xr.DataArray) and data.dims[0] in data.coords:
        block = data[data.dims[0]].values
    coords: dict[str, Any] = {"block": block, "block_other": block}
    if isinstance(data, xr.DataArray) and "module" in data.coords:
        coords["module"] = data["module"].variable
    return matrix, coords


def _matrix_faults(matrix: np.ndarray) -> list[str]:
    finite = np.isfinite(matrix)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        return [f"needs a finite similarity; got {matrix[row, column]} first at ({row}, {column}). Mend it first."]
    faults = []
    apart = matrix - matrix.T
    if apart.max() > ASYMMETRY * max(matrix.max(), -matrix.min()):
        row, column = np.unravel_index(np.argmax(apart), apart.shape)
        faults.append(
            f"needs a symmetric similarity; got {matrix[row, column]} at ({row}, {column}) and {matrix[column, row]} "
            f"at ({column}, {row}). Symmetrise with `(s + s.T) / 2`."
        )
    if not np.diag(matrix).any() and matrix.max() > 0:
        faults.append("needs a similarity, with ones on the diagonal; got zeros, as a distance has. Pass 1 − distance.")
    return faults


def require_plain(metric: str, tokens: Tokens, n_boot: int) -> None:
    """Raise for arguments that only a trajectory can use."""
    given = {"metric": metric != "cosine", "tokens": tokens is not None, "n_boot": n_boot != 0}
    raise_faults(
        ParameterError,
        NAME,
        [f"needs a trajectory for {name}=…; got a similarity. Leave it out." for name, was in given.items() if was],
    )


def most_phases(
    blocks: int,
    n_phases: int | None,
    method: str,
    min_size: int,
    threshold: float,
    max_phases: int | None,
    n_boot: int,
    n_null: int,
) -> int:
    """Return the largest number of phases to look at, or raise every fault of the parameters."""
    faults = []
    if method not in METHODS:
        faults.append(f"knows the methods {METHODS}; got {method!r}.")
    if not 0 <= threshold < 1:
        faults.append(f"needs threshold as a share in [0, 1); got {threshold!r}.")
    for name, count in (("n_boot", n_boot), ("n_null", n_null)):
        if not is_whole_number(count) or count < 0:
            faults.append(f"needs {name} as a number, 0 for none; got {count!r}.")
    if not is_whole_number(min_size) or not 1 <= min_size <= blocks:
        faults.append(f"needs min_size between 1 and the number of blocks, {blocks}; got {min_size!r}.")
        room = blocks
    else:
        room = blocks // min_size
    for name, value in (("n_phases", n_phases), ("max_phases", max_phases)):
        if value is not None and not (is_whole_number(value) and 1 <= value <= room):
            faults.append(
                f"has room for 1 to {room} phases of at least {min_size} of {blocks} blocks; got {name}={value!r}."
            )
    if n_phases is not None and max_phases is not None and not faults and n_phases > max_phases:
        faults.append(f"needs n_phases up to max_phases; got {n_phases} and {max_phases}.")
    raise_faults(ParameterError, NAME, faults)
    return max(min(room, MOST_PHASES), n_phases or 1) if max_phases is None else max_phases
