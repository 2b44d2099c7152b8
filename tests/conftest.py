"""Fixtures shared by the suite; every size is distinct, so that a swapped axis fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import depthflow

if TYPE_CHECKING:
    import xarray as xr

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
