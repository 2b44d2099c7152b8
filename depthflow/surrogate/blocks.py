"""The blocks of a surrogate: each runs at several depths, and is told at which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from depthflow.recording.arguments import leaving, left_with, take_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HIDDEN = 16
"""Width inside the map from depth to scales."""
NEAR_ZERO = 1e-4
"""Standard deviation of that map's last weights, which makes the scales start at 1."""


class DepthScale(nn.Module):
    """Scales of a block's branches and output by depth: S = W₂ SiLU(W₁ z + b₁) + b₂ + 1 (arXiv:2512.19941).

    Parameters
    ----------
    width : int
        Features of a state.
    vectors : int
        How many scales.
    """

    def __init__(self, width: int, vectors: int) -> None:
        super().__init__()
        self.vectors = vectors
        self.inner = nn.Linear(1, HIDDEN)
        self.outer = nn.Linear(HIDDEN, vectors * width)
        nn.init.normal_(self.outer.weight, std=NEAR_ZERO)
        nn.init.normal_(self.outer.bias, std=NEAR_ZERO)

    def forward(self, depth: Tensor) -> tuple[Tensor, ...]:
        """Return the scales (feature,) of ``depth``, shape (1,)."""
        with torch.autocast(depth.device.type, enabled=False):  # near 1, bfloat16 has steps of 2⁻⁸
            scales: Tensor = self.outer(functional.silu(self.inner(depth))) + 1.0
        return scales.chunk(self.vectors)


class FreshBlock(nn.Module):
    """A pre-norm transformer block with LayerScale, scaled by depth.

    Parameters
    ----------
    width, heads : int
        Features of a state; attention heads.
    mlp : {"gelu", "swiglu"}
        The branch after attention.
    mlp_ratio : float
        Its hidden width over ``width``.
    layer_scale : float or None
        Initial LayerScale of both branches.
    depth_scale : bool
        Whether to scale by depth.
    causal : bool
        Whether a token attends to itself and those before it only.
    returns : str
        What the teacher's blocks return: ``"Tensor"``, or a ``"tuple"`` or ``"list"`` with the state first.
    others : int
        How many more entries that has, which are None.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp: str,
        mlp_ratio: float,
        layer_scale: float | None,
        depth_scale: bool,
        causal: bool,
        returns: str,
        others: int,
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.gated = heads, causal, mlp == "swiglu"
        self.returns, self.others = returns, others
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * hidden if self.gated else hidden)
        self.fc2 = nn.Linear(hidden, width)
        initial = None if layer_scale is None else torch.full((width,), layer_scale)
        self.scale1, self.scale2 = (None if initial is None else nn.Parameter(initial.clone()) for _ in range(2))
        self.depth_scale = DepthScale(width, 3) if depth_scale else None

    def forward(self, depth: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Map a state one step on, given what the teacher gives its block there; ``depth`` has shape (1,)."""
        state, arguments = take_state(args, kwargs, "of a surrogate")
        mask = attention_mask(arguments.leaves(), state.shape[1])
        attended, moved, output = self.depth_scale(depth) if self.depth_scale is not None else (None, None, None)
        attended, moved = _product(self.scale1, attended), _product(self.scale2, moved)
        state = _added(state, self._attention(self.norm1(state), mask), attended)
        state = _added(state, self._mlp(self.norm2(state)), moved)
        state = state if output is None else output * state
        if self.returns == "Tensor":
            return state
        returned = [state, *[None] * self.others]
        return tuple(returned) if self.returns == "tuple" else returned

    def _attention(self, state: Tensor, mask: Tensor | None) -> Tensor:
        samples, tokens, width = state.shape
        qkv = self.qkv(state).view(samples, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if self.causal and mask is not None:  # which may tell of padding alone
            earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
            mask = mask & earlier if mask.dtype == torch.bool else mask.masked_fill(~earlier, -torch.inf)
        causal = self.causal and mask is None
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(samples, tokens, width))
        return projected

    def _mlp(self, state: Tensor) -> Tensor:
        hidden = self.fc1(state)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = functional.silu(gate) * value
        else:
            hidden = functional.gelu(hidden)
        moved: Tensor = self.fc2(hidden)
        return moved


class CopiedBlock(nn.Module):
    """A copy of one of the teacher's blocks, whatever it is made of, scaled by depth.

    Where both branches are known by the layers that write them into the stream, these layers' weights are scaled, which
    is to scale the branches; else the block's whole update is.

    Parameters
    ----------
    block : torch.nn.Module
        The copy.
    width : int
        Features of a state.
    writers : sequence of str
        The names in ``block`` of the layers that write the two branches; empty where they are not known.
    depth_scale : bool
        Whether to scale by depth.
    """

    def __init__(self, block: nn.Module, width: int, writers: Sequence[str], depth_scale: bool) -> None:
        super().__init__()
        self.block = block
        self.writers = list(writers)
        self.depth_scale = DepthScale(width, len(self.writers or [block]) + 1) if depth_scale else None

    def forward(self, depth: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Map a state one step on, given what the teacher gives its block there; ``depth`` has shape (1,)."""
        if self.depth_scale is None:
            return self.block(*args, **kwargs)
        *branches, output = self.depth_scale(depth)
        if self.writers:
            weights = scaled_weights(self.block, dict(zip(self.writers, branches, strict=True)))
            scaled = functional_call(self.block, weights, args, dict(kwargs))
            return left_with(scaled, output * leaving(scaled, "of a surrogate"))
        state = take_state(args, kwargs, "of a surrogate")[0].clone()  # some blocks write over it
        plain = self.block(*args, **kwargs)
        return left_with(plain, output * torch.lerp(state, leaving(plain, "of a surrogate"), branches[0]))


def scaled_weights(block: nn.Module, scales: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of the layers named in ``scales``, each output feature times its scale, by name."""
    weights = {}
    for name, scale in scales.items():
        layer = block.get_submodule(name)
        for part, weight in layer.named_parameters(recurse=False):
            rows = isinstance(scale, Tensor) and isinstance(layer, nn.Linear) and weight.ndim == 2
            weights[f"{name}.{part}"] = (scale[:, None] if rows else scale) * weight
    return weights


def attention_mask(beside: Mapping[str, Any], tokens: int) -> Tensor | None:
    """Return the mask (sample, head or 1, token, token) among what a block is given ``beside`` the state, or None."""
    for leaf in beside.values():
        if isinstance(leaf, Tensor) and leaf.ndim == 4 and leaf.shape[-1] == tokens and leaf.shape[-2] in (1, tokens):
            return leaf
    return None


def _product(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return first if second is None else second if first is None else first * second


def _added(state: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    return state + branch if scale is None else torch.addcmul(state, branch, scale)
