"""On a cluster of processes every measure gives what it gives in memory, and the states stay with the workers."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import depthflow
from depthflow.errors import TrajectoryError
from depthflow.measures import _cluster
from tests.tolerances import EXACT, FLOAT64

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = (13, 6, 7, 11)
CHUNKS = ((3, 3, 3, 3, 1), (6,), (7,), (11,))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as workers,
        Client(workers) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def traj() -> xr.DataArray:
    states = np.random.default_rng(0).normal(size=SHAPE)
    return depthflow.trajectory(np.cumsum(states, axis=1), token_type=["cls"] + ["patch"] * 6, label=np.arange(13) % 3)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch) -> None:
    """Two chunks a task, three tasks, and so a tree of merges."""
    monkeypatch.setattr(_cluster, "GROUP_BYTES", 6 * np.prod(SHAPE[1:]) * 8)
    monkeypatch.setattr(_cluster, "FAN_IN", 2)


def perturbed(traj: xr.DataArray) -> list[xr.DataArray]:
    return [traj * (1 + 0.01 * np.cos(np.arange(11) + draw)) for draw in range(3)]


def corrected(traj: xr.DataArray) -> xr.Dataset:
    """Return the errors of an operator of states so nearly in a subspace that a second reading corrects it."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(11, 11)))[0]
    result = depthflow.dmd(traj.copy(data=traj.data @ (turn * np.geomspace(1, 1e-3, 11)) @ turn.T))
    assert result.attrs["condition"] > 100
    return result[["error", "error_endpoint"]]


POOLED: dict[str, Any] = {
    "similarity": depthflow.similarity,
    "phases": partial(depthflow.phases, n_boot=9, n_null=9),
    "pooled spectra": partial(depthflow.update_spectra, pool=True, center=True),
    "pooled spectra, exact": partial(depthflow.update_spectra, pool=True, exact=True),
    "dmd": depthflow.dmd,
    "dmd, corrected": corrected,
    "dmd with test": lambda traj: depthflow.dmd(traj, ridge=1e-6, test=traj.isel(sample=slice(0, 7))),
}
OTHERS: dict[str, Any] = {
    "cka": partial(depthflow.similarity, metric="cka"),
    "procrustes": partial(depthflow.similarity, metric="procrustes", tokens="cls"),
    "convergence": depthflow.convergence,
    "coherence": depthflow.coherence,
    "spectra": depthflow.update_spectra,
    "basins": partial(depthflow.basins, n_basins=3),
    "bootstrap": partial(depthflow.bootstrap, depthflow.coherence, n=3),
    "bootstrap of a pooled measure": partial(depthflow.bootstrap, depthflow.similarity, n=2),
    "random_directions": depthflow.random_directions,
    "finite_jacobian": lambda traj: depthflow.finite_jacobian(traj, perturbed(traj)),
}


def variables(result: xr.Dataset | xr.DataArray) -> dict[str, np.ndarray]:
    dataset = result.to_dataset(name="it") if isinstance(result, xr.DataArray) else result
    return {str(name): variable.values for name, variable in dataset.compute().variables.items()}


def same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: Any = FLOAT64) -> None:
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind in "fc":
            np.testing.assert_allclose(got[name], values, **tolerance)
        else:
            assert got[name].tolist() == values.tolist()


@pytest.mark.parametrize("measure", (POOLED | OTHERS).values(), ids=POOLED | OTHERS)
def test_on_a_cluster_in_threads_and_in_memory_answers_are_the_same(cluster, traj, measure):
    lazy = traj.chunk(sample=3)
    got = variables(measure(lazy))
    with dask.config.set(scheduler="threads"):
        same(got, variables(measure(lazy)))
    same(got, variables(measure(traj)))


def read_elsewhere(states: np.ndarray, caller: int, block_info: Any = None) -> np.ndarray:
    assert os.getpid() != caller, "the states were read by the caller"
    return states[slice(*block_info[None]["array-location"][0])]


@pytest.mark.parametrize("name", ["similarity", "pooled spectra", "dmd, corrected"])
def test_states_are_read_by_workers_only(cluster, traj, name):
    measure = POOLED[name]
    read = partial(read_elsewhere, traj.values, os.getpid())
    lazy = traj.copy(data=da.map_blocks(read, chunks=CHUNKS, dtype=np.float64, meta=np.empty((0, 0, 0, 0))))
    same(variables(measure(lazy)), variables(measure(traj)))
    with dask.config.set(scheduler="threads"), pytest.raises(AssertionError, match="read by the caller"):
        measure(lazy)


@pytest.mark.parametrize("name", ["phases", "pooled spectra, exact", "dmd with test"])
def test_the_number_of_workers_and_where_states_lie_change_nothing(cluster, traj, name):
    measure = POOLED[name]
    lazy = traj.chunk(sample=3)
    two = variables(measure(lazy))
    with dask.annotate(workers=[next(iter(cluster.scheduler_info()["workers"]))]):
        one = variables(measure(lazy))
    same(one, two, EXACT)
    same(variables(measure(lazy.persist())), two, EXACT)


def test_a_state_that_is_not_finite_is_named_by_its_label(cluster, traj):
    broken = traj.copy(deep=True).assign_coords(sample=np.arange(13) * 10)
    broken[7, 4, 2, 9] = np.nan
    with pytest.raises(TrajectoryError, match="finite states; got nan first at sample 70, depth 4, token 2, feature 9"):
        depthflow.dmd(broken.chunk(sample=3))


def test_a_store_is_read_by_the_workers(cluster, traj, tmp_path):
    depthflow.save_trajectory(traj.chunk(sample=3), tmp_path / "states.zarr")
    stored = depthflow.open_trajectory(tmp_path / "states.zarr")
    same(variables(depthflow.similarity(stored)), variables(depthflow.similarity(traj)))
