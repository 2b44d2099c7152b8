"""Every architecture of timm's registry at a size that runs in seconds, and what timm itself says of it."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import timm
import torch
from torch import Tensor, nn

import depthflow
from tests.registries.contract import Candidate, Reference
from tests.registries.poke import types_by_poking
from tests.registries.survey import call, first_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

LEARNED = {"cls_token": "cls", "dist_token": "dist", "reg_token": "reg"}
"""What the tokens that timm's models learn are called."""

DEPTH = 3
PATCHES = ((4, 6), (6, 12), (6, 6))
"""Rows and columns of patches to try: not square if possible, so that they cannot be mixed up."""

ANY_SIZE = ("ConvMixer", "Gemma4VitClassifier", "Gemma4VitEncoder", "NaFlexVit")
"""Models that take images of any size."""

SIDE = 64
"""Pixels along each side of the images of models that take any size and shrink it."""

RUN: set[tuple[frozenset[type], torch.device]] = set()
"""The parts of models that were found to run, and where."""

FEATURES = 16
"""Features to each head of attention."""


def candidates() -> list[Candidate]:
    """Return every architecture that timm lists."""
    return [
        Candidate("timm", name, family(name), partial(build, name), inputs, reference) for name in timm.list_models()
    ]


def family(name: str) -> str:
    """Return the module of timm that defines the architecture."""
    return timm.models._registry._model_to_module[name]


def build(name: str) -> nn.Module:
    """Return the model: without memory where its structure alone refuses it, else narrow, with few blocks and patches.

    What is tried is tried without memory first.
    """
    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False).eval()
    if not depthflow.inspect(whole).supported:
        for form in (_unfilled, _weightless):
            model = form(whole)
            if model is not None and _known_to_run(model):
                return model
    for overrides in _overrides(whole):
        try:
            with torch.device("meta"):
                fits = _runs(timm.create_model(name, pretrained=False, **overrides).eval())
        except Exception:  # an argument that this model does not take, or not with its others
            continue
        if fits:
            return timm.create_model(name, pretrained=False, **overrides).eval()
    return timm.create_model(name, pretrained=False).eval()


def _unfilled(model: nn.Module) -> nn.Module | None:
    """Return a model without memory as one whose weights are whatever the memory holds; only shapes are read of it.

    That runs faster than without memory, but only where no buffer holds indices, for which None is returned.
    """
    buffers = (name for name, buffer in model.named_buffers() if not buffer.is_floating_point())
    indexed = any(not name.endswith("num_batches_tracked") for name in buffers)
    stepwise = any(isinstance(part, nn.RNNBase) for part in model.modules())  # without memory, these take minutes
    return None if indexed or (_fixed(model) and not stepwise) else model.to_empty(device="cpu")


def _weightless(model: nn.Module) -> nn.Module:
    return model.to("meta")


def _known_to_run(model: nn.Module) -> bool:
    """Return whether the model runs; of many architectures made of the same parts, one is tried."""
    parts = frozenset(map(type, model.modules())), next(model.parameters()).device
    if parts not in RUN and _runs(model):
        RUN.add(parts)
    return parts in RUN


def _fixed(model: nn.Module) -> bool:
    """Return whether the model takes images of one size only."""
    return bool(model.pretrained_cfg.get("fixed_input_size") or getattr(_embedding(model), "img_size", None))


def _runs(model: nn.Module) -> bool:
    try:
        with torch.no_grad():
            call(model, inputs(model))
    except Exception:
        return False
    return True


def _overrides(whole: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield arguments that make a model small, from those that change most."""
    blocks = getattr(getattr(whole, "encoder", whole), "blocks", None)
    heads = next((part.num_heads for part in blocks.modules() if hasattr(part, "num_heads")), 0) if blocks else 0
    patch = _patch(whole)
    widths = [{"embed_dim": FEATURES * heads, "num_heads": heads}, {"embed_dim": FEATURES * heads}] if heads else []
    sizes = [{"img_size": (rows * patch, cols * patch)} for rows, cols in PATCHES]
    for width in (*widths, {}):
        for size in (*sizes, {}):
            for depth in ({"depth": DEPTH}, {}):
                yield {**depth, **size, **width}


def _embedding(model: nn.Module) -> nn.Module:
    """Return the module that cuts images into patches, or the model itself."""
    body = getattr(model, "encoder", model)
    return next((getattr(body, name) for name in ("patch_embed", "embeds", "stem") if hasattr(body, name)), model)


def _hierarchical(model: nn.Module) -> bool:
    """Return whether the model says that its features are of several sizes."""
    stages = model.feature_info if hasattr(model, "feature_info") else []
    return len({stage.get("reduction") for stage in stages}) > 1


def _patch(model: nn.Module) -> int:
    """Return the pixels along one side of a patch, with all that a convolutional stem reduces."""
    stages = model.feature_info if hasattr(model, "feature_info") else []
    return next((stage["reduction"] for stage in stages if "reduction" in stage), 16)


def inputs(model: nn.Module) -> Tensor:
    """Return two images of the size that the model was made for; one where only the shapes of states are looked at."""
    size = getattr(_embedding(model), "img_size", None) or getattr(model, "img_size", None)
    if type(model).__name__ in ANY_SIZE:
        size = tuple(side * _patch(model) for side in PATCHES[1])
    if _hierarchical(model) and not _fixed(model) and not next(model.parameters()).is_meta:
        size = SIDE
    channels, *usual = model.pretrained_cfg.get("input_size", (3, 224, 224))
    high, wide = (size, size) if isinstance(size, int) else size or usual
    device = next(model.parameters()).device
    count = 1 if _hierarchical(model) else 2
    return torch.randn(count, channels, high, wide, generator=torch.Generator().manual_seed(2)).to(device)


def reference(model: nn.Module, images: Tensor) -> Reference:
    """Return what timm's own intermediate path gives, and which tokens follow which learned parameter."""
    if next(model.parameters()).is_meta:
        return Reference(isotropic=_isotropic(model, images))
    block = f"{'encoder.' if hasattr(model, 'encoder') else ''}blocks.0"
    layered = any(name == block for name, _ in model.named_modules())
    states, grid = _intermediates(model, images)
    if not layered or not states:
        return Reference(isotropic=_isotropic(model, images), grid=grid)
    if len({tuple(state.shape) for state in states.values()}) > 1:
        return Reference(isotropic=False)
    return Reference(states, len(states), True, types_by_poking(model, images, block, LEARNED), grid)


def _isotropic(model: nn.Module, images: Tensor) -> bool | None:
    """Return whether timm's features, by the modules that it takes them from or by its own path, have one shape."""
    info = model.feature_info if hasattr(model, "feature_info") else []
    names = {stage.get("module") for stage in info}
    shapes = set()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        shapes.add(tuple(first_tensor(output).shape))

    hooks = [module.register_forward_hook(note) for name, module in model.named_modules() if name in names]
    with torch.no_grad():
        call(model, images)
    for hook in hooks:
        hook.remove()
    if len(shapes) < 2 and hasattr(model, "forward_intermediates"):
        with torch.no_grad():
            shapes |= {tuple(one.shape) for one in model.forward_intermediates(images, intermediates_only=True)}
    return len(shapes) == 1 if shapes else None


def _intermediates(model: nn.Module, images: Tensor) -> tuple[dict[int, Tensor], tuple[int, int] | None]:
    """Return the states after each block, by timm's ``forward_intermediates``, and the patches' rows and columns."""
    if not hasattr(model, "forward_intermediates"):
        return {}, None
    takes = inspect.signature(model.forward_intermediates).parameters
    options = {"norm": False, "intermediates_only": True}
    prefixed = {"return_prefix_tokens": True} if "return_prefix_tokens" in takes else {}
    with torch.no_grad():
        maps = model.forward_intermediates(images, output_fmt="NCHW", **options)
        states = [one.flatten(2).transpose(1, 2) for one in maps]
        if getattr(model, "num_prefix_tokens", 0):  # where there are none, some models fail when asked for them
            states = model.forward_intermediates(images, output_fmt="NLC", **options, **prefixed)
    joined = [torch.cat([one[1], one[0]], dim=1) if isinstance(one, tuple) else one for one in states]
    return dict(enumerate(joined, start=1)), tuple(maps[-1].shape[2:])
