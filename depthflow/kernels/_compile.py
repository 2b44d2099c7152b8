"""The one place that sets Numba's options.

Of LLVM's relaxations only ``reassoc`` (sums may be reordered, so that they vectorise) and ``contract`` (fused
multiply-add) are allowed: NaN and Inf keep their meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., object])

FAST = {"reassoc", "contract"}


def kernel(*, parallel: bool = False) -> Callable[[Function], Function]:
    """Return the decorator that compiles a kernel: cached on disk, GIL released, errors as in NumPy."""

    def decorate(function: Function) -> Function:
        compiled: Function = numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy", parallel=parallel)(
            function
        )
        return compiled

    return decorate
