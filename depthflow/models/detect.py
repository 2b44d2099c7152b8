"""Choose the adapter of a model by the names of its classes: no library is imported that the model did not bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from depthflow.errors import ModelError
from depthflow.models.base import Adapter, Refusal
from depthflow.models.generic import Blocks, GenericAdapter, GivenBlocks
from depthflow.models.hub import DinoAdapter
from depthflow.models.huggingface import HuggingFaceAdapter
from depthflow.models.sealed import REMEDY, sealed
from depthflow.models.timm import TimmAdapter
from depthflow.models.torchvision import TorchvisionAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside wrappers that only run it elsewhere: ``torch.compile`` and data parallelism."""
    while True:
        kind = type(model).__name__
        inner = {
            "OptimizedModule": getattr(model, "_orig_mod", None),
            "DataParallel": getattr(model, "module", None),
            "DistributedDataParallel": getattr(model, "module", None),
        }.get(kind)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def adapt(model: object, blocks: Blocks = None) -> Adapter:
    """Return the adapter of ``model``; with ``blocks`` it sees these, whatever the model is.

    A known family is also found inside a module that holds it, as in a backbone with a head. A module with a method
    ``depthflow_adapter`` brings its own.

    Raises
    ------
    ModelError
        If ``model`` is no torch module.
    ParameterError
        If ``blocks`` are not in the model.
    """
    if not isinstance(model, nn.Module):
        remedy = "A name such as 'timm:vit_small_patch16_224' is understood on the command line only."
        if callable(model) and not isinstance(model, type):  # an exported program, or a function compiled of a module
            remedy = REMEDY
        raise ModelError(f"needs a model, a torch.nn.Module; got {type(model).__name__}. {remedy}")
    root = unwrapped(model)
    own = getattr(root, "depthflow_adapter", None)
    found = own() if callable(own) else _found(root)
    return found if blocks is None else GivenBlocks(root, blocks, found)


def _found(root: nn.Module) -> Adapter:
    known = list(_known(root))
    usable = [adapter for adapter in known if adapter.refusal is None]
    if len(usable) > 1:
        adapter = GenericAdapter(root)
        listed = " or ".join(f"blocks={one.names[0].rpartition('.')[0]!r}" for one in usable)
        adapter.named_blocks = []
        adapter.refusal = Refusal(
            f"{type(root).__name__} holds {len(usable)} transformers: {', '.join(one.family for one in usable)}.",
            f"Pass {listed}.",
        )
        return adapter
    generic = GenericAdapter(root)
    reason = sealed(root)
    if reason is not None:
        generic.named_blocks, generic.refusal = [], reason
        return generic
    if usable or any(not adapter.prefix for adapter in known):
        return (usable or known)[0]
    return generic if generic.refusal is None or not known else known[0]


def _known(root: nn.Module) -> Iterator[Adapter]:
    """Yield an adapter for each outermost module of a known family."""
    taken: list[str] = []
    for name, module in root.named_modules():
        if any(name.startswith(f"{outer}.") or not outer for outer in taken):
            continue
        kind = _family(module)
        if kind is not None:
            taken.append(name)
            yield kind(root, name)


def _family(module: nn.Module) -> type[Adapter] | None:
    timm_parts = False
    for cls in type(module).__mro__:
        home, name = cls.__module__, cls.__name__
        if name == "DinoVisionTransformer":
            return DinoAdapter
        if name == "PreTrainedModel" and home.startswith("transformers."):
            return None if type(module).__name__.startswith("TimmWrapper") else HuggingFaceAdapter
        if home.startswith("torchvision.models.") and hasattr(module, "forward"):
            return TorchvisionAdapter
        timm_parts |= home.startswith("timm.models.")
    return TimmAdapter if timm_parts and (hasattr(module, "blocks") or hasattr(module, "feature_info")) else None
