"""Directions of all samples along depth, seen in the three principal dimensions of the final ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthflow.lazy import loaded_parts
from depthflow.measures._directions import reduce_tokens
from depthflow.measures._ufunc import prepare
from depthflow.plot._sphere import principal_sphere
from depthflow.schema import CLS, DISTILLATION, MEAN, PATCH, REGISTER, TOKEN, labels, token_types

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

SHOWN_TYPES = {
    CLS: "class token",
    REGISTER: "registers, mean direction",
    DISTILLATION: "distillation token",
    PATCH: "patches, mean direction",
    MEAN: "mean of the patches",
    TOKEN: "all tokens, mean direction",
}
"""What the view calls the tokens of each type; padding has no direction of its own to show."""
WHOLE = 32767
"""The integer that stands for 1."""
BYTES_A_POINT = 6
BUDGET = 3_200_000
"""Bytes of all directions in the file, before they are written as text."""
MOST_SAMPLES = 10_000
PART = 64
"""Samples of a trajectory in memory that are taken at a time."""


class View(NamedTuple):
    """One kind of token of one trajectory: ``points`` int16 (depth, axis, sample), and ``kept`` (depth,).

    ``kept`` is the mean over samples of the share of the squared length that the three axes hold at a depth.
    """

    kind: str
    points: np.ndarray
    kept: np.ndarray


def shown_types(traj: xr.DataArray) -> list[str]:
    """Return the types of token that can be shown, in the order of preference."""
    types = token_types(traj) if "token" in traj.dims else [TOKEN]
    return [kind for kind in SHOWN_TYPES if kind in types]


def shown_samples(traj: xr.DataArray, kinds: int) -> np.ndarray:
    """Return the positions of the samples to show: all, or as many evenly spaced ones as the file has room for."""
    samples = traj.sizes["sample"]
    room = BUDGET // max(1, kinds * traj.sizes["depth"] * BYTES_A_POINT)
    count = max(1, min(samples, room, MOST_SAMPLES))
    return np.unique(np.linspace(0, samples - 1, count).round().astype(np.int64))


def view(traj: xr.DataArray, kind: str, samples: np.ndarray) -> View:
    """Return the view of a ``kind`` of token of the chosen samples.

    The axes are the three principal directions of the chosen samples' final directions; every direction is projected
    onto them and brought back to length 1. The states are read twice, part by part.

    Raises
    ------
    TrajectoryError
        If a state has no direction, or the directions of a sample's tokens cancel.
    """
    chosen = prepare(traj, "report", tokens=kind if "token_type" in traj.coords else None)[0]
    final = np.concatenate([_units(part)[:, 0] for part in _parts(chosen.isel(depth=slice(-1, None)), samples)])
    basis, _ = principal_sphere(final)
    points = np.empty((traj.sizes["depth"], 3, len(samples)), dtype=np.int16)
    kept, start = np.zeros(traj.sizes["depth"]), 0
    for part in _parts(chosen, samples):
        seen = _units(part) @ basis
        length = np.linalg.norm(seen, axis=2, keepdims=True)
        kept += (length[:, :, 0] ** 2).sum(axis=0)
        # What has nothing in these dimensions stays in the middle.
        placed = np.divide(seen, length, out=np.zeros_like(seen), where=length > 1e-9)
        points[:, :, start : start + len(seen)] = np.round(placed * WHOLE).transpose(1, 2, 0)
        start += len(seen)
    return View(kind, points, kept / len(samples))


def _parts(traj: xr.DataArray, samples: np.ndarray) -> Iterator[xr.DataArray]:
    """Give the samples in parts, of which no more than two are in memory beside the trajectory."""
    if traj.chunks is not None:
        yield from loaded_parts(traj.isel(sample=samples))
        return
    for start in range(0, len(samples), PART):
        yield traj.isel(sample=samples[start : start + PART])


def _units(part: xr.DataArray) -> np.ndarray:
    paths = reduce_tokens(part, "report")
    return np.asarray(paths.states / paths.norm[:, :, None], dtype=np.float64)


def depths(traj: xr.DataArray) -> list[int]:
    """Return the depths' labels."""
    return [int(depth) for depth in labels(traj, "depth")]
