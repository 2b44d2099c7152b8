"""Several processes that train one surrogate, as torchrun starts them; one is the usual case."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from depthflow.errors import SurrogateError
from depthflow.recording.share import Share, share


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
        return DistributedDataParallel(module)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes."""
        if self.share.of == 1:
            return values
        from accelerate.utils import reduce

        averaged: Tensor = reduce(values, "mean")
        return averaged


def processes(device: torch.device | str | None) -> Processes:
    """Return the processes that torchrun or accelerate started, joined; each then runs on its own device."""
    started = share()
    if started.of == 1:
        return Processes(started, device)
    from accelerate import PartialState

    wanted = torch.device(device).type if device is not None else None
    state = PartialState(cpu=wanted == "cpu" or not torch.cuda.is_available())
    if state.num_processes != started.of:
        raise SurrogateError(
            f"{started.of} processes were started, but {state.num_processes} came together. Start them "
            "with torchrun or accelerate launch, on devices of one kind."
        )
    return Processes(Share(state.process_index, state.num_processes), state.device)
