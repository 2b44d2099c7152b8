"""The BLAS gets its threads back, whoever shared them out, and in whatever order they end."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - loads its BLAS before the threads are counted
from threadpoolctl import threadpool_limits

import depthflow
from depthflow.measures import _threads


def test_inside_the_blas_has_one_thread_and_after_it_what_it_had():
    before = _threads.blas_threads()
    with _threads.threads() as workers:
        assert set(_threads.blas_threads().values()) == {1}
        assert workers.count == max(before.values())
        with _threads.threads() as inner:
            assert inner.count == 1
        assert set(_threads.blas_threads().values()) == {1}
    assert _threads.blas_threads() == before


def test_callers_at_the_same_time_end_in_any_order():
    before = _threads.blas_threads()

    def hold(index: int) -> None:
        with _threads.threads():
            time.sleep(0.001 * (index % 4))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(60)))
    assert _threads.blas_threads() == before


def test_after_an_error_too():
    before = _threads.blas_threads()
    with pytest.raises(ZeroDivisionError), _threads.threads() as workers:
        workers.map(lambda part: 1 // 0, 3, 1)
    assert _threads.blas_threads() == before


def test_results_come_in_order():
    with _threads.threads() as workers:
        assert workers.map(lambda part: (part.start, part.stop), 7, 3) == [(0, 3), (3, 6), (6, 7)]
        assert workers.each(lambda item: 2 * item, [3, 1, 2]) == [6, 2, 4]


def test_under_dask_and_after_a_limit_of_the_users_own():
    before = _threads.blas_threads()
    traj = depthflow.trajectory(np.random.default_rng(0).normal(size=(20, 3, 7, 11)))
    for _ in range(3):
        depthflow.update_spectra(traj.chunk(sample=1)).compute()
        assert _threads.blas_threads() == before
    with threadpool_limits(1, user_api="blas"), _threads.threads() as workers:
        assert workers.count == 1
    assert _threads.blas_threads() == before
    depthflow.update_spectra(traj.chunk(sample=1)).compute()
    assert _threads.blas_threads() == before


def test_the_first_parallel_kernel_leaves_the_threads_of_torch():
    code = (
        "import numpy as np, torch, depthflow; torch.set_num_threads(1);"
        "depthflow.similarity(depthflow.trajectory(np.random.default_rng(0).random((2, 4, 3, 8))));"
        "print(torch.get_num_threads())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
