"""Spectra of updates against LAPACK's SVD, as NumPy and torch call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, ratio
from depthflow.kernels import lowrank

if TYPE_CHECKING:
    from collections.abc import Callable

PROMISE = 1e-5
"""Relative error that every singular value above 1e-6 of the largest may have."""


def matrices(count: int, rows: int, columns: int, least: float) -> np.ndarray:
    """Return float32 matrices whose singular values decay geometrically from 1 to ``least``."""
    rng = np.random.default_rng(0)
    values = np.geomspace(1, least, min(rows, columns))
    found = []
    for _ in range(count):
        left = np.linalg.qr(rng.normal(size=(rows, len(values))))[0]
        right = np.linalg.qr(rng.normal(size=(columns, len(values))))[0]
        found.append((left * values) @ right.T)
    return np.array(found, dtype=np.float32)


def agreement(got: np.ndarray, reference: np.ndarray) -> str:
    """Return the largest relative error where the reference is above 1e-6 of its largest, or raise."""
    promised = reference >= 1e-6 * reference.max(-1, keepdims=True)
    error = float(np.abs(got / reference - 1)[promised].max())
    if not error <= PROMISE:
        raise Disagreement(f"relative error {error:.1e} above {PROMISE}")
    return f"{error:.0e} relative"


def peers(values: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return the two SVDs of the same numbers in float64, which the promised accuracy takes."""
    double = values.astype(np.float64)
    tensor = torch.from_numpy(double)
    return {
        "numpy.linalg.svd, float64": lambda: np.linalg.svd(double, compute_uv=False),
        "torch.linalg.svdvals, float64": lambda: torch.linalg.svdvals(tensor),
    }


def rows(smoke: bool) -> Rows:
    """Yield the rows of all modes and of the stable rank alone."""
    count, height, width = (3, 17, 24) if smoke else (32, 197, 384)
    repeats = 1 if smoke else 7
    for least, target in ((1e-3, 3.0), (1e-6, None)):
        values = matrices(count, height, width, least)
        size = f"{count} matrices {height}×{width}, decay to {least:.0e}"
        states = np.stack([np.zeros_like(values), values], axis=1)
        traj = depthflow.trajectory(states)
        reference = np.linalg.svd(values.astype(np.float64), compute_uv=False)
        stable = (reference**2).sum(1) / reference[:, 0] ** 2
        close = agreement(depthflow.update_spectra(traj).singular_value.values[:, 0], reference)
        for name, theirs in peers(values).items():
            measured = ratio(lambda traj=traj: depthflow.update_spectra(traj), theirs, repeats)
            yield Row("update_spectra, all modes", size, name, 1 / measured, target, True, close)
        if target is None:
            continue
        with threadpool_limits(1):
            measured = ratio(lambda traj=traj: depthflow.update_spectra(traj), peers(values)[next(iter(peers(values)))])
        yield Row("update_spectra, one thread", size, "numpy, one thread", 1 / measured, None, True, close)
        close = agreement(lowrank.stable_rank(values)[:, None], stable[:, None])
        for name, theirs in peers(values).items():
            measured = ratio(lambda values=values: lowrank.stable_rank(values), theirs, repeats)
            yield Row("stable_rank alone", size, name, 1 / measured, 8.0, True, close)
