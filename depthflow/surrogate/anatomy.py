"""What a teacher's blocks are like inside: which layers write their branches, and which tokens see which."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from depthflow.recording.arguments import HERE, leaving
from depthflow.surrogate.blocks import scaled_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from depthflow.recording.replay import BlockCall, Replay

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
"""What the number of attention heads is called in a block, or in its configuration."""

WIDTH_OF_A_HEAD = 64


def writers(replay: Replay, number: int) -> list[str]:
    """Return the names of the two layers through which block ``number`` writes into the residual stream.

    With both layers' weights at zero such a block passes its state on unchanged, and what one of them writes scales
    with its weights, feature by feature. Empty where no two layers do this, as in post-norm blocks.
    """
    made, before = replay.calls[number - 1], replay.states[number - 1]
    width = before.shape[-1]
    layers = [name for name, layer in made.module.named_modules() if name and _writes(layer, width)]
    probe = torch.rand(width, generator=torch.Generator().manual_seed(0)).to(before) + 0.5
    for pair in sorted(combinations(layers, 2), key=lambda pair: [-layers.index(name) for name in pair[::-1]]):
        alone = [(name, tuple(other for other in pair if other != name)) for name in pair]
        if torch.equal(_scaled(made, before, dict.fromkeys(pair, 0.0)), before) and all(
            _follows(made, before, name, others, probe) for name, others in alone
        ):
            return list(pair)
    return []


def is_causal(replay: Replay, number: int) -> bool:
    """Return whether in block ``number`` the last token changes no other."""
    before = replay.states[number - 1]
    changed = before.clone()
    changed[:, -1] = changed[:, -1].flip(-1) + 1.0
    same = replay.block(number, before)[:, :-1]
    return before.shape[1] > 1 and torch.equal(same, replay.block(number, changed)[:, :-1])


def n_heads(module: nn.Module, width: int) -> int:
    """Return the number of attention heads that a block's modules state, else one for every 64 features."""
    for part in module.modules():
        for holder in (part, getattr(part, "config", None)):
            for name in HEADS:
                found = getattr(holder, name, None)
                if isinstance(found, int) and found > 0 and width % found == 0:
                    return found
    return next(count for count in range(max(1, width // WIDTH_OF_A_HEAD), 0, -1) if width % count == 0)


def _writes(layer: nn.Module, width: int) -> bool:
    """Return whether a layer's outputs are features of the stream; GPT-2's ``Conv1D`` is a transposed linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.out_features == width
    return type(layer).__name__ == "Conv1D" and getattr(layer, "nf", None) == width


def _scaled(made: BlockCall, state: Tensor, scales: Mapping[str, Any]) -> Tensor:
    """Return what the block makes of ``state`` with the weights of the layers named scaled."""
    given = state.clone()
    args, kwargs = made.arguments.map(lambda _, leaf: given if leaf is HERE else leaf)
    return leaving(functional_call(made.module, scaled_weights(made.module, scales), args, dict(kwargs)), made.name)


def _follows(made: BlockCall, state: Tensor, name: str, others: tuple[str, ...], probe: Tensor) -> bool:
    """Return whether what ``name`` writes, the others silent, is scaled by ``probe`` with its weights."""
    silent = dict.fromkeys(others, 0.0)
    plain = _scaled(made, state, silent) - state
    scaled = _scaled(made, state, {**silent, name: probe}) - state
    rounding = 4 * torch.finfo(state.dtype).eps * state.norm()
    return bool(plain.norm() > 0) and bool((scaled - probe * plain).norm() <= 1e-3 * plain.norm() + rounding)
