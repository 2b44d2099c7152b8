"""timm's transformers, by what each model says of itself; timm is never imported here."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from depthflow.models.base import Adapter, Call, Refusal, TokenLayout, bare, json_safe
from depthflow.models.generic import CONTAINERS, candidates, children, remedy, square
from depthflow.schema import CLS, DISTILLATION, PATCH, REGISTER

ARGUMENTS = ("num_classes", "in_chans", "global_pool")
"""What a model's attributes say of how it was made; they follow a change of its head, unlike the arguments kept."""

STREAMS = {
    "CrossVit": "one of small patches and one of large",
    "TNT": "one of the pixels within each patch and one of the patches",
}
"""Models whose blocks pass on two states side by side, and what these are."""

PREPROCESSING_KEYS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


class TimmAdapter(Adapter):
    """A model of timm that keeps its blocks in ``blocks``, or whose ``encoder`` does."""

    library = "timm"

    def __init__(self, root: nn.Module, prefix: str = "") -> None:
        super().__init__(root, prefix)
        self.family = f"timm/{type(self.part).__name__}"
        inner = bare(getattr(self.part, "encoder", None))
        wrapped = isinstance(inner, nn.Module) and hasattr(inner, "blocks") and not hasattr(self.part, "blocks")
        self.body: nn.Module = inner if wrapped else self.part
        """The module that holds the blocks: a classifier may keep them in its encoder."""
        self.body_name = "encoder." if wrapped else ""
        holder = bare(getattr(self.body, "blocks", None))
        if isinstance(holder, CONTAINERS):
            self.named_blocks = children(self.dotted(f"{self.body_name}blocks"), holder)
        self.refusal = self._refuse()

    def _refuse(self) -> Refusal | None:
        streams = STREAMS.get(type(self.part).__name__)
        if streams is not None:
            return Refusal(
                f"{self.family} passes two streams through its blocks, {streams}, so its state is not one tensor "
                "(sample, token, feature).",
                "Use a model with one residual stream.",
            )
        joins = getattr(self.body, "local_up_to_layer", 0)
        if 0 < joins < len(self.named_blocks):
            return Refusal(
                f"{self.family} joins its class token to the patches at block {joins + 1}, so its states have one "
                "token less before than after.",
                f"Pass blocks=[…] with the blocks on one side, model.blocks[:{joins}] or model.blocks[{joins}:].",
            )
        stages = [dict(stage) for stage in getattr(self.part, "feature_info", None) or []]
        shapes = list(dict.fromkeys((stage.get("reduction"), stage.get("num_chs")) for stage in stages))
        if len(shapes) > 1:
            listed = " → ".join(f"1/{reduction} size × {width}" for reduction, width in shapes)
            return Refusal(
                f"{self.family} is hierarchical: its states change shape with depth ({listed} features), so they have "
                "no common space.",
                "Pass blocks=[…] with the blocks of one stage of equal shape, or use an isotropic model.",
            )
        if not self.named_blocks:
            return Refusal(f"{self.family} keeps no list of transformer blocks.", remedy(candidates(self.root)))
        return None

    def name(self) -> str:
        """Return timm's name of the architecture; which weights were loaded, the model does not say."""
        config = getattr(self.part, "pretrained_cfg", None) or {}
        return config.get("architecture") or super().name()

    def prefix_tokens(self) -> list[str]:
        """Return the types of the tokens before the patches inside the blocks."""
        part = self.body
        if any(hasattr(part, name) for name in ("blocks_token_only", "cls_attn_blocks")):
            return []  # CaiT and XCiT join the class token after these blocks
        if getattr(part, "local_up_to_layer", 0) > 0:
            return []  # and so does a ConViT of local blocks only; others are refused
        has_cls = getattr(part, "has_class_token", None)
        if has_cls is None:
            has_cls = isinstance(getattr(part, "cls_token", None), Tensor)
        registers = getattr(part, "num_reg_tokens", None)
        if registers is None:
            token = getattr(part, "reg_token", None)
            registers = token.shape[1] if isinstance(token, Tensor) else 0
        distilled = isinstance(getattr(part, "dist_token", None), Tensor)
        return [CLS] * bool(has_cls) + [DISTILLATION] * distilled + [REGISTER] * registers

    def layout(self, call: Call | None = None) -> TokenLayout | None:
        """Return prefix and patches; patches that were cut before, as NaFlex models take them, have no common grid."""
        ready = call.tensor("x") if call else None
        if call and ready is not None and ready.ndim == 3:
            return TokenLayout.padded(
                [*self.prefix_tokens(), *[PATCH] * ready.shape[1]], call.kwargs.get("patch_valid")
            )
        grid = self._grid(call.images() if call else None)
        return TokenLayout.image(self.prefix_tokens(), grid) if grid else None

    def _grid(self, images: Tensor | None) -> tuple[int, int] | None:
        holders = (getattr(self.body, name, None) for name in ("patch_embed", "stem", "embeds"))
        embed = next((holder for holder in holders if holder is not None), None)
        fixed = square(getattr(embed, "grid_size", None))
        if images is None and fixed:
            return fixed
        if images is None:
            config = getattr(self.part, "pretrained_cfg", None) or {}
            size = square(getattr(embed, "img_size", None)) or square(tuple(config.get("input_size") or ())[1:])
        else:
            size = square(tuple(images.shape[2:]))
        if size is None:
            return None
        measure = getattr(embed, "dynamic_feat_size", None)
        if callable(measure):
            return square(measure(size))
        patch = square(getattr(embed, "patch_size", None))
        return (size[0] // patch[0], size[1] // patch[1]) if patch else None

    def width(self) -> int | None:
        """Return ``embed_dim``."""
        width = getattr(self.body, "embed_dim", None) or getattr(self.body, "num_features", None)
        return width if isinstance(width, int) else None

    def final_norm(self) -> str | None:
        """Return ``norm``, or that of a projector or a classifier, ``fc_norm`` in models that norm after pooling."""
        inside = [f"{self.body_name}{name}" for name in ("norm", "merger.norm")]
        return self.first_norm([*inside, "norm", "fc_norm"])

    def preprocessing(self) -> dict[str, Any] | None:
        """Return timm's data configuration of the weights."""
        config = getattr(self.part, "pretrained_cfg", None) or {}
        return {key: config[key] for key in PREPROCESSING_KEYS if config.get(key) is not None} or None

    def recipe(self) -> dict[str, Any] | None:
        """Return timm's name of the architecture, and the arguments that it was made with as far as the model shows."""
        config = getattr(self.part, "pretrained_cfg", None) or {}
        if self.prefix or not config.get("architecture"):
            return None
        given = getattr(self.part, "_model_args", {})  # absent in older versions of timm
        shown = {name: getattr(self.part, name, None) for name in ARGUMENTS}
        shown["img_size"] = getattr(getattr(self.part, "patch_embed", None), "img_size", None)
        arguments = {**given, **{name: value for name, value in shown.items() if value is not None}}
        return {
            "library": self.library,
            "model": config["architecture"],
            "arguments": {name: value for name, value in arguments.items() if json_safe(value)},
            "preprocessing": self.preprocessing(),
        }
