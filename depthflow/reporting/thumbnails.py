"""Small pictures of the inputs on one sheet, within a budget."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate

from depthflow.recording.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from PIL.Image import Image

SIDES = (64, 48, 32, 16)
"""Sides of a picture to try, pixels: multiples of 16, so that JPEG's blocks keep neighbours apart."""
PLAIN = 16
"""Up to this side pictures are kept exactly, as PNG."""
SHEET_PIXELS = 2**24
QUALITIES = (80, 50)
BUDGET = 1_500_000
"""Bytes of the sheet, before it is written as text."""
BATCH = 32
NO_IMAGES = "the inputs are not images of 1 or 3 channels, all of one size (sample, channel, row, column)"


class Sheet(NamedTuple):
    """Pictures side by side, row by row: the file, its MIME type, the tiles' side (pixels), and how many a row."""

    data: bytes
    mime: str
    side: int
    columns: int


def sheet(inputs: Any, samples: np.ndarray, total: int, preprocessing: Mapping[str, Any]) -> tuple[Sheet | None, str]:
    """Return the sheet of the chosen ones of ``total`` samples' images, or None and the reason in words.

    Images are shown in the colours from before the model's own normalisation where ``preprocessing`` has its ``mean``
    and ``std``, as they are if within [0, 1], and stretched to that range otherwise.
    """
    side = next((side for side in SIDES if len(samples) * side**2 <= SHEET_PIXELS), SIDES[-1])
    tiles, count = _tiles(inputs, samples, side)
    if tiles is None:
        return None, NO_IMAGES
    if count != total:
        return None, f"there are {count:,} images for {total:,} samples"
    colours = _colours(tiles, preprocessing)
    native = colours.shape[2]
    for smaller in dict.fromkeys([native, *(one for one in SIDES if one < native)]):
        for made in _sheets(_shrunk(colours, smaller)):
            if len(made.data) <= BUDGET:
                return made, ""
    return None, f"those of {len(samples):,} samples would take more than {BUDGET / 1e6:.1f} MB"


def _tiles(inputs: Any, samples: np.ndarray, side: int) -> tuple[torch.Tensor | None, int]:
    """Return the chosen images (sample, channel, side, side), smaller where they are, and how many there are in all.

    Instead of images it is None where there are none, or not all alike.
    """
    found, start = [], 0
    for batch in Feed(inputs, BATCH):
        images = batch.call.images()
        if images is None or images.shape[1] not in (1, 3):
            return None, start
        rows = samples[(samples >= start) & (samples < start + batch.size)] - start
        start += batch.size
        if not len(rows):
            continue
        chosen = images[torch.from_numpy(rows)].detach().float().cpu().nan_to_num(0, 0, 0)
        # Square, as a sheet needs it: the middle of what is longer one way.
        height, width = chosen.shape[2:]
        least = min(height, width)
        top, left = (height - least) // 2, (width - least) // 2
        square = chosen[:, :, top : top + least, left : left + least]
        found.append(_shrunk(square, min(side, least)))
    alike = len({tile.shape[1:] for tile in found}) == 1
    return torch.cat(found) if alike else None, start


def _shrunk(images: torch.Tensor, side: int) -> torch.Tensor:
    return images if images.shape[2] == side else interpolate(images, size=(side, side), mode="area")


def _colours(images: torch.Tensor, preprocessing: Mapping[str, Any]) -> torch.Tensor:
    """Return the images in [0, 1]."""
    mean, std = (_per_channel(preprocessing.get(key), images.shape[1]) for key in ("mean", "std"))
    if mean is not None and std is not None and images.min() < 0:
        images = images * std + mean
    elif images.min() < 0 or images.max() > 1:
        low, high = np.percentile(images[:: max(1, len(images) // 500)].numpy(), (0.5, 99.5))
        images = (images - low) / max(high - low, 1e-12)
    return images.clamp(0, 1)


def _per_channel(values: Any, channels: int) -> torch.Tensor | None:
    if not isinstance(values, list | tuple) or len(values) != channels:
        return None
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def _sheets(images: torch.Tensor) -> Iterator[Sheet]:
    """Give the sheet in falling quality: exactly where pictures are tiny, then ever more compressed."""
    from PIL.Image import fromarray

    count, channels, side, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    pixels = np.zeros((rows * columns, side, side, channels), dtype=np.uint8)
    pixels[:count] = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    flat = pixels.reshape(rows, columns, side, side, channels).transpose(0, 2, 1, 3, 4)
    flat = flat.reshape(rows * side, columns * side, channels)
    picture = fromarray(flat[:, :, 0] if channels == 1 else flat)
    if side <= PLAIN:
        yield Sheet(_file(picture, "PNG", optimize=True), "image/png", side, columns)
    for quality in QUALITIES:
        yield Sheet(_file(picture, "JPEG", quality=quality, optimize=True), "image/jpeg", side, columns)


def _file(picture: Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
