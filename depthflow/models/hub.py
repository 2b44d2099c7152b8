"""The DINO family's own code, as ``torch.hub`` and its repositories give it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depthflow.models.generic import GenericAdapter
from depthflow.schema import CLS, REGISTER

if TYPE_CHECKING:
    from torch import nn


class DinoAdapter(GenericAdapter):
    """``DinoVisionTransformer`` of DINOv2 and DINOv3: class token, registers, patches.

    Its blocks may be kept in chunks that are padded with ``nn.Identity``, which are opened and left out. It has no
    recipe: its code comes with the repository, which is fetched and run, not installed.
    """

    def __init__(self, root: nn.Module, prefix: str = "") -> None:
        super().__init__(root, prefix)
        self.family = f"hub/{type(self.part).__name__}"
        self.layout_must_hold = True

    def prefix_tokens(self) -> list[str]:
        """Return the class token and the registers, which DINOv3 calls storage tokens."""
        registers = getattr(self.part, "num_register_tokens", None) or getattr(self.part, "n_storage_tokens", None) or 0
        return [CLS] + [REGISTER] * int(registers)
