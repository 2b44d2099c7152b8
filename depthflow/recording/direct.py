"""A zarr store on a local disk whose large chunks pass by the page cache."""

from __future__ import annotations

import asyncio
import errno
import os
from math import prod
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import torch
from zarr.storage import LocalStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor
    from zarr.core.buffer import Buffer

ALIGN = 4096
"""Bytes to whose multiples addresses and lengths keep: no disk asks for more."""

LEAST = 2**20
"""Bytes from which a file is written directly; smaller ones are metadata and columns."""


def aligned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised CPU tensor that begins at a multiple of ``ALIGN``."""
    size = prod(shape) * dtype.itemsize
    room = torch.empty(size + ALIGN, dtype=torch.uint8, device="cpu")
    start = -room.data_ptr() % ALIGN
    return room[start : start + size].view(dtype).view(*shape)


class DirectStore(LocalStore):
    """Writes chunks straight from memory to the disk, as long as ``direct`` stands.

    The kernel then neither looks for pages nor copies the states into them: where the model keeps all cores busy, that
    is time it would wait for. What the file system or a chunk's place in memory does not allow for goes through the
    page cache, as does all when ``direct`` is off.
    """

    direct = hasattr(os, "O_DIRECT")

    async def set(self, key: str, value: Buffer) -> None:
        """Write the file of a key, whole or not at all."""
        values = np.frombuffer(value.as_buffer_like(), dtype=np.uint8)
        if self.direct and len(values) >= LEAST and values.ctypes.data % ALIGN == 0:
            if await asyncio.to_thread(_write, self.root / key, values):
                return
            self.direct = False
        await super().set(key, value)


def _write(path: Path, values: np.ndarray) -> bool:
    """Write bytes to a file that appears when it is complete; return False where the file system does not allow it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{uuid4().hex}.partial")
    whole = len(values) - len(values) % ALIGN
    try:
        _append(partial, values[:whole], os.O_DIRECT)
        _append(partial, values[whole:], 0)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _append(path: Path, values: np.ndarray, flag: int) -> None:
    """Append bytes to a file; the disk may take them in several parts."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flag, 0o666)
    try:
        while len(values):
            values = values[os.write(file, values.data) :]
    finally:
        os.close(file)
