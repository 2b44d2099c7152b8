"""Several processes that train one surrogate, as torchrun starts them; one is the usual case."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from depthflow.surrogate.lessons import Share


@dataclass(frozen=True)
class Processes:
    """What this process knows of all.

    Attributes
    ----------
    share : Share
        Its rank, and how many there are.
    device : torch.device or str, optional
        Where it runs; None for where the teacher is.
    """

    share: Share
    device: torch.device | str | None

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are averaged over all processes."""
        if self.share.of == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes."""
        if self.share.of == 1:
            return values
        from accelerate.utils import reduce

        averaged: Tensor = reduce(values, "mean")
        return averaged


def processes(device: torch.device | str | None) -> Processes:
    """Return the processes that torchrun or accelerate started, joined; each then runs on its own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(Share(), device)
    from accelerate import PartialState

    state = PartialState(cpu=device is not None and torch.device(device).type == "cpu")
    return Processes(Share(state.process_index, state.num_processes), state.device)
