"""Models whose states are no trajectory are refused, with the reason and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
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


def test_a_layout_that_does_not_fit_is_an_error_and_can_be_overridden() -> None:
    config = transformers.YolosConfig(**{**HF_IMAGE, "image_size": [SIDE, SIDE]}, num_detection_tokens=9)
    model = transformers.YolosModel(config)
    with pytest.raises(RecordError, match=r"passes on 26 tokens, but its structure says 17.*blocks='encoder.layer'"):
        depthflow.record(model, {"pixel_values": images()}, progress=False)
    traj = depthflow.record(model, {"pixel_values": images()}, blocks="encoder.layer", progress=False)
    assert traj.token_type.values.tolist() == ["token"] * 26
