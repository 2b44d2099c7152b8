"""The one door between labelled trajectories and array kernels.

A measure that works sample by sample gives :func:`samplewise` a function of one plain block of states (sample, depth,
token, feature); it comes back as a Dataset whose coords are the trajectory's, in memory or dask-backed like the input.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from depthflow.errors import TrajectoryError
from depthflow.schema import DIMS, check, check_consecutive, describe, labels
from depthflow.trajectories import Tokens, block_coords, token_indices

SAMPLEWISE = {"samplewise": 1}
"""Attribute of a result in which each sample is treated by itself, so that resampling needs no second computation."""

Outputs = Mapping[str, Sequence[str]]
"""Name of each output → its dims after ``sample``, in the order in which the kernel returns them."""


class Where:
    """The labels of one block of states, with which an error says where a value lies in the whole trajectory."""

    def __init__(self, sample: np.ndarray, depth: np.ndarray, token: np.ndarray) -> None:
        self.sample, self.depth, self.token = sample, depth, token

    @classmethod
    def of(cls, traj: xr.DataArray) -> Where:
        """Return the labels of a prepared trajectory."""
        return cls(*(labels(traj, dim) for dim in DIMS[:3]))

    def require_directions(self, norm: np.ndarray, measure: str, *, allow_nan: bool | None = False) -> None:
        """Raise unless every ``norm`` (sample, depth, token) is finite and positive, naming the first that is not.

        With ``allow_nan`` states without a direction pass, and what depends on them is NaN; None is for measures that
        have no such choice.
        """
        if allow_nan or (norm.min() > 0 and norm.max() < np.inf):  # false where there is a NaN
            return
        bad = np.argwhere(~((norm > 0) & np.isfinite(norm)))
        sample, depth, token = bad[0]
        value = norm[sample, depth, token]
        problem = "a zero-norm state, which has no direction" if value == 0 else f"a state of norm {value}"
        choice = "" if allow_nan is None else ", or pass allow_nan=True"
        raise TrajectoryError(
            f"{measure} found {problem}, first at sample {self.sample[sample]}, depth {self.depth[depth]}, token "
            f"{self.token[token]} ({len(bad)} in this part). Remove such samples or tokens{choice}."
        )


_ONE_AT_A_TIME = Lock()

Kernel = Callable[..., tuple[np.ndarray, ...]]
Result = TypeVar("Result")


def prepare(
    traj: object, measure: str, *, tokens: Tokens = None, consecutive: bool = False
) -> tuple[xr.DataArray, list[str]]:
    """Return the trajectory with all four dims in order, its tokens chosen, and the dims that it lacked."""
    checked = check(traj, measure)
    if consecutive:
        check_consecutive(checked, measure)
    if tokens is not None:
        chosen = token_indices(checked, tokens, measure)
        run = len(chosen) == chosen[-1] - chosen[0] + 1 and bool(np.all(np.diff(chosen) == 1))
        # A slice is a view, which saves a copy of the states.
        checked = checked.isel(token=slice(chosen[0], chosen[-1] + 1) if run else chosen)
    lacking = [dim for dim in DIMS if dim not in checked.dims]
    if "depth" not in checked.coords:
        checked = checked.assign_coords(depth=labels(checked, "depth"))
    if lacking:
        checked = checked.expand_dims(lacking)
    return checked if checked.dims == DIMS else checked.transpose(*DIMS), lacking


def exclusively(kernel: Callable[..., Result], *arguments: Any) -> Result:
    """Run ``kernel`` while no other one runs: each takes all cores, and not every threading layer of Numba lets two in.

    So of dask's threads one computes while the others read.
    """
    with _ONE_AT_A_TIME:
        return kernel(*arguments)


def as_states(block: np.ndarray) -> np.ndarray:
    """Return states as a contiguous float32 or float64 array; half precision becomes float32, which is exact."""
    dtype = np.float64 if block.dtype == np.float64 else np.float32
    return np.ascontiguousarray(block, dtype=dtype)


def samplewise(
    traj: xr.DataArray,
    lacking: Sequence[str],
    kernel: Kernel,
    outputs: Outputs,
    *,
    sizes: Mapping[str, int] | None = None,
    beside: Sequence[xr.DataArray] = (),
) -> xr.Dataset:
    """Run ``kernel`` on the prepared trajectory and return its outputs, labelled.

    Parameters
    ----------
    traj, lacking
        As :func:`prepare` returns them.
    kernel : callable
        From a block (sample, depth, token, feature), its :class:`Where` and the same samples of ``beside``, to one
        float64 array an output, each with ``sample`` first.
    outputs : mapping
        Each output's name and its dims after ``sample``; ``block`` stands for depth less its first.
    sizes : mapping
        Sizes of output dims that are neither ``block`` nor the trajectory's.
    beside : sequence of DataArray
        What the kernel needs of each sample beside its states: in memory or dask-backed (in one chunk but along
        ``sample``), each with ``sample`` first.
    """
    core = ("depth", "token", "feature")
    sample, depth, token = (labels(traj, dim) for dim in DIMS[:3])

    def block(states: np.ndarray, samples: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
        return exclusively(kernel, as_states(states), Where(samples, depth, token), *others)

    along_sample = [xr.Variable("sample", sample), *(other.variable for other in beside)]
    names = list(outputs)
    if traj.chunks is None:
        arrays = block(traj.values, *(other.values for other in along_sample))
        given = {name: (("sample", *outputs[name]), array) for name, array in zip(names, arrays, strict=True)}
        return label(given, traj, lacking, SAMPLEWISE)
    # The states alone: xarray would chunk labels too, at odds with the states.
    chunked = traj.variable.chunk(dict.fromkeys(core, -1))
    along_sample = [other.chunk(sample=chunked.chunksizes["sample"]) for other in along_sample]
    results = xr.apply_ufunc(
        block,
        chunked,
        *along_sample,
        input_core_dims=[core, *(other.dims[1:] for other in along_sample)],
        output_core_dims=[tuple(outputs[name]) for name in names],
        keep_attrs=False,
        dask="parallelized",
        output_dtypes=[np.float64] * len(names),
        dask_gufunc_kwargs={"output_sizes": {"block": len(depth) - 1, **(sizes or {})}},
    )
    lazy = results if isinstance(results, tuple) else (results,)
    return label(dict(zip(names, lazy, strict=True)), traj, lacking, SAMPLEWISE)


def label(
    variables: Mapping[str, Any], traj: xr.DataArray, lacking: Sequence[str], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Return ``variables`` with the trajectory's coords, the coords of ``block``, units and names, less ``lacking``."""
    given = {name: xr.as_variable(variable) for name, variable in variables.items()}
    dims = {dim for variable in given.values() for dim in variable.dims} - {"feature"}
    coords: dict[Hashable, Any] = {
        name: coord for name, coord in traj.coords.variables.items() if set(coord.dims) <= dims
    }
    if "block" in dims:
        coords.update(block_coords(traj))
    result = describe(xr.Dataset(given, coords, dict(attrs)))
    dropped = {dim: 0 for dim in lacking if dim in dims}
    return result.isel(dropped, drop=True) if dropped else result
