"""The one place that sets Numba's options.

Of LLVM's relaxations only ``reassoc`` (sums may be reordered, so that they vectorise) and ``contract`` (fused
multiply-add) are allowed: NaN and Inf keep their meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import numba
from threadpoolctl import ThreadpoolController

Function = TypeVar("Function", bound=Callable[..., object])

FAST = {"reassoc", "contract"}


def kernel(*, parallel: bool = False) -> Callable[[Function], Function]:
    """Return the decorator that compiles a kernel: cached on disk, GIL released, errors as in NumPy."""

    def decorate(function: Function) -> Function:
        compiled: Function = numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy", parallel=parallel)(
            function
        )
        return _with_threads(compiled) if parallel else compiled

    return decorate


def _with_threads(compiled: Function) -> Function:
    """Return a parallel kernel that first sees to Numba's threads; no other kernel calls it."""

    @wraps(compiled)
    def call(*arrays: Any) -> object:
        _start_threads()
        return compiled(*arrays)

    return call  # type: ignore[return-value]


@cache
def _start_threads() -> None:
    """Start Numba's threads, which by the way sets OpenMP's for all libraries, and give these back what they had."""
    libraries = ThreadpoolController().select(user_api="openmp").lib_controllers
    before = [library.num_threads for library in libraries]
    numba.get_num_threads()
    for library, count in zip(libraries, before, strict=True):
        library.set_num_threads(count)
