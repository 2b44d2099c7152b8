"""torchvision's vision transformer; torchvision is never imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from depthflow.models.base import Adapter, Call, Refusal, TokenLayout, bare
from depthflow.models.generic import CONTAINERS, candidates, children, remedy
from depthflow.schema import CLS

if TYPE_CHECKING:
    from torch import nn

ARGUMENTS = (
    "image_size", "patch_size", "hidden_dim", "mlp_dim", "dropout", "attention_dropout", "num_classes",
    "representation_size",
)  # fmt: skip


HIERARCHICAL = ("MViT", "MaxVit", "Swin")
"""Transformers whose states change shape with depth, by a part of their class's name."""


class TorchvisionAdapter(Adapter):
    """``torchvision.models.VisionTransformer``: a class token, then a square of patches."""

    library = "torchvision"

    def __init__(self, root: nn.Module, prefix: str = "") -> None:
        super().__init__(root, prefix)
        kind = type(self.part).__name__
        self.family = f"torchvision/{kind}"
        layers = bare(getattr(getattr(self.part, "encoder", None), "layers", None))
        if isinstance(layers, CONTAINERS):
            self.named_blocks = children(self.dotted("encoder.layers"), layers)
        elif any(part in kind for part in HIERARCHICAL):
            self.refusal = Refusal(
                f"{self.family} is hierarchical: its states change shape with depth, so they have no common space.",
                "Pass blocks=[…] with the blocks of one stage of equal shape, or use an isotropic model.",
            )
        else:
            self.refusal = Refusal(f"{self.family} keeps no list of transformer blocks.", remedy(candidates(root)))

    def layout(self, call: Call | None = None) -> TokenLayout | None:
        """Return one class token and the patches of the model's fixed image size."""
        size, patch = getattr(self.part, "image_size", None), getattr(self.part, "patch_size", None)
        if not isinstance(size, int) or not isinstance(patch, int):
            return None
        return TokenLayout.image([CLS], (size // patch, size // patch))

    def width(self) -> int | None:
        """Return ``hidden_dim``."""
        width = getattr(self.part, "hidden_dim", None)
        return width if isinstance(width, int) else None

    def final_norm(self) -> str | None:
        """Return ``encoder.ln``."""
        return self.first_norm(["encoder.ln"])

    def recipe(self) -> dict[str, Any] | None:
        """Return the constructor's arguments that a ``VisionTransformer`` keeps as attributes."""
        if self.prefix or type(self.part).__name__ != "VisionTransformer" or not self.blocks:
            return None
        arguments = {name: getattr(self.part, name, None) for name in ARGUMENTS}
        head = getattr(getattr(self.part, "heads", None), "head", None)  # often replaced, with num_classes left as is
        arguments["num_classes"] = getattr(head, "out_features", arguments["num_classes"])
        arguments["num_layers"] = len(self.blocks)
        arguments["num_heads"] = getattr(self.blocks[0], "num_heads", None)
        return {"library": self.library, "model": "VisionTransformer", "arguments": arguments}
