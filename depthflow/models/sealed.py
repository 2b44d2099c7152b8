"""Models whose forward pass is a program of its own, in which no module runs and so no hook."""

from __future__ import annotations

import torch
from torch import nn

from depthflow.models.base import Refusal

REMEDY = "Give the module that it was made from."


def sealed(model: nn.Module) -> Refusal | None:
    """Return why no state can be taken from a scripted, traced or exported model, None for any other."""
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        return Refusal(
            f"{name} is scripted or traced, and runs as one program, without the hooks on its blocks.", REMEDY
        )
    if isinstance(model, torch.fx.GraphModule):
        return Refusal(f"{name} is traced or exported to a graph of operations, in which blocks do not run.", REMEDY)
    return None
