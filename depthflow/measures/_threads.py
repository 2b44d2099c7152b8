"""Chunks of samples dealt out to plain threads, with the BLAS held to one thread each.

The BLAS's own threads and others fight for the cores. Here each chunk's matrix product and kernel run in one thread,
and the results come back in the chunks' order, so that an answer does not depend on how many threads there are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Result = TypeVar("Result")


class Threads:
    """A pool of ``count`` threads; made by :func:`threads`."""

    def __init__(self, pool: ThreadPoolExecutor, count: int) -> None:
        self._pool, self.count = pool, count

    def map(self, function: Callable[[slice], Result], length: int, size: int) -> list[Result]:
        """Return ``function`` of each slice of at most ``size`` of ``length`` items, in their order."""
        slices = [slice(start, min(start + size, length)) for start in range(0, length, size)]
        if len(slices) == 1 or self.count == 1:
            return [function(part) for part in slices]
        return list(self._pool.map(function, slices))

    def each(self, function: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
        """Return ``function`` of each item, in their order."""
        return self.map(lambda part: function(items[part.start]), len(items), 1)


class _Hold:
    """How many callers hold the BLAS to one thread, and what gives it its threads back."""

    lock = Lock()
    users = 0
    limiter: Any = None


@contextmanager
def threads() -> Iterator[Threads]:
    """Give as many threads as the BLAS was allowed, and the BLAS one in each of them.

    The BLAS's limit is the whole process's. So of callers at the same time, as in dask's workers, the first sets it,
    the last restores it, and all but the first get one thread.
    """
    count = _hold()
    try:
        with ThreadPoolExecutor(count) as pool:
            yield Threads(pool, count)
    finally:
        _release()


def _hold() -> int:
    with _Hold.lock:
        _Hold.users += 1
        if _Hold.users > 1:
            return 1
        blas = ThreadpoolController().select(user_api="blas")
        count = max((library.num_threads for library in blas.lib_controllers), default=1)
        _Hold.limiter = blas.limit(limits=1)
        return count


def _release() -> None:
    with _Hold.lock:
        _Hold.users -= 1
        if _Hold.users == 0:
            _Hold.limiter.restore_original_limits()
