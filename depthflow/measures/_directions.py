"""One direction for each sample and depth: that of a token, or the mean of several tokens' directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from depthflow.errors import TrajectoryError
from depthflow.kernels import sphere
from depthflow.measures._ufunc import Where, as_states
from depthflow.schema import CLS, DIMS, check, labels, leading_tokens, token_types

if TYPE_CHECKING:
    from depthflow.trajectories import Tokens


class Choice(NamedTuple):
    """The tokens to use, and what to say of them in the result."""

    tokens: Tokens
    said: str


class Paths(NamedTuple):
    """``states`` (sample, depth, feature), of any norm, with their ``norm`` (sample, depth) in float64."""

    states: np.ndarray
    norm: np.ndarray


def choose(traj: xr.DataArray, tokens: Tokens, measure: str) -> Choice:
    """Return ``tokens``, or where ``"cls"`` is asked of a trajectory without one, what stands in for it."""
    traj = check(traj, measure)
    if "token" not in traj.dims:
        return Choice(None if isinstance(tokens, str) and tokens == CLS else tokens, "the only token")
    if not (isinstance(tokens, str) and tokens == CLS):
        return Choice(tokens, "all tokens" if tokens is None else str(tokens))
    found = leading_tokens(token_types(traj))
    return Choice(found, found if isinstance(found, str) else "all tokens")


def reduce_tokens(traj: xr.DataArray, measure: str) -> Paths:
    """Return the paths of a prepared trajectory, read chunk by chunk along ``sample`` if it is dask-backed.

    A single token's states are kept as they are; several tokens' unit vectors are averaged and the mean made a unit
    vector in float64. O(sample · depth · token · feature) time; the result takes sample · depth · feature numbers.
    """
    sample, depth, token = (labels(traj, dim) for dim in DIMS[:3])
    single = traj.sizes["token"] == 1
    dtype = np.float32 if single and traj.dtype != np.float64 else np.float64

    def block(states: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        states = as_states(states)
        norm = np.empty(states.shape[:3])
        sphere.norms(states.reshape(-1, states.shape[3]), norm.reshape(-1))
        Where(samples, depth, token).require_directions(norm, measure, allow_nan=None)
        if single:
            return states[:, :, 0], norm[:, :, 0]
        mean = np.empty((*norm.shape[:2], states.shape[3]))
        sphere.mean_directions(states, norm, mean)
        lost = np.argwhere(np.isnan(mean[:, :, 0]))
        if len(lost):
            raise TrajectoryError(
                f"{measure} found tokens whose directions cancel, so that their mean has none, first at sample "
                f"{samples[lost[0][0]]}, depth {depth[lost[0][1]]} ({len(lost)} in this part). Remove such samples, "
                "or choose one token."
            )
        return mean, np.ones(norm.shape[:2])

    states_only, position = xr.DataArray(traj.variable), xr.DataArray(sample, dims="sample")
    if traj.chunks is not None:
        states_only = states_only.chunk(dict.fromkeys(("depth", "token", "feature"), -1))
        position = position.chunk(sample=states_only.chunksizes["sample"])
    states, norm = xr.apply_ufunc(
        block,
        states_only,
        position,
        input_core_dims=[("depth", "token", "feature"), ()],
        output_core_dims=[("depth", "feature"), ("depth",)],
        dask="parallelized",
        output_dtypes=[dtype, np.float64],
    )
    computed = xr.Dataset({"states": states, "norm": norm}).compute()
    return Paths(computed["states"].values, computed["norm"].values)
