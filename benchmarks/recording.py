"""What recording costs beside the model's bare forward pass."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, peak, ratio

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY_TARGET, STORE_TARGET, BATCHES_TARGET = 1.03, 1.15, 3.0

RECORDING = """
import sys, tempfile
from pathlib import Path
import timm, torch, depthflow

def images():
    draw = torch.Generator().manual_seed(0)
    for _ in range({batches}):
        yield torch.randn(8, 3, *model.patch_embed.img_size, generator=draw)

torch.manual_seed(0)
model = timm.create_model("vit_small_patch16_224", pretrained=False, **{sizes}).eval()
with tempfile.TemporaryDirectory() as folder:
    first = next(images())[:1]  # both sides have loaded and run everything once
    depthflow.record(model, first, store=Path(folder) / "first.zarr", progress=False)
    if sys.argv[1] == "bare":
        with torch.no_grad():
            for batch in images():
                model(batch)
    else:
        depthflow.record(model, images(), store=Path(folder) / "all.zarr", progress=False)
"""
"""What a fresh process runs, one way or the other."""


def rows(smoke: bool) -> Rows:
    """Yield recording to memory and to a store against the bare forward pass."""
    import timm

    sizes: dict[str, Any] = {"img_size": 32, "depth": 2} if smoke else {}
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", pretrained=False, **sizes).eval()
    repeats = 1 if smoke else 7
    images = torch.randn(8, 3, *model.patch_embed.img_size)
    yield _row(
        "record to memory",
        model,
        images,
        MEMORY_TARGET,
        repeats,
        lambda x, path: depthflow.record(model, x, batch_size=8, progress=False),
    )
    images = torch.randn(16 if smoke else 64, 3, *model.patch_embed.img_size)
    yield _row(
        "record to a store",
        model,
        images,
        STORE_TARGET,
        1 if smoke else 5,
        lambda x, path: depthflow.record(model, x, batch_size=8, progress=False, store=path),
    )
    yield _peak(smoke, sizes, model)


def _peak(smoke: bool, sizes: dict[str, Any], model: Any) -> Row:
    """Return the row of a recording's peak memory beyond the bare forward pass, counted in batches of states."""
    script = RECORDING.format(batches=2 if smoke else 16, sizes=sizes)
    pairs = [(peak(script, "store"), peak(script, "bare")) for _ in range(1 if smoke else 7)]
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    batch = 8 * (len(model.blocks) + 1) * tokens * model.embed_dim * 4
    found = median(ours - bare for ours, bare in pairs) / batch
    size = f"timm ViT-S/16, {'16' if smoke else '128'} images {model.patch_embed.img_size[0]}², batch 8"
    name = "record to a store: peak memory beyond the bare forward pass"
    return Row(name, size, "one batch of states", found, BATCHES_TARGET, False, "the row above")


def _row(
    name: str, model: Any, images: Tensor, target: float, repeats: int, record: Callable[[Tensor, Path], Any]
) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(1000))

        def ours() -> Any:
            return record(images, Path(folder) / f"{next(numbers)}.zarr")

        def bare() -> None:
            with torch.no_grad():
                for batch in images.split(8):
                    model(batch)

        expected = _plain_hooks(model, list(model.blocks), images)
        if not np.array_equal(ours().values, expected):
            raise Disagreement(f"{name}: states differ from those of plain hooks")
        found = ratio(ours, bare, repeats)
    size = f"timm ViT-S/16, {len(images)} images {images.shape[-1]}², batch 8"
    return Row(name, size, "the bare forward pass", found, target, higher_is_better=False, agreement="bitwise")


def _plain_hooks(model: nn.Module, blocks: list[nn.Module], images: Tensor) -> np.ndarray:
    """Return the states (sample, depth, token, feature) by hooks that share nothing with depthflow's."""
    batches = []
    for batch in images.split(8):
        seen: list[Tensor] = []
        handles = [blocks[0].register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0].clone()))]
        handles += [
            block.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out.clone()))
            for block in blocks
        ]
        with torch.no_grad():
            model(batch)
        for handle in handles:
            handle.remove()
        batches.append(torch.stack(seen, dim=1))
    return torch.cat(batches).numpy()
