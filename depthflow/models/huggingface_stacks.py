"""Find the stacks of layers in transformers' models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from depthflow.models.base import bare, plain
from depthflow.models.generic import CONTAINERS, children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

LAYER = re.compile(r"(Layer|Block|Module|Attention)$")
"""How transformers' classes of a stack's layers are called where nothing else marks them."""


def find_stacks(part: nn.Module, backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost lists of transformer layers in ``backbone``, by their names in ``part``."""
    outer: list[str] = []
    inside = {id(module) for module in backbone.modules()}
    record: dict[str, Any] = {}
    for path, module in part.named_modules():
        name = plain(path)
        if hasattr(module, "_can_record_outputs"):
            record[name] = (module._can_record_outputs or {}).get("hidden_states")
        if id(module) not in inside or any(name.startswith(f"{other}.") for other in outer):
            continue
        layers = [bare(child) for _, child in children("", module)] if isinstance(module, CONTAINERS) else []
        if not layers:
            continue
        owner = max((key for key in record if not key or name.startswith(f"{key}.")), key=len, default=None)
        wanted = record[owner] if owner is not None else None
        named = all(_is_named(layer, wanted) or _is_checkpointed(layer) for layer in layers)
        if (named or _are_alike(layers)) and not all(map(_convolves, layers)):
            outer.append(name)
            yield name, module


def _classes(layer: Any) -> tuple[type, ...]:
    return tuple(getattr(layer, "stands_for", type(layer)).__mro__)


def _is_named(layer: nn.Module, record: Any) -> bool:
    """Return whether the model names the layer's class as what makes its hidden states."""
    classes = _classes(layer)
    for wanted in record if isinstance(record, list | tuple) else [record]:
        target = getattr(wanted, "target_class", None) or getattr(wanted, "class_name", None) or wanted
        if target in classes or any(kind.__name__ == target for kind in classes):
            return True
    return False


def _is_checkpointed(layer: nn.Module) -> bool:
    """Return whether gradients may be checkpointed at the layer, and it is more than a convolution."""
    marked = any(kind.__name__ == "GradientCheckpointingLayer" for kind in _classes(layer))
    return marked and any(parameter.ndim == 2 for parameter in layer.parameters())


def _convolves(layer: nn.Module) -> bool:
    """Return whether the layer is made of convolutions on maps alone, as in the encoders of images to codes."""
    axes = {parameter.ndim for parameter in layer.parameters()}
    return 4 in axes and 2 not in axes and not has_attention(layer)


def _are_alike(layers: list[Any]) -> bool:
    """Return whether these are two or more layers of one class that is called a layer and has attention inside.

    Layers between two towers are left out: each is given a sum of what both pass on.
    """
    kinds = {_classes(layer)[0] for layer in layers}
    name = kinds.pop().__name__
    if len(layers) < 2 or kinds or not LAYER.search(name) or "Cross" in name:
        return False
    return has_attention(layers[0])


def has_attention(module: nn.Module) -> bool:
    """Return whether a module holds attention, by what its class is called."""
    return any("attention" in type(inner).__name__.lower() for inner in list(module.modules())[1:])
