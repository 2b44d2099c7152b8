"""Convergence against the machine's read bandwidth, the NumPy expression, and torch eager."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

import depthflow
from benchmarks._harness import Disagreement, Row, exponent, ratio
from depthflow.kernels import angular

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._harness import Rows, Work

FULL, TINY = (48, 13, 197, 384), (2, 5, 9, 64)
RUN = 2**14
COMPILE = """
import time
import numpy as np
import depthflow
from depthflow.kernels import angular
states = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
start = time.perf_counter()
angular.paths(states, 2)
print(time.perf_counter() - start)
"""


def rows(smoke: bool) -> Rows:
    """Give one row for each promise, then the exponents of the cost and the price of the first call."""
    shape = TINY if smoke else FULL
    size = "×".join(map(str, shape)) + " float32"
    states = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    last = shape[1] - 1

    def four() -> angular.Paths:
        return angular.paths(states, last, updates=False)

    def every() -> angular.Paths:
        return angular.paths(states, last)

    def bandwidth() -> np.ndarray:
        return _read(states.ravel())

    read = _agreed_sum(bandwidth(), states)
    four_name = "convergence kernel: norm, alignment, angle, speed"
    every_name = "convergence kernel: every variable"
    limit = "read bandwidth (Numba sum)"
    yield Row(four_name, size, limit, ratio(bandwidth, four), 0.75, True, read)
    yield Row(every_name, size, limit, ratio(bandwidth, every), 0.5, True, read)
    for peer, expression in (("the NumPy expression", _numpy_four), ("torch eager, CPU", _torch_four)):
        theirs = _bound(expression, states)
        yield Row(four_name, size, peer, ratio(theirs, four, 5), 12.0, True, _agreed(four(), theirs()))
    theirs = _bound(_numpy_every, states)
    yield Row(every_name, size, "the NumPy expression", ratio(theirs, every, 5), 12.0, True, _agreed(every(), theirs()))
    traj = depthflow.trajectory(states)
    public = _bound(depthflow.convergence, traj)
    agreement = _agreed(every(), {name: public()[name].values for name in ("norm", "angle", "speed", "turning")})
    yield Row(
        "convergence(traj), the public call", size, "its own kernel", ratio(public, every), 1.15, False, agreement
    )
    yield from _growth(smoke)
    if not smoke:
        yield Row("convergence, first call", "any", "seconds, empty cache", _first_call(), None, False, "–")


@numba.njit(fastmath={"reassoc"}, nogil=True)
def _run_sum(run: np.ndarray) -> float:
    total = np.float32(0)
    for i in range(run.size):
        total += run[i]
    return total


@numba.njit(parallel=True, nogil=True)
def _read(values: np.ndarray) -> np.ndarray:
    """Return the sums of runs of values: as little work as reading every one of them allows."""
    sums = np.empty((values.size + RUN - 1) // RUN, np.float32)
    for run in numba.prange(sums.size):
        sums[run] = _run_sum(values[run * RUN : (run + 1) * RUN])
    return sums


def _agreed_sum(sums: np.ndarray, states: np.ndarray) -> str:
    expected = np.add.reduceat(states.ravel(), np.arange(0, states.size, RUN), dtype=np.float64)
    worst = float(np.abs(sums - expected).max())
    if worst > 0.1:
        raise Disagreement(f"the sum that measures the bandwidth is off by {worst}")
    return "sums of all states"


def _numpy_four(states: np.ndarray) -> dict[str, np.ndarray]:
    norm = np.linalg.norm(states, axis=-1)
    unit = states / norm[..., np.newaxis]
    alignment = (unit * unit[:, -1:]).sum(axis=-1)
    cosine = (unit[:, 1:] * unit[:, :-1]).sum(axis=-1)
    angles = {"angle": np.arccos(alignment.clip(-1, 1)), "speed": np.arccos(cosine.clip(-1, 1))}
    return {"norm": norm, "alignment": alignment, **angles}


def _numpy_every(states: np.ndarray) -> dict[str, np.ndarray]:
    result = _numpy_four(states)
    update = np.diff(states, axis=1)
    update_norm = np.linalg.norm(update, axis=-1)
    unit = update / update_norm[..., np.newaxis]
    radial_fraction = (unit * states[:, :-1]).sum(axis=-1) / result["norm"][:, :-1]
    turning = np.full_like(update_norm, np.nan)
    turning[:, 1:] = np.arccos((unit[:, 1:] * unit[:, :-1]).sum(axis=-1).clip(-1, 1))
    return result | {"update_norm": update_norm, "radial_fraction": radial_fraction, "turning": turning}


def _torch_four(states: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    torch.set_num_threads(numba.get_num_threads())
    tensor = torch.from_numpy(states)
    norm = tensor.norm(dim=-1)
    unit = tensor / norm.unsqueeze(-1)
    alignment = (unit * unit[:, -1:]).sum(dim=-1)
    cosine = (unit[:, 1:] * unit[:, :-1]).sum(dim=-1)
    angles = {"angle": alignment.clamp(-1, 1).arccos(), "speed": cosine.clamp(-1, 1).arccos()}
    return {name: value.numpy() for name, value in ({"norm": norm, "alignment": alignment} | angles).items()}


def _bound(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


def _agreed(ours: angular.Paths, theirs: dict[str, np.ndarray]) -> str:
    """Return the largest difference; float32 arccosines near 1 are right to some 1e-3 rad and no more."""
    worst = 0.0
    for name, values in theirs.items():
        difference = np.abs(getattr(ours, name) - values)
        worst = max(worst, float(np.nanmax(difference)))
        if worst > 1e-3 or not np.array_equal(np.isnan(getattr(ours, name)), np.isnan(values)):
            raise Disagreement(f"{name} differs by {worst}")
    return f"within {worst:.0e}"


def _growth(smoke: bool) -> Rows:
    """Fit the exponent of the cost in each size, the others fixed; 1 is linear."""
    fixed = dict(zip(("samples", "depths", "tokens", "features"), TINY if smoke else (8, 13, 197, 384), strict=True))
    for name in ("samples", "tokens", "features"):
        sizes = [fixed[name] * factor for factor in (1, 2, 4)]

        def work(count: int, name: str = name) -> Work:
            states = np.random.default_rng(0).standard_normal(tuple((fixed | {name: count}).values()), dtype=np.float32)
            return lambda: angular.paths(states, states.shape[1] - 1)

        said = "exponent of the cost, 1 is linear"
        fitted = exponent(sizes, work, repeats=7)
        yield Row(f"convergence, growth with {name}", f"{sizes[0]} to {sizes[-1]}", said, fitted, 1.1, False, "–")


def _first_call() -> float:
    """Return the seconds of a first call in a fresh process with nothing compiled."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        done = subprocess.run(
            [sys.executable, "-c", COMPILE], env=environment, capture_output=True, check=True, text=True
        )
    return float(done.stdout)
