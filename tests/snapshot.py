"""What a call on a model must leave as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn


class Snapshot:
    """Everything of a model that a recording must not change."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.storage = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
        self.now = self.flags(model)

    @staticmethod
    def flags(model: nn.Module) -> Any:
        return (
            [module.training for module in model.modules()],
            [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
            [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
            torch.is_grad_enabled(),
        )

    def require(self, model: nn.Module) -> None:
        assert self.flags(model) == self.now
        assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == self.storage
        state = model.state_dict()
        assert state.keys() == self.state.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in self.state.items())
