"""Plans: what stands in for the teacher's blocks, and which teachers nothing can stand in for."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from depthflow import SurrogateSettings
from depthflow.errors import SurrogateError
from depthflow.models.base import Call
from depthflow.models.detect import adapt
from depthflow.recording.inputs import Batch
from depthflow.recording.mode import undisturbed
from depthflow.recording.replayer import Replayer
from depthflow.surrogate.planning import plan
from depthflow.surrogate.recurrent import Plan, RecurrentSurrogate
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401

SAMPLES, TOKENS, WIDTH, BLOCKS = 3, 7, 12, 4
PHASES = (1, 1, 1, 2)
SIMILARITY = np.cos(np.subtract.outer([0.0, 0.1, 0.5, 2.0], [0.0, 0.1, 0.5, 2.0]))


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def made(model: nn.Module, types: tuple[str, ...] = ("token",), x: Tensor | None = None, **settings: Any) -> Plan:
    x = draw(SAMPLES, TOKENS, WIDTH) if x is None else x
    tested = settings.get("init") != "fresh"
    with undisturbed(model) as home, Replayer(adapt(model), home, "fit_surrogate", tested) as replayer:
        replay = replayer.capture(Batch(Call((x,)), len(x)))
        return plan(replay, SIMILARITY, PHASES, types, SurrogateSettings(**settings))


class Mixing(nn.Module):
    """A block that mixes tokens by ``mask``; it takes and returns what it is told to."""

    def __init__(self, mask: Tensor, returns: Any = lambda x: x) -> None:
        super().__init__()
        self.weight, self.returns = nn.Parameter(0.3 * draw(TOKENS, TOKENS) * mask), returns

    def forward(self, x: Tensor, *beside: Any) -> Any:
        return self.returns(x + torch.einsum("ij,njf->nif", self.weight, x))


EVERY = torch.ones(TOKENS, TOKENS)


class Given(Chain):
    """Blocks one after another, each given something beside the state."""

    def __init__(self, beside: Any, returns: Any = lambda x: x, masks: Any = (EVERY,) * BLOCKS) -> None:
        super().__init__(*(Mixing(mask, returns) for mask in masks))
        self.beside = beside

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, *self.beside)
            x = x if isinstance(x, Tensor) else x[0]
        return x


def test_copies_are_of_the_medoids_with_their_writers():
    found = made(vit(), ("cls", "patch"), draw(SAMPLES, 1, 6, 6))
    assert found == Plan(
        tuple(f"blocks.{n}" for n in range(BLOCKS)), PHASES, (2, 4), WIDTH, True, (("attn.proj", "mlp.2"),) * 2
    )
    assert made(vit(), ("cls", "patch"), draw(SAMPLES, 1, 6, 6), depth_scale=False).writers == ((), ())


def test_fresh_blocks_are_what_the_settings_and_the_teacher_say():
    settings = {"init": "fresh", "mlp": "swiglu", "mlp_ratio": 2.0, "layer_scale": None}
    found = made(vit(), ("cls", "patch"), draw(SAMPLES, 1, 6, 6), **settings)
    assert found.fresh == {
        "heads": 3, "mlp": "swiglu", "mlp_ratio": 2.0, "layer_scale": None, "causal": False, "returns": "Tensor",
        "others": 0,
    }  # fmt: skip
    assert found.writers == ()
    assert made(vit(), ("cls",), draw(SAMPLES, 1, 6, 6), init="fresh", heads=2).fresh["heads"] == 2


@pytest.mark.parametrize(
    ("masks", "types", "causal"),
    [
        ((EVERY.tril(),) * BLOCKS, ("token",), True),
        ((EVERY,) * BLOCKS, ("token",), False),
        ((EVERY.tril(), EVERY, EVERY.tril(), EVERY.tril()), ("token",), False),  # the first block is not all
        ((EVERY.tril(),) * BLOCKS, ("cls", "patch"), False),  # no image is read from one corner to the other
    ],
)
def test_fresh_blocks_are_causal_if_all_the_teacher_s_are(masks, types, causal):
    assert made(Given((), masks=masks), types, init="fresh").fresh["causal"] is causal


@pytest.mark.parametrize(
    ("returns", "kind", "others"),
    [
        (lambda x: x, "Tensor", 0),
        (lambda x: (x,), "tuple", 0),
        (lambda x: (x, None, None), "tuple", 2),
        (lambda x: [x], "list", 0),
    ],
)
def test_fresh_blocks_return_as_the_teacher_s_do(returns, kind, others):
    found = made(Given((), returns), init="fresh").fresh
    assert (found["returns"], found["others"]) == (kind, others)


def test_a_fresh_block_takes_a_mask_and_what_holds_no_numbers():
    mask = torch.zeros(SAMPLES, 1, TOKENS, TOKENS)
    assert made(Given((mask, None, 3, torch.arange(TOKENS), True)), init="fresh").fresh is not None


@pytest.mark.parametrize(
    ("model", "settings", "text"),
    [
        (Given((torch.ones(TOKENS, 4),)), {}, r"'blocks\.0' is given 'args\[1\]' of shape \(7, 4\) beside.*init='teac"),
        (Given((torch.zeros(SAMPLES, 1, 2, TOKENS),)), {}, r"of shape \(3, 1, 2, 7\) beside the state"),
        (Given((), lambda x: (x, x.mean(1))), {}, r"'blocks\.0' returns more than the state\. Use init='teacher'"),
        (Given(()), {"heads": 5}, r"states of 12 features cannot be shared among 5 heads\. Pass heads= to divide it"),
    ],
)
def test_what_fresh_blocks_cannot_stand_in_for_is_refused(model, settings, text):
    with pytest.raises(SurrogateError, match=text):
        made(model, init="fresh", **settings)


def test_a_recurrent_model_is_refused():
    block = Mixing(EVERY)
    with pytest.raises(SurrogateError, match=r"applies 2 blocks at 4 depths: it is recurrent already"):
        made(Chain(block, block, block, Mixing(EVERY)))


@pytest.mark.parametrize("phases", [(1, 1, 2, 2), (1, 2, 3, 4)])
def test_a_surrogate_is_refused_as_a_teacher(phases):
    medoids = tuple(sorted(set(phases)))
    writers = ((),) * len(medoids)
    model = RecurrentSurrogate(
        vit(), Plan(tuple(f"blocks.{n}" for n in range(4)), phases, medoids, WIDTH, True, writers)
    )
    with pytest.raises(SurrogateError, match=rf"applies {len(medoids)} blocks at 4 depths: it is recurrent already"):
        made(model, ("cls", "patch"), draw(SAMPLES, 1, 6, 6))


def test_a_plan_is_json_s():

    for settings in ({}, {"init": "fresh"}):
        found = made(vit(), ("cls", "patch"), draw(SAMPLES, 1, 6, 6), **settings)
        assert Plan.from_json(json.loads(json.dumps(asdict(found)))) == found
