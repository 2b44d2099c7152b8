"""Every model of torchvision's registry, called as its kind is called."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import depthflow
from tests.registries.contract import Candidate, Reference
from tests.registries.poke import types_by_poking
from tests.registries.survey import call, watch

SIDE = 6
"""Patches along each side of an image, where a model is made for one size."""

VIDEO = ("mc3", "r2plus1d", "r3d", "s3d", "swin3d", "mvit")
DETECTION = ("fasterrcnn", "fcos", "keypointrcnn", "maskrcnn", "retinanet", "ssd")


def candidates() -> list[Candidate]:
    """Return every model that torchvision lists."""
    return [
        Candidate("torchvision", name, family(name), partial(build, name), partial(inputs, name), reference)
        for name in torchvision.models.list_models()
    ]


def family(name: str) -> str:
    """Return the module of torchvision that defines the model."""
    return torchvision.models.get_model_builder(name).__module__.removeprefix("torchvision.models.")


def build(name: str) -> nn.Module:
    """Return the model: without memory where its structure alone refuses it and it runs so, else small."""
    options: dict[str, Any] = {"weights": None}
    if name.startswith(DETECTION) or name.startswith(("deeplab", "fcn", "lraspp")):
        options["weights_backbone"] = None
    if name.startswith(DETECTION) and not name.startswith("ssd"):
        options |= {"min_size": 64, "max_size": 96}  # to which such models bring every image
    if name.startswith("vit"):
        options["image_size"] = SIDE * int(name.rpartition("_")[2])
    try:
        with torch.device("meta"):
            whole = torchvision.models.get_model(name, **options).eval()
        if not depthflow.inspect(whole).supported and _runs(name, whole):
            return whole
    except NotImplementedError:  # a constructor that reads what it made
        pass
    return torchvision.models.get_model(name, **options).eval()


def _runs(name: str, model: nn.Module) -> bool:
    try:
        with torch.no_grad():
            call(model, inputs(name, model))
    except Exception:
        return False
    return True


def inputs(name: str, model: nn.Module) -> Any:
    """Return two images; clips, lists or pairs of images where the model takes these."""

    def random(*shape: int) -> Tensor:
        device = next(model.parameters(), torch.empty(0)).device
        return torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(device)

    if name.startswith(VIDEO):
        return random(1, 3, 16, 224, 224)
    if name.startswith(DETECTION):
        return [random(3, 64, 64), random(3, 64, 64)]
    if name.startswith("raft"):
        return {"image1": random(1, 3, 128, 128), "image2": random(1, 3, 128, 128)}
    size = getattr(model, "image_size", 299 if "inception" in name else 224)
    return random(2, 3, size, size)


def reference(model: nn.Module, images: Any) -> Reference | None:
    """Return what the model's own attributes and its parameters say of its tokens."""
    if not isinstance(model, torchvision.models.VisionTransformer):
        return None
    side = model.image_size // model.patch_size
    names = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()]
    steps = watch(model, images).steps(set(names))
    types = types_by_poking(model, images, names[0], {"class_token": "cls"})
    states = {depth: step.returned for depth, step in enumerate(steps, start=1)}
    return Reference(states, len(names), True, types, (side, side))
