"""Dynamic mode decomposition against one least-squares problem of all stacked pairs, in time and in memory."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, exponent, ratio
from depthflow.measures._linear_maps import PIECE_BYTES

if TYPE_CHECKING:
    import xarray as xr

TOLERANCE = 1e-9


def drifting(samples: int, depths: int, tokens: int, features: int) -> xr.DataArray:
    """Return float32 states that each block changes by a random step."""
    steps = np.random.default_rng(0).normal(size=(samples, depths, tokens, features)).astype(np.float32)
    return depthflow.trajectory(steps.cumsum(1))


def stacked(traj: xr.DataArray) -> np.ndarray:
    """Return the operator as NumPy gives it with all pairs in memory, in float64."""
    states = traj.values.astype(np.float64)
    features = states.shape[-1]
    before, after = (states[:, part].reshape(-1, features) for part in (slice(None, -1), slice(1, None)))
    return np.linalg.lstsq(before, after, rcond=None)[0].T


def agreement(got: np.ndarray, expected: np.ndarray) -> str:
    """Return the largest difference, or raise."""
    error = float(np.abs(got - expected).max())
    if not error <= TOLERANCE:
        raise Disagreement(f"difference {error:.1e} above {TOLERANCE}")
    return f"{error:.0e} absolute"


def peak(traj: xr.DataArray) -> int:
    """Return the most bytes that the measure held beside the states."""
    tracemalloc.start()
    depthflow.dmd(traj)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def rows(smoke: bool) -> Rows:
    """Yield the rows of time, of its growth with samples, and of memory."""
    samples, depths, tokens, features = (6, 5, 7, 11) if smoke else (64, 13, 65, 192)
    repeats = 1 if smoke else 3
    traj = drifting(samples, depths, tokens, features)
    size = "×".join(map(str, traj.shape))
    close = agreement(depthflow.dmd(traj).operator.values, stacked(traj))
    for name, horizons in (("dmd, one block ahead", 1), ("dmd, all horizons and baselines", None)):
        measured = ratio(
            lambda horizons=horizons: depthflow.dmd(traj, horizons=horizons), lambda: stacked(traj), repeats
        )
        target = 1.0 if horizons else None
        yield Row(name, size, "numpy.linalg.lstsq of all pairs", 1 / measured, target, True, close)

    counts = [max(2, samples // 4), samples // 2, samples]
    grows = exponent(counts, lambda count: lambda: depthflow.dmd(traj[:count]), repeats)
    yield Row("dmd, growth with samples", f"{counts[0]}–{counts[-1]} samples", "linear cost", grows, 1.1, False, close)
    bound = 3 * (depths - 1) * features**2 * 8 + 8 * PIECE_BYTES
    held = peak(traj) / bound
    yield Row("dmd, memory", size, "its matrices and eight pieces", held, 1.0, False, close)
