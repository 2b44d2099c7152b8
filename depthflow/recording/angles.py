"""The angle between directions, on the device where they are."""

from __future__ import annotations

import torch
from torch import Tensor


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle (rad) between unit vectors along the last axis, right at any size."""
    angle: Tensor = 2 * torch.atan2((first - second).norm(dim=-1), (first + second).norm(dim=-1))
    return angle
