"""The optimiser of a surrogate's blocks: AdamW, or Muon for their matrices beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from depthflow.surrogate.blocks import DepthScale

if TYPE_CHECKING:
    from torch import Tensor, nn

    from depthflow.surrogate.settings import SurrogateSettings


class Optimizer:
    """Steps every parameter of ``blocks``.

    Muon orthogonalises the momentum of each weight matrix (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon);
    biases, norms, scales and the maps from depth are AdamW's (arXiv:1711.05101).
    """

    def __init__(self, blocks: nn.Module, settings: SurrogateSettings) -> None:
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in blocks.named_parameters()}
        mapped = {
            id(weight) for part in blocks.modules() if isinstance(part, DepthScale) for weight in part.parameters()
        }
        matrices = [
            weight
            for weight in self._names
            if settings.optimizer == "muon" and weight.ndim == 2 and id(weight) not in mapped
        ]
        others = [weight for weight in self._names if not any(weight is matrix for matrix in matrices)]
        decay = settings.weight_decay
        self._parts: list[torch.optim.Optimizer] = []
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=settings.learning_rate, weight_decay=decay))
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=settings.matrix_rate, weight_decay=decay))
        self._rates = [part.param_groups[0]["lr"] for part in self._parts]

    def scale_rates(self, share: float) -> None:
        """Set every learning rate to a share of its largest."""
        for part, rate in zip(self._parts, self._rates, strict=True):
            part.param_groups[0]["lr"] = share * rate

    def step(self) -> None:
        """Step along the gradients, and forget them."""
        for part in self._parts:
            part.step()
            part.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Return what it keeps of the past, by the parameter's name and the quantity's."""
        return {
            f"{self._names[weight]}/{quantity}": tensor
            for part in self._parts
            for weight, kept in part.state.items()
            for quantity, tensor in kept.items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` gave; nothing, if that is empty."""
        for part in self._parts:
            for weight in part.param_groups[0]["params"]:
                prefix = f"{self._names[weight]}/"
                kept = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
                if kept:
                    count = {"step": kept["step"].cpu()} if "step" in kept else {}  # AdamW reads it, every step
                    part.state[weight] = kept | count
