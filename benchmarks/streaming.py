"""What measuring without storing costs beside the model's bare forward pass, and that its memory does not grow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, peak, ratio

PEAK_TARGET = 1.05

CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "similarity and phases": {"similarity": {}, "phases": {}},
    "convergence": {"convergence": {}},
    "coherence": {"coherence": {}},
    "update_spectra, pooled": {"update_spectra": {"pool": True}},
    "dmd of cls": {"dmd": {"tokens": "cls", "ridge": 1e-6}},
}

STREAMING = """
import sys
import torch, depthflow

def images(samples):
    draw = torch.Generator().manual_seed(0)
    for _ in range(samples // 100):
        yield torch.rand(100, 1, 8, 8, generator=draw)

depthflow.stream(depthflow.datasets.digits_vit(), images(int(sys.argv[1])), {measures}, progress=False)
"""
"""What a fresh process runs, on so many samples."""


def rows(smoke: bool) -> Rows:
    """Yield each measure's stream against the bare forward pass, and the growth of memory with the samples."""
    import timm

    sizes: dict[str, Any] = {"img_size": 32, "depth": 2} if smoke else {}
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", pretrained=False, **sizes).eval()
    images = torch.randn(16 if smoke else 64, 3, *model.patch_embed.img_size)
    for name, measures in CHOICES.items():
        yield _row(name, measures, model, images, 1 if smoke else 5)
    yield _peak(200 if smoke else 1_000, 400 if smoke else 100_000)


def _row(name: str, measures: dict[str, dict[str, Any]], model: Any, images: Tensor, repeats: int) -> Row:
    def ours() -> Any:
        return depthflow.stream(model, images, measures, batch_size=8, progress=False)

    def bare() -> None:
        with torch.no_grad():
            for batch in images.split(8):
                model(batch)

    far = _apart(ours(), measures, depthflow.record(model, images, batch_size=8, progress=False))
    if far > 1e-5:
        raise Disagreement(f"stream of {name} differs from the measure of the recording by {far:.1e}")
    size = f"timm ViT-S/16, {len(images)} images {images.shape[-1]}², batch 8"
    agreement = f"record, then measure: {far:.0e}"
    return Row(f"stream: {name}", size, "the bare forward pass", ratio(ours, bare, repeats), None, False, agreement)


def _apart(found: Any, measures: dict[str, dict[str, Any]], traj: xr.DataArray) -> float:
    """Return the largest relative difference between what was streamed and the measures of the recording."""
    worst = 0.0
    for name, arguments in measures.items():
        wanted = getattr(depthflow, name)(traj, **arguments)
        result = found[name]
        if isinstance(wanted, xr.DataArray):
            wanted, result = wanted.to_dataset(name=name), result.to_dataset(name=name)
        for variable in wanted.data_vars:
            expected, streamed = wanted[variable], result[variable]
            if name == "dmd" and variable not in ("error", "error_identity"):  # the others hang on its condition
                continue
            mean = expected.mean("sample") if "sample" in expected.dims else expected
            scale = float(np.nanmax(np.abs(mean)))
            worst = max(worst, float(np.nanmax(np.abs(mean.values - streamed.values))) / scale)
    return worst


def _peak(few: int, many: int) -> Row:
    """Return the row of the peak memory of ``many`` samples over that of ``few``."""
    measures = {"convergence": {}, "coherence": {}, "similarity": {}, "phases": {}, "update_spectra": {"pool": True}}
    code = STREAMING.format(measures=measures)
    small, large = peak(code, str(few)), peak(code, str(many))
    size = f"bundled ViT, {many:,} against {few:,} samples, {len(measures)} measures"
    agreement = f"{large / 1e6:.0f} MB against {small / 1e6:.0f} MB"
    return Row("stream: peak memory", size, "the same of fewer samples", large / small, PEAK_TARGET, False, agreement)
