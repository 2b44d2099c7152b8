"""Restricted Jacobians by pseudo-inverses, exponents by re-orthogonalising at every step, and linear flows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.linalg
import xarray as xr

import depthflow


def pivots(deviations: np.ndarray, rcond: float) -> np.ndarray:
    """Return the rows (draw, feature) that span them all, the farthest from the others' span first."""
    _, factor, order = scipy.linalg.qr(deviations.T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(factor))
    return order[: np.count_nonzero(diagonal > rcond * diagonal[0])]


def gains(before: np.ndarray, after: np.ndarray, rcond: float = 1e-6) -> np.ndarray:
    """Return the singular values of the map that takes the rows of ``before`` (draw, feature) to those of ``after``."""
    chosen = pivots(before, rcond)
    left, values, right = np.linalg.svd(before[chosen].T, full_matrices=False)
    image = after[chosen].T @ (right.T / values)
    assert left.shape[1] == len(chosen)
    return np.linalg.svd(image, compute_uv=False)[: len(chosen)]


def benettin(deviations: np.ndarray) -> np.ndarray:
    """Return the exponents (block, mode) of deviations (depth, draw, feature), none of which is ever dependent.

    Each block's map, from a pseudo-inverse, moves an orthonormal frame, which is made orthonormal again; the logarithms
    of its stretching are summed.
    """
    frame = np.linalg.qr(deviations[0][pivots(deviations[0], 0.0)].T)[0]
    total, found = np.zeros(frame.shape[1]), []
    for block, (before, after) in enumerate(pairwise(deviations), 1):
        moved = after.T @ (np.linalg.pinv(before.T) @ frame)
        frame, factor = np.linalg.qr(moved)
        total = total + np.log(np.abs(np.diag(factor)))
        found.append(total / block)
    return np.array(found)


def linear_flow(
    maps: np.ndarray, deviations: np.ndarray, *, seed: int = 0, offset: float = 0.0, dtype: type = np.float64
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the reference and the perturbed paths of x_ℓ = M_ℓ x_{ℓ−1} + c_ℓ, with M given as (block, out, in).

    ``deviations`` are (draw, sample, token, feature) at depth 0; states there are of norm about √features.
    """
    rng = np.random.default_rng(seed)
    start = rng.normal(size=deviations.shape[1:])
    states = [np.concatenate([start[None], start + deviations])]
    for one in maps:
        states.append(states[-1] @ one.T + offset * rng.normal(size=one.shape[0]))
    paths = np.stack(states, axis=2).astype(dtype)
    reference = depthflow.trajectory(paths[0])
    perturbed = xr.DataArray(paths[1:], dims=("draw", *reference.dims), coords=reference.coords)
    return reference, perturbed
