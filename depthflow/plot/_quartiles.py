"""Quartiles of more values than memory holds, exactly: the order statistics' bits, a few in each reading."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

PERCENTILES = (25, 50, 75)
IN_MEMORY_BYTES = 64 * 2**20
"""Size of the values from which on they are read part by part."""

PART_BYTES = 16 * 2**20
COUNTS_BYTES = 64 * 2**20
"""Memory of the counts, which sets how many bits a reading finds: 16 for a few curves, 8 for thousands of rows."""
SIGN = np.uint64(1 << 63)


def quartiles_by_parts(values: xr.DataArray, along: Sequence[str]) -> np.ndarray:
    """Return the quartiles (3, row) of each row along ``along`` over everything else, NaN left out.

    What ``numpy.nanpercentile`` gives of all values at once. The values are read 4 to 16 times, part by part along
    ``sample``; each reading counts, among those whose leading bits are those of a wanted order statistic, the bits that
    follow (a radix selection).
    """
    count, wanted = math.prod(values.sizes[dim] for dim in along), 2 * len(PERCENTILES)
    bits = next(bits for bits in (16, 8, 4, 1) if bits == 1 or count * wanted * 8 * 2**bits <= COUNTS_BYTES)
    prefix, known = np.zeros((count, 1), np.uint64), np.zeros(count, np.int64)
    for shift in range(64 - bits, -1, -bits):
        seen = np.zeros((count, prefix.shape[1], 2**bits), np.int64)
        known[:] = 0
        for rows in _parts(values, along):
            known += (~np.isnan(rows)).sum(axis=1)
            _count(_keys(rows), prefix, shift, bits, seen)
        if prefix.shape[1] == 1:
            position = np.maximum(known - 1, 0)[:, np.newaxis] * np.array(PERCENTILES) / 100
            rank = np.concatenate([np.floor(position), np.ceil(position)], axis=1).astype(np.int64)
        below = np.cumsum(seen, axis=-1)
        digit = (below <= rank[..., np.newaxis]).sum(axis=-1)
        before = np.take_along_axis(np.broadcast_to(below - seen, (*rank.shape, 2**bits)), digit[..., np.newaxis], -1)
        rank = rank - before[..., 0]
        prefix = (prefix << np.uint64(bits)) | digit.astype(np.uint64)
    low, high = np.split(_values(prefix), 2, axis=1)
    apart = low != high  # of equal infinities there is no difference
    rise = np.subtract(high, low, out=np.zeros_like(low), where=apart) * (position - np.floor(position))
    return np.where(known[:, np.newaxis] > 0, low + rise, np.nan).T


def _parts(values: xr.DataArray, along: Sequence[str]) -> Iterator[np.ndarray]:
    """Give the values of some samples after others as (row, value)."""
    rows = math.prod(values.sizes[dim] for dim in along)
    samples = values.sizes.get("sample", 1) if "sample" not in along else 1
    size = max(1, PART_BYTES // max(1, values.nbytes // samples))
    for start in range(0, samples, size):
        part = values.isel(sample=slice(start, start + size)) if samples > 1 else values
        yield part.transpose(*along, ...).values.reshape(rows, -1).astype(np.float64)


def _keys(values: np.ndarray) -> np.ndarray:
    """Return integers in the order of the float64 ``values``, NaN last."""
    bits = np.where(np.isnan(values), np.nan, values).view(np.uint64)
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def _values(keys: np.ndarray) -> np.ndarray:
    """Return the float64 values of what :func:`_keys` made."""
    return np.where(keys & SIGN, keys ^ SIGN, ~keys).view(np.float64)


def _count(keys: np.ndarray, prefix: np.ndarray, shift: int, bits: int, seen: np.ndarray) -> None:
    """Add to ``seen`` (row, order statistic, digit) how often each next digit follows each ``prefix`` in ``keys``."""
    digits = (keys >> np.uint64(shift)) & np.uint64(2**bits - 1)
    rows = np.arange(len(keys))[:, np.newaxis] << bits
    place = digits.astype(np.int64) + rows
    for statistic in range(prefix.shape[1]):
        if shift + bits < 64:
            found = place[keys >> np.uint64(shift + bits) == prefix[:, statistic, np.newaxis]]
        else:
            found = place.ravel()
        seen[:, statistic] += np.bincount(found, minlength=len(keys) << bits).reshape(len(keys), -1)
