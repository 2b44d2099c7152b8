"""Models whose states are no trajectory are refused, with the reason and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

import depthflow
from depthflow.errors import ModelError, ParameterError, RecordError, UnsupportedModelError
from tests.adapters.families import HEADS, HF, HF_IMAGE, PATCH, SIDE, VOCABULARY, WIDTH, Block, images, timm_model

HIERARCHICAL = r"is hierarchical: its states change shape with depth .*one stage of equal shape"


def swin() -> nn.Module:
    sizes = {"img_size": SIDE, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}
    return timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, **sizes)


def hiera() -> nn.Module:
    sizes = {"img_size": (64, 64), "embed_dim": 12, "num_heads": 1, "stages": (1, 1, 1, 1)}
    return timm.create_model("hiera_tiny_224", pretrained=False, **sizes)


def hf_swin() -> nn.Module:
    sizes = {
        "image_size": SIDE,
        "patch_size": 4,
        "window_size": 4,
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [2, 2],
    }
    return transformers.SwinModel(transformers.SwinConfig(**sizes))


def clip() -> nn.Module:
    config = transformers.CLIPConfig(text_config={**HF, **VOCABULARY}, vision_config=HF_IMAGE)
    return transformers.CLIPModel(config)


def crossvit() -> nn.Module:
    sizes = {
        "img_size": 48,
        "img_scale": (1.0, 1.0),
        "patch_size": (12, 16),
        "embed_dim": (12, 24),
        "num_heads": (3, 3),
    }
    return timm.create_model("crossvit_9_240", pretrained=False, depth=((1, 3, 0), (1, 3, 0)), **sizes)


def tnt() -> nn.Module:
    sizes = {"img_size": SIDE, "embed_dim": WIDTH, "inner_dim": 12, "num_heads_outer": HEADS, "depth": 2}
    return timm.create_model("tnt_s_patch16_224", pretrained=False, **sizes)


@pytest.mark.parametrize(
    ("build", "streams"),
    [(crossvit, "one of small patches and one of large"), (tnt, "one of the pixels within each patch")],
)
def test_models_of_two_streams_are_refused(build: Any, streams: str) -> None:
    model = build()
    with pytest.raises(UnsupportedModelError, match=rf"passes two streams .*{streams}.*not one tensor.*one residual"):
        depthflow.record(model, images(), progress=False)
    assert not depthflow.inspect(model).supported


def test_a_token_that_joins_on_the_way_is_refused_and_each_side_can_be_recorded() -> None:
    model = timm_model("convit_tiny", embed_dim=WIDTH // HEADS, local_up_to_layer=3)()
    with pytest.raises(
        UnsupportedModelError, match=r"joins its class token .* block 4, .*blocks\[:3\] or .*blocks\[3:\]"
    ):
        depthflow.record(model, images(), progress=False)
    before = depthflow.record(model, images(), blocks=list(model.blocks[:3]), progress=False)
    after = depthflow.record(model, images(), blocks=list(model.blocks[3:]), progress=False)
    assert (before.shape, after.shape) == ((3, 4, 16, WIDTH), (3, 3, 17, WIDTH))


def test_a_transformer_of_torchvision_that_shrinks_its_states_is_called_hierarchical() -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model("mvit_v1_b", weights=None)
    info = depthflow.inspect(model)
    assert not info.supported
    assert info.reason == (
        "torchvision/MViT is hierarchical: its states change shape with depth, so they have no common space."
    )


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (swin, HIERARCHICAL),
        (hiera, HIERARCHICAL),
        (hf_swin, r"is hierarchical: its 2 stages of 2, 2 blocks differ in the shape .*one stage of equal shape"),
    ],
)
def test_hierarchical_models_are_refused_before_they_run(build: Any, reason: str) -> None:
    model = build()
    with pytest.raises(UnsupportedModelError, match=reason):
        depthflow.record(model, torch.randn(2, 3, 1, 1), progress=False)
    info = depthflow.inspect(model)
    assert not info.supported
    assert "hierarchical" in info.reason
    assert "blocks=[…]" in info.remedy
    assert "what to do" in str(info)


def test_a_stage_of_a_hierarchical_model_can_be_given() -> None:
    model = hiera()
    info = depthflow.inspect(model, torch.randn(1, 3, 64, 64), blocks="blocks")
    assert not info.supported
    assert "256×12 → 64×24 → 16×48 → 4×96" in info.reason
    swin_model = hf_swin()
    stage = list(swin_model.encoder.layers[0].blocks)
    traj = depthflow.record(swin_model, {"pixel_values": images()}, blocks=stage, progress=False)
    assert traj.shape == (3, 3, 64, 8)
    assert set(traj.token_type.values.tolist()) == {"token"}


def test_two_towers_are_refused_and_each_can_be_recorded() -> None:
    model = clip()
    with pytest.raises(UnsupportedModelError) as caught:
        depthflow.record(model, {"pixel_values": images()}, progress=False)
    for part in (
        "holds 2 stacks",
        "blocks='text_model.encoder.layers'",
        "blocks='vision_model.encoder.layers'",
        "pixel_values and input_ids",
        "record(model.vision_model, pixel_values)",
    ):
        assert part in str(caught.value)
    pictures = images()
    both = {"pixel_values": pictures, "input_ids": torch.randint(3, 99, (3, 7))}
    towers = {
        name: depthflow.record(model, both, blocks=f"{name}.encoder.layers", progress=False)
        for name in ("vision_model", "text_model")
    }
    assert towers["vision_model"].sizes["token"] == 17
    assert towers["text_model"].sizes["token"] == 7
    alone = depthflow.record(model.vision_model, pictures, progress=False)
    assert alone.token_type.values[:2].tolist() == ["cls", "patch"]
    assert (alone.values == towers["vision_model"].values).all()


def test_channels_last_states_are_refused() -> None:
    model = timm.create_model(
        "samvit_base_patch16_224", pretrained=False, img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=2,
        num_heads=HEADS, global_attn_indexes=(1,), window_size=2,
    )  # fmt: skip
    with pytest.raises(
        UnsupportedModelError, match=r"states of 4 axes, shape \(3, 4, 4, 24\).*\(sample, token, feature\)"
    ):
        depthflow.record(model, images(), progress=False)


class TokenFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1).contiguous()
        for block in self.blocks:
            x = block(x)
        return x


def test_token_first_states_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"\(7, 3, 24\) for 3 samples, which reads as \(token, sample"):
        depthflow.record(TokenFirst(), torch.randn(3, 7, WIDTH), progress=False)


class Unnamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.tower[1](self.tower[0](x.clone()))


def test_an_unknown_model_is_told_which_list_could_be_meant() -> None:
    with pytest.raises(UnsupportedModelError, match=r"no family that depthflow knows.*Pass blocks='tower'"):
        depthflow.record(Unnamed(), torch.randn(3, 7, WIDTH), progress=False)


def test_a_model_without_any_list_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"Pass blocks=\[…\]"):
        depthflow.record(nn.Linear(2, 2), torch.randn(3, 2), progress=False)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match=r"torch.nn.Module; got str.*command line"):
        depthflow.record("timm:vit_tiny_patch16_224", torch.randn(1, 3, 8, 8))  # type: ignore[arg-type]


def test_blocks_that_are_not_in_the_model() -> None:
    model = Unnamed()
    with pytest.raises(ParameterError, match=r"blocks='towers' is not in Unnamed.*'tower'"):
        depthflow.record(model, torch.randn(3, 7, WIDTH), blocks="towers")
    with pytest.raises(ParameterError, match=r"blocks= holds a Block that is not a module of this Unnamed"):
        depthflow.record(model, torch.randn(3, 7, WIDTH), blocks=[Block()])
    with pytest.raises(ParameterError, match=r"blocks= names no blocks"):
        depthflow.record(model, torch.randn(3, 7, WIDTH), blocks=[])


class TwoViews(Unnamed):
    """Runs its stack on two crops in one forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(x + 1)


def test_several_passes_over_the_blocks_are_no_trajectory() -> None:
    with pytest.raises(RecordError, match=r"tower.0 ran again .*several views or crops"):
        depthflow.record(TwoViews(), torch.randn(3, 7, WIDTH), blocks="tower", progress=False)


class Skips(Unnamed):
    """Leaves its second block out."""

    def forward(self, x: Tensor) -> Tensor:
        return self.tower[0](x.clone())


def test_a_block_that_does_not_run_is_an_error() -> None:
    with pytest.raises(RecordError, match=r"1 of 2 blocks did not run .*'tower.1'"):
        depthflow.record(Skips(), torch.randn(3, 7, WIDTH), blocks="tower", progress=False)


class Fickle(Unnamed):
    """Runs its last block twice when there are two samples."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return self.tower[1](x) if len(x) == 2 else x


def test_another_number_of_calls_in_a_later_batch_is_an_error() -> None:
    batches = [torch.randn(3, 7, WIDTH), torch.randn(2, 7, WIDTH)]
    with pytest.raises(RecordError, match=r"ran 3 times in this batch and 2 times in the first"):
        depthflow.record(Fickle(), batches, blocks="tower", progress=False)


def test_two_backbones_in_one_module_are_refused() -> None:
    model = nn.ModuleDict({"left": timm_model("vit_tiny_patch16_224")(), "right": timm_model("vit_tiny_patch16_224")()})
    with pytest.raises(UnsupportedModelError, match=r"holds 2 transformers.*'left.blocks' or blocks='right.blocks'"):
        depthflow.record(model, images())


def yolos(**more: Any) -> nn.Module:
    config = {**HF_IMAGE, "image_size": [SIDE, SIDE], "num_detection_tokens": 9, **more}
    return transformers.YolosModel(transformers.YolosConfig(**config))


def test_a_layout_that_does_not_fit_is_an_error_and_can_be_overridden() -> None:
    model = transformers.ViTModel(transformers.ViTConfig(**HF_IMAGE))
    model.config.num_register_tokens = 9
    with pytest.raises(RecordError, match=r"passes on 17 tokens, but its structure says 26.*blocks='layers'"):
        depthflow.record(model, {"pixel_values": images()}, progress=False)
    traj = depthflow.record(model, {"pixel_values": images()}, blocks="layers", progress=False)
    assert traj.token_type.values.tolist() == ["token"] * 17


def test_states_that_change_between_the_blocks_are_refused() -> None:
    model = yolos()
    with pytest.raises(UnsupportedModelError, match=r"adds position embeddings .* between its blocks.*Pass blocks="):
        depthflow.record(model, {"pixel_values": images()}, progress=False)
    assert depthflow.record(model, {"pixel_values": images()}, blocks="encoder.layer", progress=False).shape[2] == 26
    plain = depthflow.record(yolos(use_mid_position_embeddings=False), {"pixel_values": images()}, progress=False)
    assert plain.token_type.values.tolist() == ["cls", *["patch"] * 16, *["token"] * 9]


def rwkv(**more: Any) -> nn.Module:
    sizes = {"hidden_size": WIDTH, "attention_hidden_size": WIDTH, "num_hidden_layers": 4, "vocab_size": 99}
    return transformers.RwkvModel(transformers.RwkvConfig(**sizes, **more))


def test_states_that_are_halved_on_the_way_are_refused_and_can_be_kept_whole() -> None:
    ids = {"input_ids": torch.randint(3, 99, (3, 7))}
    model = rwkv(rescale_every=2)
    with pytest.raises(UnsupportedModelError, match=r"halves its states after every 2 blocks.*rescale_every = 0"):
        depthflow.record(model, ids, progress=False)
    model.config.rescale_every = 0
    assert depthflow.record(model, ids, progress=False).sizes["depth"] == 5
    assert depthflow.inspect(rwkv(rescale_every=4)).supported


def squeezebert() -> nn.Module:
    return transformers.SqueezeBertModel(
        transformers.SqueezeBertConfig(**HF, **VOCABULARY, embedding_size=WIDTH, q_groups=1, k_groups=1, v_groups=1)
    )


def flaubert() -> nn.Module:
    return transformers.FlaubertModel(transformers.FlaubertConfig(n_words=99, emb_dim=WIDTH, n_layers=2, n_heads=HEADS))


def reformer() -> nn.Module:
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "feed_forward_size": WIDTH, "attention_head_size": 8}
    axial = {"axial_pos_embds_dim": (8, 16), "axial_pos_shape": (4, 8), "attn_layers": ["local", "local"]}
    return transformers.ReformerModel(transformers.ReformerConfig(**sizes, **axial, vocab_size=99))


def qwen_vision() -> nn.Module:
    sizes = {"embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": HEADS, "depth": 2}
    config = transformers.Qwen2VLConfig(vision_config=sizes).vision_config
    return transformers.models.qwen2_vl.modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel(config)


def qwen_sound() -> nn.Module:
    sizes = {"d_model": WIDTH, "encoder_layers": 2, "encoder_attention_heads": HEADS, "encoder_ffn_dim": WIDTH}
    module = transformers.models.qwen2_5_omni.modeling_qwen2_5_omni
    return module.Qwen2_5OmniAudioEncoder(module.Qwen2_5OmniAudioEncoderConfig(**sizes, output_dim=WIDTH))


def seggpt() -> nn.Module:
    sizes = {**HF, "image_size": [32, 16], "patch_size": PATCH, "pretrain_image_size": 16, "decoder_hidden_size": 8}
    return transformers.SegGptModel(transformers.SegGptConfig(**sizes))


def byte_decoder() -> nn.Module:
    module = transformers.models.blt.modeling_blt
    sizes = {**HF, "num_hidden_layers": 2, "num_key_value_heads": HEADS, "hidden_size_global": WIDTH}
    return module.BltLocalDecoder(transformers.models.blt.BltLocalDecoderConfig(**sizes, vocab_size=99))


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (squeezebert, r"calls the forward method of its layers itself, past the hooks.*such as MobileBERT"),
        (flaubert, r"keeps the attention and the MLP of its layers in lists of their own.*such as XLM-RoBERTa"),
        (reformer, r"reversible layers, which carry two streams side by side.*one residual stream"),
        (qwen_vision, r"packs the patches of all images into one sequence.*keeps its samples apart"),
        (qwen_sound, r"packs the frames of all sounds into one sequence.*keeps its samples apart"),
        (seggpt, r"runs the image and its prompt as two samples and averages the two.*a model of one image"),
        (byte_decoder, r"attends to other tokens between its layers.*Pass blocks= with the list of its layers"),
    ],
)
def test_models_without_one_stream_of_samples_are_refused(build: Any, why: str) -> None:
    with pytest.raises(UnsupportedModelError, match=why):
        depthflow.record(build(), {"input_ids": torch.randint(3, 99, (2, 7))}, progress=False)


def test_stacks_that_nothing_marks_as_layers_are_seen() -> None:
    """Table Transformer marks its decoder's layers only; its encoder's must not be overlooked."""
    config = transformers.TableTransformerConfig(
        use_timm_backbone=False,
        backbone_config=transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", out_features=["stage2"]
        ),
        d_model=WIDTH, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=WIDTH, decoder_ffn_dim=WIDTH, num_queries=4,
    )  # fmt: skip
    info = depthflow.inspect(transformers.TableTransformerModel(config))
    assert not info.supported
    assert "blocks='encoder.layers' or blocks='decoder.layers'" in str(info.remedy)


def test_samples_packed_into_one_sequence_are_refused_and_can_be_recorded_one_by_one() -> None:
    model = transformers.PixtralVisionModel(transformers.PixtralVisionConfig(**{**HF_IMAGE, "num_attention_heads": 2}))
    with pytest.raises(UnsupportedModelError, match=r"packs the tokens of 3 samples into one sequence.*batch_size=1"):
        depthflow.record(model, images(), progress=False)
    assert depthflow.record(model, images(), batch_size=1, progress=False).shape == (
        3,
        1 + HF["num_hidden_layers"],
        16,
        WIDTH,
    )


@pytest.mark.parametrize(
    ("build", "stages"),
    [
        (
            lambda: transformers.CvtModel(transformers.CvtConfig(embed_dim=[12, 24, 24], num_heads=[1, 1, 1])),
            "1, 2, 10",
        ),
        (lambda: transformers.FunnelModel(transformers.FunnelConfig(vocab_size=99, d_model=WIDTH)), "4, 4, 4"),
    ],
    ids=["CvT", "Funnel"],
)
def test_stages_are_known_by_every_name_that_configurations_give_them(build: Any, stages: str) -> None:
    info = depthflow.inspect(build())
    assert not info.supported
    assert f"is hierarchical: its 3 stages of {stages} blocks" in str(info.reason)
