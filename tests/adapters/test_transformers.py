"""Which layers, tokens, norm and width depthflow takes of transformers' models whose parts do not say it themselves."""

from __future__ import annotations

import torch
import transformers

import depthflow
from tests.adapters.families import GRID, HF, HF_IMAGE, PATCHES, SIDE, VOCABULARY, WIDTH
from tests.registries.contract import shaken
from tests.registries.poke import misplaced, types_by_poking
from tests.registries.transformers_models import candidate


def test_a_class_token_after_the_patches_is_the_last() -> None:
    sizes = {**HF_IMAGE, "num_attention_heads": 2, "intermediate_size": 4 * WIDTH}
    model = shaken(transformers.Llama4VisionModel(transformers.Llama4VisionConfig(**sizes)).eval())
    pixels = torch.randn(2, 3, SIDE, SIDE)
    info = depthflow.inspect(model, {"pixel_values": pixels})
    assert info.layout is not None
    assert info.layout.types == (*PATCHES, "cls")
    assert info.layout.types == types_by_poking(
        model, {"pixel_values": pixels}, "model.layers.0", {"class_embedding": "cls"}
    )
    assert info.layout.grid == GRID
    assert misplaced(model, pixels, "model.layers.0", info.layout, "pixel_values") is None
    assert info.final_norm == "layernorm_post"


def test_a_norm_beside_the_layers_that_runs_before_them_is_no_final_norm() -> None:
    config = transformers.Blip2QFormerConfig(**HF, encoder_hidden_size=WIDTH, vocab_size=99)
    model = transformers.Blip2QFormerModel(config)
    assert isinstance(model.layernorm, torch.nn.LayerNorm)
    assert depthflow.inspect(model).final_norm is None


def test_the_state_of_hyper_connections_has_the_features_of_all_streams() -> None:
    model = candidate("qwen4_exp_text", "Qwen4ExpTextModel").build()
    assert (model.config.hidden_size, model.config.hc_count) == (32, 4)
    info = depthflow.inspect(model)
    assert (info.width, info.final_norm) == (128, "hyper_connection_mixer.hc_norm")


def test_convolutions_on_maps_are_no_stack() -> None:
    """Chameleon's encoder of images to codes marks its convolutions as layers; it is a language model all the same."""
    images = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "embed_dim": 8}
    config = transformers.ChameleonConfig(
        **HF, **VOCABULARY, vocabulary_map={"<image>": 9}, vq_config={**images, "latent_channels": 32, "resolution": 32}
    )
    info = depthflow.inspect(transformers.ChameleonModel(config))
    assert info.blocks == tuple(f"layers.{number}" for number in range(HF["num_hidden_layers"]))


def test_the_width_and_the_norm_are_those_of_the_part_that_holds_the_layers() -> None:
    """A codec's own width is that of its codes, not of the HuBERT inside, whose norm lies before its layers."""
    sound = {**HF, "conv_dim": [8], "conv_stride": [5], "conv_kernel": [10], "num_feat_extract_layers": 1}
    sizes = {"encoder_hidden_size": 8, "decoder_hidden_size": 16, "downsampling_ratios": [2, 2], "n_codebooks": 2}
    config = transformers.XcodecConfig(
        acoustic_model_config=transformers.DacConfig(**sizes, codebook_dim=4),
        semantic_model_config=transformers.HubertConfig(**sound, num_conv_pos_embedding_groups=2),
    )
    info = depthflow.inspect(transformers.XcodecModel(config))
    assert (info.width, info.final_norm) == (WIDTH, None)
