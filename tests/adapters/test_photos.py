"""Real photographs through a model of realistic size: what both doors record is what independent hooks see."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import depthflow
from depthflow.cli import main

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos_224.npz"
BATCH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    with np.load(PHOTOS) as data:
        offset = data["offset"]
        for number, (start, stop) in enumerate(pairwise(offset)):
            (path / f"{number:03d}.jpg").write_bytes(data["jpeg"][start:stop].tobytes())
    return path


@pytest.mark.skipif(not PHOTOS.is_file(), reason="the photographs are not part of the library")
def test_photographs_through_python_and_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", pretrained=False)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.jpg"))])
    assert len(images) == 128
    traj = depthflow.record(model, images, batch_size=BATCH, progress=False)
    store = folder / "photos.zarr"
    command = [
        "depthflow",
        "record",
        "timm:vit_small_patch16_224",
        folder,
        "--store",
        store,
        "--random-weights",
        "--quiet",
    ]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    with pytest.raises(SystemExit, match="0"):
        main()
    opened = depthflow.open_trajectory(store)
    assert dict(opened.sizes) == dict(traj.sizes) == {"sample": 128, "depth": 13, "token": 197, "feature": 384}

    seen: list[np.ndarray] = []
    model.eval()
    model.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].numpy().copy()))
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: seen.append(output.numpy().copy()))
    for start in range(0, len(images), BATCH):
        seen.clear()
        with torch.no_grad():
            model(images[start : start + BATCH])
        chosen = slice(start, start + BATCH)
        for depth, state in enumerate(seen):
            np.testing.assert_array_equal(traj.isel(sample=chosen, depth=depth).values, state)
            np.testing.assert_array_equal(opened.isel(sample=chosen, depth=depth).values, state)
    assert depth == 12
