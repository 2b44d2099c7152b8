"""Read states in any form that users hold them, array, tensor or list of layers, as a DataArray with named dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from depthflow.errors import TrajectoryError
from depthflow.schema import DIMS


def named_states(states: Any, dims: Sequence[str] | Mapping[str, str] | None) -> xr.DataArray:
    """Return the states as a DataArray with depthflow's dim names; values untouched where possible."""
    if isinstance(states, xr.DataArray):
        if dims is not None and not isinstance(dims, Mapping):
            raise TrajectoryError(
                "trajectory: for a DataArray, dims maps its names to depthflow's, as {'layer': 'depth'}."
            )
        absent = [old for old in dims or {} if old not in states.dims]
        if absent:
            raise TrajectoryError(
                f"trajectory: dims renames {absent[0]!r}, but the array has {tuple(map(str, states.dims))}."
            )
        return states.rename(dict(dims or {}))
    if isinstance(dims, Mapping):
        raise TrajectoryError("trajectory: for a plain array, dims lists the names of its axes in order.")
    if isinstance(states, list | tuple):
        return _stacked(states, dims)
    array = as_numpy(states)
    if dims is None:
        if array.ndim not in (2, 4):
            raise TrajectoryError(
                f"trajectory: an array of {array.ndim} axes, shape {array.shape}, can be read in several ways. "
                "Name them, as in dims=('sample', 'depth', 'feature') or dims=('depth', 'token', 'feature')."
            )
        dims = DIMS if array.ndim == 4 else ("depth", "feature")
    _check_names(dims, array.shape)
    return xr.DataArray(array, dims=tuple(dims))


def _stacked(states: Sequence[Any], dims: Sequence[str] | None) -> xr.DataArray:
    if not states:
        raise TrajectoryError("trajectory: needs one array a depth; got an empty sequence.")
    arrays = [as_numpy(state) for state in states]
    odd = next((depth for depth, array in enumerate(arrays) if array.shape != arrays[0].shape), None)
    if odd is not None:
        raise TrajectoryError(
            f"trajectory: all depths need the same shape; depth 0 has {arrays[0].shape}, "
            f"depth {odd} has {arrays[odd].shape}."
        )
    if dims is None:
        if arrays[0].ndim != 3:
            raise TrajectoryError(
                f"trajectory: each depth's array needs the axes (sample, token, feature); got shape {arrays[0].shape}. "
                "Name its axes with dims, as in dims=('sample', 'feature')."
            )
        dims = ("sample", "token", "feature")
    _check_names(dims, arrays[0].shape)
    at = list(dims).index("sample") + 1 if "sample" in dims else 0
    return xr.DataArray(np.stack(arrays, axis=at), dims=(*dims[:at], "depth", *dims[at:]))


def _check_names(dims: Sequence[str], shape: tuple[int, ...]) -> None:
    if len(dims) != len(shape) or len(set(dims)) != len(dims):
        raise TrajectoryError(
            f"trajectory: dims needs {len(shape)} distinct names for shape {shape}; got {tuple(dims)}."
        )


def as_numpy(states: Any) -> np.ndarray:
    """Return an array or tensor as NumPy; bfloat16, which NumPy lacks, becomes float32."""
    if hasattr(states, "detach"):
        states = states.detach()
        if str(states.dtype) == "torch.bfloat16":
            states = states.float()
        states = states.cpu().numpy()
    array = np.asarray(states)
    if array.dtype == object:
        raise TrajectoryError("trajectory: needs an array of numbers; got ragged or mixed values (dtype object).")
    return array
