"""Pushes, Jacobians and swaps in families whose blocks are given more than a state, or see it in ways of their own.

Each is compared with plain hooks, autograd and a model rebuilt by hand, in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
import transformers
from numpy.testing import assert_allclose

import depthflow
from depthflow.errors import RecordError
from tests.adapters.families import (
    DEPTH,
    GRID,
    HEADS,
    HF,
    PATCH,
    PATCHES,
    SAMPLES,
    VOCABULARY,
    WIDTH,
    Case,
    hf,
    images,
    in_blocks,
    text,
    timm_model,
)
from tests.adapters.runs import given, states_by_plain_hooks
from tests.adapters.test_jacobian import START, STOP, TOKEN, jacobian_by_plain_hooks
from tests.adapters.test_perturb import in_double, last_state_by_plain_hooks, push
from tests.adapters.test_swap_blocks import angle, rebuilt
from tests.tolerances import EXACT, FLOAT64, ITERATIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

DECODER = {**HF, **VOCABULARY, "use_cache": False}
"""Without a cache, in which a block that was moved would be taken for the one that it was copied from."""

PADDED = ["token"] * 5 + ["pad"] * 2
PAIRS = [(1, 4), (4, 1), (3, 2)]


def unpadded() -> dict[str, Tensor]:
    return {"input_ids": text()["input_ids"]}


def patches() -> dict[str, Tensor]:
    """Patches that were cut before, of which the last three of every sample are padding."""
    valid = torch.ones(SAMPLES, 16, dtype=torch.bool)
    valid[:, 13:] = False
    places = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(SAMPLES, 1, 1)
    return {"x": torch.randn(SAMPLES, 16, 3 * PATCH**2), "patch_coord": places, "patch_valid": valid}


def t5() -> nn.Module:
    """The first block makes the position bias that all others are given."""
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 2 * WIDTH, "num_layers": DEPTH, "num_heads": HEADS}
    return transformers.T5EncoderModel(transformers.T5Config(**sizes, vocab_size=99))


def whisper() -> nn.Module:
    sizes = {"d_model": WIDTH, "encoder_layers": DEPTH, "encoder_attention_heads": HEADS, "encoder_ffn_dim": 48}
    tokens = {"vocab_size": 9, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    config = transformers.WhisperConfig(**sizes, **tokens, num_mel_bins=8, max_source_positions=6, decoder_layers=1)
    return transformers.WhisperModel(config).encoder


def hubert() -> nn.Module:
    """In training, every other layer is left out."""
    convolutions = {"conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 8)}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    return transformers.HubertModel(transformers.HubertConfig(**HF, **convolutions, **positions, layerdrop=0.5))


def naflex() -> nn.Module:
    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch_size": PATCH}
    return timm.create_model("naflexvit_base_patch16_gap", pretrained=False, num_classes=10, **sizes)


def relative(**more: Any) -> Callable[[], nn.Module]:
    attention = {"relative_attention": True, "position_buckets": 4, "pos_att_type": "c2p|p2c", "share_att_key": True}
    return hf("DebertaV2", HF, vocab_size=99, **attention, **more)


def in_layers(model: Any) -> list[nn.Module]:
    return list(model.layers)


CASES = [
    Case(
        "rotary, grouped heads: Llama",
        hf("Llama", DECODER, num_key_value_heads=1),
        in_layers,
        PADDED,
        None,
        "layers.0",
        "norm",
        text,
    ),
    Case(
        "local and global by turns, causal: Gemma 2",
        hf("Gemma2", DECODER, num_key_value_heads=3, head_dim=8, sliding_window=3),
        in_layers,
        PADDED,
        None,
        "layers.0",
        "norm",
        text,
    ),
    Case(
        "local and global by turns: ModernBERT",
        hf("ModernBert", HF, vocab_size=99, pad_token_id=0, global_attn_every_n_layers=2, local_attention=4),
        in_layers,
        ["cls", *PADDED[1:]],
        None,
        "layers.0",
        "final_norm",
        text,
    ),
    Case(
        "parallel residual: GPT-NeoX",
        hf("GPTNeoX", DECODER, use_parallel_residual=True),
        in_layers,
        PADDED,
        None,
        "layers.0",
        "final_layer_norm",
        text,
    ),
    Case(
        "linear biases, samples and heads on one axis: BLOOM",
        hf("Bloom", {"hidden_size": WIDTH, "n_layer": DEPTH, "n_head": HEADS, "use_cache": False, **VOCABULARY}),
        lambda m: list(m.h),
        PADDED,
        None,
        "h.0",
        "ln_f",
        text,
    ),
    Case(
        "position bias handed on: T5",
        t5,
        lambda m: list(m.encoder.block),
        PADDED,
        None,
        "encoder.block.0",
        "encoder.final_layer_norm",
        text,
    ),
    Case(
        "relative positions: DeBERTa v2",
        relative(),
        lambda m: list(m.encoder.layer),
        ["cls", *PADDED[1:]],
        None,
        "encoder.layer.0",
        None,
        text,
    ),
    Case(
        "no attention: Mamba",
        hf("Mamba", DECODER, state_size=4),
        in_layers,
        ["token"] * 7,
        None,
        "layers.0",
        "norm_f",
        unpadded,
    ),
    Case(
        "sound: Whisper's encoder",
        whisper,
        in_layers,
        ["token"] * 6,
        None,
        "layers.0",
        "layer_norm",
        lambda: {"input_features": torch.randn(SAMPLES, 8, 12)},
    ),
    Case(
        "sound, layers dropped in training: HuBERT",
        hubert,
        lambda m: list(m.encoder.layers),
        ["token"] * 8,
        None,
        "encoder.layers.0",
        None,
        lambda: {"input_values": torch.randn(SAMPLES, 160)},
        given="encoder.layers",
    ),
    Case(
        "rotary positions as an argument: EVA-02",
        timm_model("eva02_tiny_patch14_224"),
        in_blocks,
        ["cls", *PATCHES],
        GRID,
        "blocks.0",
        "fc_norm",
        images,
    ),
    Case(
        "patches cut before and padded: NaFlexViT",
        naflex,
        in_blocks,
        ["reg"] * 4 + ["patch"] * 13 + ["pad"] * 3,
        None,
        "blocks.0",
        "fc_norm",
        patches,
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_pushed_paths_are_those_of_independent_hooks(case: Case) -> None:
    model, batch = in_double(case)
    result = push(case, model, batch, depth=2)
    assert result.token_type.values.tolist() == case.types
    assert result.module.values[0] == case.names
    for draw in range(2):
        change = torch.as_tensor((result.state[draw, :, 2] - result.reference[:, 2]).values)
        assert change.abs().amax() > 0
        expected = last_state_by_plain_hooks(case, model, batch, 2, change)
        assert_allclose(result.state[draw, :, -1], expected, **FLOAT64)
        assert np.abs(expected - result.reference[:, -1].values).max() > 1e-3, "the push must be seen at the end"


def test_singular_values_are_those_of_autograd_through_the_model(case: Case) -> None:
    model, batch = in_double(case)
    expected = np.linalg.svd(jacobian_by_plain_hooks(case, model, batch), compute_uv=False)
    options: dict[str, Any] = {"span": (START, STOP), "tokens": TOKEN, "directional": False, "progress": False}
    options["blocks"] = given(case, model)
    formed = depthflow.jacobian(model, batch, dense=True, n_modes=WIDTH, **options).isel(span=0)
    products = depthflow.jacobian(model, batch, dense=False, n_modes=4, rtol=1e-6, **options).isel(span=0)
    assert_allclose(formed.singular_value, expected, **FLOAT64)
    assert products.converged.all()
    assert_allclose(products.singular_value, expected[:, :4], **ITERATIVE)


def test_effects_of_swaps_are_those_of_a_model_rebuilt_with_the_block(case: Case) -> None:
    model, batch = in_double(case)
    model.eval()
    got = depthflow.swap_blocks(model, batch, tokens=[0, 2], blocks=given(case, model), progress=False)
    assert_allclose(np.diag(got.effect), 0.0, **EXACT)
    own = states_by_plain_hooks(case, model, batch)[:, -1]
    for i, j in PAIRS:
        final = states_by_plain_hooks(case, rebuilt(case, model, i, j), batch)[:, -1]
        expected = np.sqrt((angle(final, own)[:, [0, 2]] ** 2).mean(axis=1)).mean()
        assert expected > 1e-3, "the swap must be seen at the end"
        assert_allclose(got.effect.values[i, j], expected, **FLOAT64)


INTERVENTIONS = [
    ("perturb", {"depth": 1}),
    ("jacobian", {}),
    ("swap_blocks", {}),
]


@pytest.mark.parametrize(("name", "options"), INTERVENTIONS, ids=lambda value: str(value))
def test_a_convolution_beside_the_first_block_is_refused(name: str, options: dict[str, Any]) -> None:
    """As in DeBERTa v2's larger models, whose second block is not given what the first returns."""
    model = relative(conv_kernel_size=3, conv_act="gelu")()
    message = rf"{name} calls the blocks one after another, but .* between 'encoder\.layer\.0' and 'encoder\.layer\.1'"
    with pytest.raises(RecordError, match=message):
        getattr(depthflow, name)(model, text(), tokens=0, progress=False, **options)


@pytest.mark.parametrize(("name", "options"), INTERVENTIONS, ids=lambda value: str(value))
def test_blocks_with_others_between_them_are_refused(name: str, options: dict[str, Any]) -> None:
    model = timm_model("vit_tiny_patch16_224")()
    with pytest.raises(RecordError, match=r"changes the states between 'blocks\.0' and 'blocks\.2'"):
        getattr(depthflow, name)(model, images(), blocks=[model.blocks[0], model.blocks[2]], progress=False, **options)


def test_the_last_blocks_alone_are_as_among_all() -> None:
    model, pixels = timm_model("vit_tiny_patch16_224")().double(), images().double()
    options: dict[str, Any] = {"n_modes": 3, "progress": False}
    among = depthflow.jacobian(model, pixels, **options).singular_value.sel(span=[4, 5])
    alone = depthflow.jacobian(model, pixels, blocks=list(model.blocks[3:]), **options).singular_value
    assert_allclose(alone, among, **FLOAT64)


def test_samples_of_unequal_length_are_refused_by_perturb_alone() -> None:
    """What it follows is all tokens; a Jacobian and a swap look at the tokens that they are asked for."""
    model, batch = hf("Llama", DECODER, num_key_value_heads=1)().double(), text()
    batch["attention_mask"][0, :2] = 0  # on the left, as for generation
    with pytest.raises(RecordError, match=r"token 0 is padding in some samples of a batch and not in others"):
        depthflow.perturb(model, batch, depth=1, tokens=3, progress=False)
    together = depthflow.jacobian(model, batch, tokens=3, n_modes=3, progress=False).singular_value
    effect = depthflow.swap_blocks(model, batch, tokens=3, progress=False).effect
    alone, effects = [], []
    for sample in range(SAMPLES):
        one = {name: value[sample : sample + 1] for name, value in batch.items()}
        alone.append(depthflow.jacobian(model, one, tokens=3, n_modes=3, progress=False).singular_value)
        effects.append(depthflow.swap_blocks(model, one, tokens=3, progress=False).effect)
    assert_allclose(together, np.concatenate(alone), **FLOAT64)
    assert_allclose(effect, np.mean(effects, axis=0), **FLOAT64)
