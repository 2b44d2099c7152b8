"""One tiny random model of every family, with what a person reading its code would say of its blocks and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import timm
import torch
import transformers
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionViT

from depthflow.models.vit import VisionTransformer, ViTSettings

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES, DEPTH, WIDTH, HEADS = 3, 5, 24, 3
SIDE, PATCH = 32, 8
GRID = (4, 4)
PATCHES = ["patch"] * 16

HF = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
}
HF_IMAGE = {**HF, "image_size": SIDE, "patch_size": PATCH}
VOCABULARY = {"vocab_size": 99, "bos_token_id": 0, "eos_token_id": 1}


@dataclass(frozen=True)
class Case:
    """A family: how to build it, what to call it with, and what is true of it."""

    name: str
    build: Callable[[], nn.Module]
    blocks: Callable[[Any], list[nn.Module]]
    types: list[str]
    grid: tuple[int, int] | None
    names: str
    """The dotted name of block 1."""
    final_norm: str | None
    inputs: Callable[[], Any]
    given: Any = None
    """The argument ``blocks=``; a callable gets the model."""
    depth: int = DEPTH

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        model = self.build()
        with torch.no_grad():
            for parameter in model.parameters():  # zero-initialised tokens and scales would hide mistakes
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    def batch(self) -> Any:
        torch.manual_seed(1)
        return self.inputs()


def images() -> Tensor:
    return torch.randn(SAMPLES, 3, SIDE, SIDE)


def pixels() -> dict[str, Tensor]:
    return {"pixel_values": images()}


def text() -> dict[str, Tensor]:
    ids = torch.randint(3, 99, (SAMPLES, 7))
    ids[:, 0] = 2
    mask = torch.ones(SAMPLES, 7, dtype=torch.long)
    mask[:, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def timm_model(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    small = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "num_classes": 10,
    }
    return lambda: timm.create_model(name, pretrained=False, **{**small, **kwargs})


class Block(nn.Module):
    """A block that returns its state in place of its input, as some do: a recorder that keeps references is fooled."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(self.linear(self.norm(x)).tanh())


class BlockChunk(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = block(x)
        return x


class DinoVisionTransformer(nn.Module):
    """The shape of DINOv2's own class: chunks of blocks, padded in front with nn.Identity so that names count on."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_size, self.num_register_tokens = PATCH, 2
        self.patch_embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.register_tokens = nn.Parameter(torch.randn(1, 2, WIDTH))
        chunks, start = [], 0
        for size in (2, 3):
            chunks.append(BlockChunk([*(nn.Identity() for _ in range(start)), *(Block() for _ in range(size))]))
            start += size
        self.blocks = nn.ModuleList(chunks)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        prefix = torch.cat([self.cls_token, self.register_tokens], dim=1).expand(len(x), -1, -1)
        x = torch.cat([prefix, x], dim=1)
        for chunk in self.blocks:
            x = chunk(x)
        return self.norm(x)[:, 0]


class Plain(nn.Module):
    """A module of nobody's family; its stack has a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.stack = nn.ModuleList(Block() for _ in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2).contiguous()
        for block in self.stack:
            x = block(x)
        return x.mean(dim=1)


class Tied(nn.Module):
    """Two blocks applied many times: phases of 3 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.first, self.second = Block(), Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2).contiguous()
        for block in (*[self.first] * 3, *[self.second] * 4):
            x = block(x)
        return x.mean(dim=1)


class Classifier(nn.Module):
    """A backbone of a known family inside a module that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm_model("vit_tiny_patch16_224")()
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def tiny_vit() -> nn.Module:
    return VisionTransformer(ViTSettings(SIDE, PATCH, 3, WIDTH, DEPTH, HEADS))


def timm_wrapper() -> nn.Module:
    arguments = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    config = transformers.TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=arguments)
    return transformers.TimmWrapperModel(config)


def hf(kind: str, config: dict[str, Any] = HF_IMAGE, **more: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = getattr(transformers, f"{kind}Model")
        return model(getattr(transformers, f"{kind.removesuffix('Model')}Config")(**config, **more))

    return build


def in_blocks(model: Any) -> list[nn.Module]:
    return list(model.blocks)


TIMM = [
    Case(
        "timm ViT", timm_model("vit_tiny_patch16_224"), in_blocks, ["cls", *PATCHES], GRID, "blocks.0", "norm", images
    ),
    Case(
        "timm ViT, 4 registers, no cls",
        timm_model("vit_medium_patch16_reg4_gap_256"),
        in_blocks,
        ["reg"] * 4 + PATCHES,
        GRID,
        "blocks.0",
        "fc_norm",
        images,
    ),
    Case(
        "timm DeiT distilled",
        timm_model("deit_tiny_distilled_patch16_224"),
        in_blocks,
        ["cls", "dist", *PATCHES],
        GRID,
        "blocks.0",
        "norm",
        images,
    ),
    Case(
        "timm SigLIP", timm_model("vit_base_patch16_siglip_224"), in_blocks, PATCHES, GRID, "blocks.0", "norm", images
    ),
    Case(
        "timm DINOv3",
        timm_model("vit_small_patch16_dinov3"),
        in_blocks,
        ["cls", *["reg"] * 4, *PATCHES],
        GRID,
        "blocks.0",
        "norm",
        images,
    ),
    Case(
        "timm BeiT",
        timm_model("beit_base_patch16_224"),
        in_blocks,
        ["cls", *PATCHES],
        GRID,
        "blocks.0",
        "fc_norm",
        images,
    ),
    Case("timm CaiT", timm_model("cait_xxs24_224"), in_blocks, PATCHES, GRID, "blocks.0", "norm", images),
    Case("timm XCiT", timm_model("xcit_nano_12_p8_224"), in_blocks, PATCHES, GRID, "blocks.0", "norm", images),
    Case(
        "timm Qwen3, its encoder in a classifier",
        timm_model("qwen3_vit_88m"),
        lambda m: list(m.encoder.blocks),
        PATCHES,
        GRID,
        "encoder.blocks.0",
        "norm",
        images,
    ),
    Case(
        "timm ConViT, local blocks only",
        timm_model("convit_tiny", embed_dim=WIDTH // HEADS),
        in_blocks,
        PATCHES,
        GRID,
        "blocks.0",
        "norm",
        images,
    ),
    Case(
        "timm ViT in a classifier",
        Classifier,
        lambda m: list(m.backbone.blocks),
        ["cls", *PATCHES],
        GRID,
        "backbone.blocks.0",
        "backbone.norm",
        images,
    ),
]

TRANSFORMERS = [
    Case("hf ViT", hf("ViT"), lambda m: list(m.layers), ["cls", *PATCHES], GRID, "layers.0", "layernorm", pixels),
    Case(
        "hf DeiT",
        hf("DeiT"),
        lambda m: list(m.layers),
        ["cls", "dist", *PATCHES],
        GRID,
        "layers.0",
        "layernorm",
        pixels,
    ),
    Case(
        "hf Dinov2",
        hf("Dinov2"),
        lambda m: list(m.encoder.layer),
        ["cls", *PATCHES],
        GRID,
        "encoder.layer.0",
        "layernorm",
        pixels,
    ),
    Case(
        "hf Dinov2WithRegisters",
        hf("Dinov2WithRegisters", num_register_tokens=3),
        lambda m: list(m.encoder.layer),
        ["cls", *["reg"] * 3, *PATCHES],
        GRID,
        "encoder.layer.0",
        "layernorm",
        pixels,
    ),
    Case(
        "hf DINOv3ViT",
        hf("DINOv3ViT", num_register_tokens=4),
        lambda m: list(m.model.layer),
        ["cls", *["reg"] * 4, *PATCHES],
        GRID,
        "model.layer.0",
        "norm",
        pixels,
    ),
    Case("hf BeiT", hf("Beit"), lambda m: list(m.layers), ["cls", *PATCHES], GRID, "layers.0", None, pixels),
    Case(
        "hf CLIPVision",
        hf("CLIPVision"),
        lambda m: list(m.encoder.layers),
        ["cls", *PATCHES],
        GRID,
        "encoder.layers.0",
        "post_layernorm",
        pixels,
    ),
    Case(
        "hf SiglipVision",
        hf("SiglipVision"),
        lambda m: list(m.encoder.layers),
        PATCHES,
        GRID,
        "encoder.layers.0",
        "post_layernorm",
        pixels,
    ),
    Case(
        "hf ViTMAE",
        hf("ViTMAE", mask_ratio=0.75),
        lambda m: list(m.layers),
        ["cls"] + ["patch"] * 4,
        None,
        "layers.0",
        "layernorm",
        lambda: {**pixels(), "noise": torch.rand(SAMPLES, 16)},
    ),
    Case(
        "hf Data2VecVision",
        hf("Data2VecVision"),
        lambda m: list(m.encoder.layer),
        ["cls", *PATCHES],
        GRID,
        "encoder.layer.0",
        None,
        pixels,
    ),
    Case(
        "hf TimmWrapper",
        timm_wrapper,
        lambda m: list(m.timm_model.blocks),
        ["cls", *PATCHES],
        GRID,
        "timm_model.blocks.0",
        "timm_model.norm",
        pixels,
    ),
    Case(
        "hf BERT",
        hf("Bert", HF, **VOCABULARY),
        lambda m: list(m.encoder.layer),
        ["cls"] + ["token"] * 4 + ["pad"] * 2,
        None,
        "encoder.layer.0",
        None,
        text,
    ),
    Case(
        "hf GPT-2",
        hf("GPT2", {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": HEADS, "n_positions": 32, **VOCABULARY}),
        lambda m: list(m.h),
        ["token"] * 5 + ["pad"] * 2,
        None,
        "h.0",
        "ln_f",
        text,
    ),
    Case(
        "hf ALBERT",
        hf("Albert", HF, embedding_size=16, **VOCABULARY),
        lambda m: list(m.encoder.albert_layer_groups[0].albert_layers) * DEPTH,
        ["cls"] + ["token"] * 4 + ["pad"] * 2,
        None,
        "encoder.albert_layer_groups.0.albert_layers.0",
        None,
        text,
    ),
    Case(
        "hf RADIO",
        hf("Radio", num_cls_tokens=2, num_registers=3),
        lambda m: list(m.encoder.layer),
        ["cls"] * 2 + ["reg"] * 3 + PATCHES,
        GRID,
        "encoder.layer.0",
        None,
        lambda: {"pixel_values": torch.rand(SAMPLES, 3, SIDE, SIDE)},
    ),
    Case(
        "hf MPNet, whose layers nothing marks",
        hf("MPNet", HF, **VOCABULARY),
        lambda m: list(m.encoder.layer),
        ["cls"] + ["token"] * 4 + ["pad"] * 2,
        None,
        "encoder.layer.0",
        None,
        text,
    ),
    Case(
        "hf wav2vec 2.0, whose convolutions are no blocks",
        hf(
            "Wav2Vec2",
            HF,
            conv_dim=[8, 8],
            conv_stride=[4, 4],
            conv_kernel=[8, 8],
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            vocab_size=99,
        ),
        lambda m: list(m.encoder.layers),
        ["token"] * 11,
        None,
        "encoder.layers.0",
        None,
        lambda: {"input_values": torch.randn(SAMPLES, 200)},
    ),
]

OTHERS = [
    Case(
        "torchvision ViT",
        lambda: TorchvisionViT(SIDE, PATCH, DEPTH, HEADS, WIDTH, 2 * WIDTH, num_classes=10),
        lambda m: list(m.encoder.layers),
        ["cls", *PATCHES],
        GRID,
        "encoder.layers.encoder_layer_0",
        "encoder.ln",
        images,
    ),
    Case(
        "hub DINOv2 in chunks",
        DinoVisionTransformer,
        lambda m: [block for chunk in m.blocks for block in chunk if not isinstance(block, nn.Identity)],
        ["cls", "reg", "reg", *PATCHES],
        GRID,
        "blocks.0.0",
        "norm",
        images,
    ),
    Case("bundled ViT", tiny_vit, in_blocks, ["cls", *PATCHES], GRID, "blocks.0", "norm", images),
    Case(
        "plain, dotted path",
        Plain,
        lambda m: list(m.stack),
        ["token"] * 16,
        None,
        "stack.0",
        None,
        images,
        given="stack",
    ),
    Case(
        "plain, list of modules",
        Plain,
        lambda m: list(m.stack),
        ["token"] * 16,
        None,
        "stack.0",
        None,
        images,
        given=lambda m: list(m.stack),
    ),
    Case(
        "weight-tied",
        Tied,
        lambda m: [m.first] * 3 + [m.second] * 4,
        ["token"] * 16,
        None,
        "first",
        None,
        images,
        given=lambda m: [m.first, m.second],
        depth=7,
    ),
]

CASES = [*TIMM, *TRANSFORMERS, *OTHERS]
