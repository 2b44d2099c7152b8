"""Tell whether tensors are the same as others that are no longer there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from depthflow.errors import ModelError


def fingerprint(tensors: Mapping[str, Any]) -> str:
    """Return a hash of names, types, shapes and values, such as of a model's weights or of what it is called with.

    Of a model it is taken from :class:`~depthflow.models.placement.Weights`, which is the same for weights in memory,
    offloaded, compiled or shared out among processes; of the latter every process must ask for it.

    Raises
    ------
    ModelError
        If a tensor's values cannot be read.

    Notes
    -----
    Takes the time of BLAKE2b on one core, one to three seconds for each GB: its state after each byte depends on those
    before, so more threads cannot help, and it is kept in files, which another hash would not recognise. One tensor
    is held in memory beside the model.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in _leaves(tensors):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(_bytes(name, value))
        else:
            digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what is hashed, in the order of the names; what holds tensors is opened, as its text abridges them."""
    for name in sorted(values):
        value = values[name]
        inside = _opened(value)
        if any(map(_holds_tensor, inside.values())):
            yield from _leaves({f"{name}.{key}": leaf for key, leaf in inside.items()})
        else:
            yield name, value


def _opened(value: Any) -> dict[str, Any]:
    """Return the parts of a list, tuple or mapping, or of a tensor that is made of others; nothing of a leaf."""
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, list | tuple):
        return {str(place): part for place, part in enumerate(value)}
    if not isinstance(value, Tensor) or hasattr(value, "full_tensor"):
        return {}
    if value.is_quantized:
        each = value.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        scale = value.q_per_channel_scales() if each else value.q_scale()
        zero = value.q_per_channel_zero_points() if each else value.q_zero_point()
        return {"integers": value.int_repr(), "scale": scale, "zero": zero, "type": value.dtype}
    if hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        return {"type": type(value).__name__, **{key: getattr(value, key) for key in names}}
    return {}


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or any(map(_holds_tensor, _opened(value).values()))


def _bytes(name: str, value: Tensor) -> memoryview:
    """Return the values of a plain tensor, or of one that is shared out among processes, as they lie in memory."""
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    try:
        plain = whole.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        return plain.numpy().data
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"cannot read the values of {name!r}, a {type(value).__name__} of {value.layout} on {value.device}: "
            f"{str(error).splitlines()[0]}. Give the model with dense weights that are loaded."
        ) from error
