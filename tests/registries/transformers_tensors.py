"""Random tensors for transformers' models, of two samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SAMPLES, LENGTH = 2, 9
FIRST_ID, LAST_ID = 5, 90


def floats(*shape: int) -> Tensor:
    """Return random numbers for two samples."""
    return torch.randn(SAMPLES, *shape)


def ids(*shape: int, most: int = LAST_ID) -> Tensor:
    """Return random ids for two samples."""
    return torch.randint(min(FIRST_ID, most - 1), most, (SAMPLES, *shape))


def ones(*shape: int) -> Tensor:
    """Return a mask of two samples that hides nothing."""
    return torch.ones(SAMPLES, *shape, dtype=torch.long)


def zeros(*shape: int) -> Tensor:
    """Return zeros for two samples."""
    return torch.zeros(SAMPLES, *shape, dtype=torch.long)


def image(config: Any, *before: int) -> Tensor:
    """Return images of the size of ``config``, with the axes ``before`` between samples and channels."""
    size = config.image_size
    rows, cols = size if isinstance(size, list | tuple) else (size, size)
    return floats(*before, getattr(config, "num_channels", 3), rows, cols)


def taken_by(model: Any, *names: str) -> int:
    """Return how many features the first layer called by one of ``names`` takes."""
    found = (module for path, module in model.named_modules() if path.rpartition(".")[2] in names)
    weight: Tensor = next(found).weight
    return weight.shape[1]


def texts_with_places(config: Any, count: int) -> Tensor:
    """Return ids of which ``count`` after the first stand for an image."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    place = next(getattr(config, name) for name in names if getattr(config, name, None) is not None)
    text = ids(LENGTH + count)
    text[:, 1 : 1 + count] = place
    return text
