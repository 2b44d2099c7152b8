"""Real photographs through a model of realistic size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import depthflow

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos_224.npz"


@pytest.mark.skipif(not PHOTOS.is_file(), reason="the photographs are not part of the library")
def test_photographs_give_a_trajectory_that_moves() -> None:
    with np.load(PHOTOS) as data:
        parts = [data["jpeg"][data["offset"][i] : data["offset"][i + 1]].tobytes() for i in range(3)]
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = torch.stack([transform(Image.open(io.BytesIO(part)).convert("RGB")) for part in parts])
    traj = depthflow.record(model, images, progress=False)
    assert dict(traj.sizes) == {"sample": 3, "depth": 13, "token": 197, "feature": 192}
    step = np.linalg.norm(depthflow.updates(traj).values, axis=-1)
    assert step.min() > 0
