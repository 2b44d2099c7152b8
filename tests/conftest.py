"""Fixtures shared by the suite; every size is distinct, so that a swapped axis fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

import depthflow
from depthflow import kernels

if TYPE_CHECKING:
    import xarray as xr


def _drop_stale_kernels() -> None:
    """Numba's cache sees a change of a kernel's own file only, not of a kernel that it calls from another file."""
    folder = Path(kernels.__file__).parent
    cached = [*(folder / "__pycache__").glob("*.nb[ic]")]
    changed = max(source.stat().st_mtime for source in folder.glob("*.py"))
    if any(file.stat().st_mtime < changed for file in cached):
        for file in cached:
            file.unlink(missing_ok=True)


_drop_stale_kernels()

# In continuous integration the same examples each time: what they find there must be a change's own doing.
settings.register_profile("ci", derandomize=True)
if "CI" in os.environ:
    settings.load_profile("ci")

SAMPLES, DEPTHS, TOKENS, FEATURES = 3, 6, 7, 11


@pytest.fixture
def states() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES))


@pytest.fixture
def traj(states: np.ndarray) -> xr.DataArray:
    return depthflow.trajectory(
        states,
        token_type=["cls"] + ["patch"] * 6,
        grid=(2, 3),
        label=[4, 5, 4],
        attrs={"modules": [f"blocks.{index}" for index in range(DEPTHS - 1)]},
    )
