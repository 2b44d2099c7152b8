"""A plain pre-norm vision transformer in torch, small enough to read in one sitting.

It is the architecture of the bundled digits model: patch embedding, a class token, learned positions, ``depth``
blocks ``x + attention(norm(x))``, ``x + mlp(norm(x))`` with stochastic depth, a final norm, and a linear head on
the class token (Dosovitskiy et al. 2021, arXiv:2010.11929; stochastic depth: Huang et al. 2016, arXiv:1603.09382).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ViTSettings:
    """The shape of a :class:`VisionTransformer`; every length is in pixels or counts."""

    image_size: int = 8
    patch_size: int = 2
    channels: int = 1
    width: int = 64
    depth: int = 12
    heads: int = 4
    mlp_ratio: int = 4
    classes: int = 10
    stochastic_depth: float = 0.1


class Attention(nn.Module):
    """Multi-head self-attention on (sample, token, feature)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (sample, token, feature) to the same shape."""
        samples, tokens, width = x.shape
        qkv = self.qkv(x).reshape(samples, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(samples, tokens, width))
        return projected


class Block(nn.Module):
    """A pre-norm block whose two branches are dropped, per sample, with probability ``drop`` in training."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map the residual stream (sample, token, feature) one block on."""
        x = x + self._keep(self.attn(self.norm1(x)))
        return x + self._keep(self.mlp(self.norm2(x)))

    def _keep(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop == 0.0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop
        return branch * kept / (1.0 - self.drop)


class VisionTransformer(nn.Module):
    """Image (sample, channel, row, column) in, class logits (sample, class) out."""

    num_prefix_tokens = 1
    has_class_token = True

    def __init__(self, settings: ViTSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or ViTSettings()
        side = s.image_size // s.patch_size
        self.grid_size = (side, side)
        self.patch_embed = nn.Conv2d(s.channels, s.width, s.patch_size, s.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, s.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, s.width))
        drops = torch.linspace(0, s.stochastic_depth, s.depth).tolist()
        self.blocks = nn.ModuleList(Block(s.width, s.heads, s.mlp_ratio, drop) for drop in drops)
        self.norm = nn.LayerNorm(s.width)
        self.head = nn.Linear(s.width, s.classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class logits of images of shape (sample, channel, row, column)."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits
