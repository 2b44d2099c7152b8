"""A hint to the processor to read ahead: it changes no value.

A path's rows lie far apart in memory, one run of tokens a depth, and processors foresee only unbroken runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from depthflow.kernels._compile import kernel

if TYPE_CHECKING:
    import numpy as np

CACHE_LINE = 64
"""Bytes that one read brings in."""


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_: Any, row: types.Array, index: types.Integer) -> tuple[Any, Any]:
    """Ask for the cache line of ``row[index]``, to be read soon, in the second-level cache."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte_pointer = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte_pointer)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch", (byte_pointer,), ir.FunctionType(ir.VoidType(), [byte_pointer, number, number, number])
        )
        read, second_level, data = number(0), number(2), number(1)
        builder.call(hint, [address, read, second_level, data])
        return context.get_dummy_value()

    return types.void(row, types.intp), generate


@kernel()
def prefetch(row: np.ndarray) -> None:
    """Ask for a whole row, to be read soon, in the second-level cache."""
    for i in range(0, row.size, CACHE_LINE // row.itemsize):
        _prefetch(row, i)
