"""Tell whether tensors are the same as others that are no longer there."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping


def fingerprint(tensors: Mapping[str, Any]) -> str:
    """Return a hash of names, types, shapes and values, such as of a state dict or of what a model is called with."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(plain.data)
        else:
            digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()
