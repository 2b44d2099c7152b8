"""Tiny models: blocks one after another, most of them plain functions of the state (sample, token, feature)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from depthflow.models.vit import VisionTransformer, ViTSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


class Apply(nn.Module):
    """A block without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Chain(nn.Module):
    """Modules, or functions of the state, one after another."""

    def __init__(self, *blocks: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block if isinstance(block, nn.Module) else Apply(block) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def linear(matrix: np.ndarray) -> Callable[[Tensor], Tensor]:
    """Return the map of each token's state by ``matrix`` (feature_out, feature)."""
    return lambda x: x @ torch.as_tensor(matrix.T).to(x.dtype)


def vit(**settings: Any) -> VisionTransformer:
    """Return a transformer of 4 blocks on 9 patches and a class token, no parameter of which is as it was set up."""
    torch.manual_seed(0)
    model = VisionTransformer(ViTSettings(image_size=6, patch_size=2, width=12, depth=4, heads=3, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()
