"""Which of several processes this is, as torchrun tells each of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from depthflow.errors import RecordError

if TYPE_CHECKING:
    import torch


class Share(NamedTuple):
    """One of ``of`` processes, counted from 0."""

    rank: int = 0
    of: int = 1

    def part(self, count: int) -> tuple[int, int]:
        """Return from where to before where this process has its part of ``count`` things."""
        return count * self.rank // self.of, count * (self.rank + 1) // self.of


def share() -> Share:
    """Return this process's share by the environment variables RANK and WORLD_SIZE; alone where they are not set."""
    rank, of = (os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if not (rank.isdigit() and of.isdigit() and int(rank) < int(of)):
        raise RecordError(
            f"the environment says RANK={rank!r} and WORLD_SIZE={of!r}, which is no place among processes. Start them "
            "with torchrun, or unset both."
        )
    return Share(int(rank), int(of))


def own_device(device: str | torch.device | None) -> str | torch.device | None:
    """Return ``device``, or the one of this process where processes on one machine share out ``"cuda"``."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if local is not None and str(device) == "cuda" else device
