"""Chunks of samples dealt out to plain threads, with the BLAS held to one thread each.

The BLAS's own threads and others fight for the cores. Here each chunk's matrix product and kernel run in one thread,
and the results come back in the chunks' order, so that an answer does not depend on how many threads there are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
    """How many callers hold the BLAS to one thread, its loaded libraries, and how many threads each had before."""

    lock = Lock()
    users = 0
    libraries: Sequence[Any] = ()
    before: Mapping[str, int] = {}


@contextmanager
def threads() -> Iterator[Threads]:
    """Give as many threads as the BLAS was allowed, and the BLAS one in each of them.

    The BLAS's limit is the whole process's. So of callers at the same time, as in dask's workers, the first sets it,
    the last restores it, and all but the first get one thread. Where the BLAS keeps its threads, because a thread of
    someone else's has charge of them, there is one thread here.
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
        _Hold.libraries = _libraries()
        _Hold.before = {library.filepath: library.num_threads for library in _Hold.libraries}
        single = _set_blas_threads(_Hold.libraries, dict.fromkeys(_Hold.before, 1))
        return max(_Hold.before.values(), default=1) if single else 1


def _release() -> None:
    with _Hold.lock:
        _Hold.users -= 1
        if _Hold.users == 0:
            _set_blas_threads(_Hold.libraries, _Hold.before)


def blas_threads() -> dict[str, int]:
    """Return how many threads each loaded BLAS may use, by the library's path."""
    return {library.filepath: library.num_threads for library in _libraries()}


def _libraries() -> list[Any]:
    """Return the loaded libraries, which takes a millisecond as all that the process has loaded is looked through."""
    libraries: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


def _set_blas_threads(libraries: Sequence[Any], numbers: Mapping[str, int]) -> bool:
    """Set the number of threads of each library and return whether that took.

    From version 3.8 threadpoolctl obeys only the first thread that ever set them, for as long as it lives. A thread
    that ends at once takes charge without keeping it, so that another may restore what this one set; where the caller
    is in charge already, it does the same by itself.
    """

    def set_all() -> None:
        for library in libraries:
            library.set_num_threads(numbers[library.filepath])

    def took() -> bool:
        return all(library.num_threads == numbers[library.filepath] for library in libraries)

    brief = Thread(target=set_all)
    brief.start()
    brief.join()
    if not took():
        set_all()
    return took()
