"""What is found inside blocks: the layers that write their branches, causality, the number of heads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from depthflow.models.base import Call
from depthflow.models.detect import adapt
from depthflow.recording.inputs import Batch
from depthflow.recording.mode import undisturbed
from depthflow.recording.replayer import Replayer
from depthflow.surrogate.anatomy import is_causal, n_heads, writers
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401

SAMPLES, TOKENS, WIDTH = 3, 7, 12


def replay(model: nn.Module, x: Tensor | None = None) -> Any:
    x = torch.randn(SAMPLES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0)) if x is None else x
    adapter = adapt(model)
    with undisturbed(model) as home, Replayer(adapter, home, "test") as replayer:
        return replayer.capture(Batch(Call((x,)), len(x)))


def found(*blocks: nn.Module) -> list[list[str]]:
    torch.manual_seed(0)
    run = replay(Chain(*blocks))
    with torch.no_grad():
        return [writers(run, number) for number in range(1, len(blocks) + 1)]


class Block(nn.Module):
    """Pre-norm, the mixing of tokens made plain; ``between`` turns what fc1 gives into what fc2 takes."""

    def __init__(self, hidden: int = 20, bias: bool = True, between: Any = torch.relu, gamma: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.value, self.proj = nn.Linear(WIDTH, WIDTH, bias=bias), nn.Linear(WIDTH, WIDTH, bias=bias)
        self.fc1, self.fc2 = nn.Linear(WIDTH, hidden, bias=bias), nn.Linear(hidden, WIDTH, bias=bias)
        self.between = between
        self.gamma = nn.Parameter(torch.randn(WIDTH)) if gamma else 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma * self.proj(self.value(self.norm(x)).cumsum(1))
        return x + self.gamma * self.fc2(self.between(self.fc1(self.norm(x))))


class Parallel(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.fc2(self.between(self.fc1(y))) + self.proj(self.value(y))


class ThreeBranches(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.tanh(x)


class PostNorm(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Gated(Block):
    """What is written is gated by the state, feature by feature, which scales with the weights all the same."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.sigmoid(x) * self.proj(self.value(x))
        return x + self.fc2(self.between(self.fc1(x)))


class Squashed(Block):
    """What is written passes through a tanh: the weights do not scale it."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.tanh(self.proj(self.value(x)))
        return x + self.fc2(self.between(self.fc1(x)))


class Mixed(Block):
    """What is written passes through another map, which mixes its features."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj(self.value(x)).flip(-1)
        return x + self.fc2(self.between(self.fc1(x)))


def test_the_layers_that_write_are_found_in_pre_norm_blocks():
    assert found(Block(), Block(gamma=True), Parallel(), Gated()) == [["proj", "fc2"]] * 4


@pytest.mark.parametrize("between", [torch.relu, torch.tanh, lambda x: x])
def test_inner_layers_of_the_stream_s_width_are_not_taken_for_writers(between):
    """Without biases, zeros in an inner layer silence its branch too, and a hidden width may be the stream's."""
    assert found(Block(hidden=WIDTH, bias=False, between=between)) == [["proj", "fc2"]]


def test_no_writers_where_scaling_weights_is_not_scaling_branches():
    assert found(PostNorm(), ThreeBranches(), Squashed(), Mixed(), nn.Linear(WIDTH, WIDTH)) == [[]] * 5


def test_the_bundled_model_s_writers():
    run = replay(vit(), torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        assert [writers(run, number) for number in range(1, 5)] == [["attn.proj", "mlp.2"]] * 4


class Mixing(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(TOKENS, TOKENS) * mask)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.einsum("ij,njf->nif", self.weight, x)


def test_a_block_is_causal_if_the_last_token_changes_no_other():
    torch.manual_seed(0)
    all_tokens = torch.ones(TOKENS, TOKENS)
    run = replay(Chain(Mixing(all_tokens.tril()), Mixing(all_tokens), Mixing(all_tokens.triu())))
    with torch.no_grad():
        assert [is_causal(run, number) for number in (1, 2, 3)] == [True, False, False]


def test_a_single_token_says_nothing_of_causality():
    model = Chain(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    with torch.no_grad():
        assert not is_causal(replay(model, torch.ones(SAMPLES, 1, WIDTH)), 1)


@pytest.mark.parametrize(
    ("attributes", "width", "heads"),
    [
        ({"num_heads": 3}, 12, 3),
        ({"num_attention_heads": 4}, 12, 4),
        ({"n_head": 6}, 12, 6),
        ({"num_heads": 5}, 12, 1),  # does not divide the width
        ({"config": SimpleNamespace(num_attention_heads=2)}, 12, 2),
        ({}, 768, 12),
        ({}, 100, 1),
        ({}, 130, 2),
        ({}, 192, 3),
    ],
    ids=str,
)
def test_heads_are_those_that_the_block_states_else_one_for_64_features(attributes, width, heads):
    block = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for name, value in attributes.items():
        setattr(block[1], name, value)
    assert n_heads(block, width) == heads
