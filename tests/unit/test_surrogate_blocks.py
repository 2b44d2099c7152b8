"""A surrogate's blocks against their definitions written out."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from depthflow.surrogate.blocks import CopiedBlock, DepthScale, FreshBlock, attention_mask, scaled_weights
from tests.stacks import vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import FLOAT32, FLOAT64

SAMPLES, TOKENS, WIDTH, HEADS = 3, 7, 12, 2
DEPTH = torch.tensor([0.75], dtype=torch.float64)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def shaken(module: nn.Module) -> nn.Module:
    """Return the module in float64, no parameter as it was set up."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def fresh(**changed) -> FreshBlock:
    torch.manual_seed(0)
    settings = {
        "mlp": "gelu",
        "mlp_ratio": 2.5,
        "layer_scale": 0.1,
        "depth_scale": True,
        "causal": False,
        "returns": "Tensor",
        "others": 0,
    }
    return shaken(FreshBlock(WIDTH, HEADS, **{**settings, **changed}))


def scales(module: DepthScale, z: float) -> np.ndarray:
    """S = W2 SiLU(W1 z + b1) + b2 + 1, in NumPy."""
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in module.parameters())
    hidden = w1[:, 0] * z + b1
    return (w2 @ (hidden / (1 + np.exp(-hidden))) + b2 + 1).reshape(module.vectors, -1)


def norm(x: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def apply(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def attention(block: FreshBlock, x: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """Loops over samples and heads."""
    out = np.empty_like(x)
    size = WIDTH // HEADS
    for n, tokens in enumerate(apply(block.qkv, x)):
        query, key, value = tokens[:, :WIDTH], tokens[:, WIDTH : 2 * WIDTH], tokens[:, 2 * WIDTH :]
        for head in range(HEADS):
            at = slice(head * size, (head + 1) * size)
            logits = query[:, at] @ key[:, at].T / np.sqrt(size)
            if allowed is not None:
                logits = np.where(allowed[n], logits, -np.inf)
            weight = np.exp(logits - logits.max(-1, keepdims=True))
            out[n, :, at] = weight / weight.sum(-1, keepdims=True) @ value[:, at]
    return apply(block.proj, out)


def mlp(block: FreshBlock, x: np.ndarray) -> np.ndarray:
    hidden = apply(block.fc1, x)
    if block.gated:
        gate, value = np.split(hidden, 2, axis=-1)
        hidden = gate / (1 + np.exp(-gate)) * value
    else:
        hidden = functional.gelu(torch.from_numpy(hidden)).numpy()
    return apply(block.fc2, hidden)


def expected(block: FreshBlock, x: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    s = scales(block.depth_scale, DEPTH.item()) if block.depth_scale is not None else np.ones((3, WIDTH))
    g1, g2 = (1.0 if g is None else g.detach().numpy() for g in (block.scale1, block.scale2))
    x = x + s[0] * g1 * attention(block, norm(x, block.norm1), allowed)
    x = x + s[1] * g2 * mlp(block, norm(x, block.norm2))
    return s[2] * x


def test_depth_scale_is_its_formula_and_starts_at_one():
    torch.manual_seed(0)
    module = DepthScale(WIDTH, 3).double()
    found = torch.stack(module(DEPTH)).detach().numpy()
    np.testing.assert_allclose(found, scales(module, DEPTH.item()), **FLOAT64)
    assert 0 < np.abs(found - 1).max() < 1e-2
    moved = shaken(module)
    np.testing.assert_allclose(torch.stack(moved(DEPTH)).detach(), scales(moved, DEPTH.item()), **FLOAT64)
    assert not torch.equal(moved(DEPTH)[0], moved(DEPTH / 3)[0])


@pytest.mark.parametrize(
    "changed",
    [{}, {"mlp": "swiglu"}, {"depth_scale": False}, {"layer_scale": None}, {"layer_scale": None, "depth_scale": False}],
    ids=str,
)
def test_a_fresh_block_is_what_its_definition_says(changed):
    block, x = fresh(**changed), draw(SAMPLES, TOKENS, WIDTH)
    with torch.no_grad():
        np.testing.assert_allclose(block(DEPTH, (x,), {}), expected(block, x.numpy()), **FLOAT64)


def test_the_hidden_width_is_the_ratio_s():
    assert fresh().fc2.in_features == 30
    assert fresh(mlp="swiglu").fc1.out_features == 2 * fresh(mlp="swiglu").fc2.in_features == 60


def test_a_causal_block_attends_to_what_came_before():
    block, x = fresh(causal=True), draw(SAMPLES, TOKENS, WIDTH)
    allowed = np.broadcast_to(np.tril(np.ones((TOKENS, TOKENS), bool)), (SAMPLES, TOKENS, TOKENS))
    with torch.no_grad():
        np.testing.assert_allclose(block(DEPTH, (x,), {}), expected(block, x.numpy(), allowed), **FLOAT64)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", [torch.bool, torch.float64])
@pytest.mark.parametrize("rows", [1, TOKENS])
def test_a_mask_is_respected_whatever_its_kind_and_shape(kind, rows, causal):
    """A mask of one row says which tokens are padding; a causal block must not forget its order over it."""
    block, x = fresh(causal=causal), draw(SAMPLES, TOKENS, WIDTH)
    keep = np.ones((SAMPLES, rows, TOKENS), bool)
    keep[1, :, 5:], keep[2, :, 3:] = False, False
    allowed = np.broadcast_to(keep, (SAMPLES, TOKENS, TOKENS))
    if causal:
        allowed = allowed & np.tril(np.ones((TOKENS, TOKENS), bool))
    if causal and rows == TOKENS:
        keep = allowed
    mask = torch.from_numpy(keep[:, None])
    if kind != torch.bool:
        mask = torch.zeros(mask.shape, dtype=kind).masked_fill(~mask, -torch.inf)
    with torch.no_grad():
        found = block(DEPTH, (), {"hidden_states": x, "attention_mask": mask})
    np.testing.assert_allclose(found, expected(block, x.numpy(), allowed), **FLOAT64)


@pytest.mark.parametrize(("returns", "kind"), [("tuple", tuple), ("list", list)])
def test_a_fresh_block_returns_what_the_teacher_s_would(returns, kind):
    x = draw(SAMPLES, TOKENS, WIDTH)
    alone, among = fresh()(DEPTH, (x,), {}), fresh(returns=returns, others=2)(DEPTH, ([x],), {})
    assert type(among) is kind
    assert among[1:] == kind([None, None])
    assert torch.equal(among[0], alone)


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ({}, None),
        ({"rope": torch.zeros(TOKENS, 4), "ids": torch.zeros(SAMPLES, TOKENS)}, None),
        ({"bias": torch.zeros(1, HEADS, TOKENS + 1, TOKENS + 1)}, None),
        ({"odd": torch.zeros(SAMPLES, 1, 2, TOKENS)}, None),
        ({"n": 3, "mask": torch.zeros(SAMPLES, 1, 1, TOKENS)}, "mask"),
        ({"mask": torch.zeros(SAMPLES, HEADS, TOKENS, TOKENS)}, "mask"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, dict) else value,
)
def test_the_mask_is_found_by_its_shape(beside, found):
    assert attention_mask(beside, TOKENS) is beside.get(found)


@pytest.mark.parametrize("layer", [nn.Linear(5, WIDTH), Conv1D(WIDTH, 5), nn.Linear(5, WIDTH, bias=False)], ids=str)
def test_scaled_weights_scale_what_the_layer_writes(layer):
    holder = nn.ModuleDict({"proj": shaken(copy.deepcopy(layer))})
    x, scale = draw(SAMPLES, 5), draw(WIDTH)
    weights = scaled_weights(holder, {"proj": scale})
    assert set(weights) == {f"proj.{name}" for name, _ in layer.named_parameters()}
    given = {name.removeprefix("proj."): weight for name, weight in weights.items()}
    found = torch.func.functional_call(holder["proj"], given, (x,))
    np.testing.assert_allclose(found.detach(), (scale * holder["proj"](x)).detach(), **FLOAT64)


def test_the_writers_scales_are_the_branches_scales():
    """Against the block written out, in which each branch is multiplied by hand."""
    block = vit().blocks[1].double()
    copied = CopiedBlock(copy.deepcopy(block), WIDTH, ["attn.proj", "mlp.2"], depth_scale=True)
    shaken(copied.depth_scale)
    x = draw(SAMPLES, TOKENS, WIDTH)
    attended, moved, output = (torch.from_numpy(s) for s in scales(copied.depth_scale, DEPTH.item()))
    with torch.no_grad():
        middle = x + attended * block.attn(block.norm1(x))
        by_hand = output * (middle + moved * block.mlp(block.norm2(middle)))
        np.testing.assert_allclose(copied(DEPTH, (x,), {}), by_hand, **FLOAT64)
        assert not np.allclose(by_hand, block(x), **FLOAT32)


class Returning(nn.Module):
    """A block that writes over its input, and returns it with another entry beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return x.add_(torch.tanh(self.linear(x.clone()))), mask


def test_without_writers_the_whole_update_is_scaled_and_what_comes_beside_is_kept():
    torch.manual_seed(0)
    block = Returning().double()
    copied = CopiedBlock(copy.deepcopy(block), WIDTH, [], depth_scale=True)
    shaken(copied.depth_scale)
    x, mask = draw(SAMPLES, TOKENS, WIDTH), draw(TOKENS)
    update, output = (torch.from_numpy(s) for s in scales(copied.depth_scale, DEPTH.item()))
    with torch.no_grad():
        after, beside = copied(DEPTH, (x.clone(),), {"mask": mask})
        by_hand = output * (x + update * torch.tanh(block.linear(x)))
    np.testing.assert_allclose(after, by_hand, **FLOAT64)
    assert beside is mask


def test_without_depth_scale_a_copy_is_the_block_itself():
    block = vit().blocks[2]
    x = draw(SAMPLES, TOKENS, WIDTH).float()
    copied = CopiedBlock(copy.deepcopy(block), WIDTH, [], depth_scale=False)
    assert torch.equal(copied(DEPTH.float(), (x,), {}), block(x))
