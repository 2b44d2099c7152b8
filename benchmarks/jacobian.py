"""Leading singular values and gain of a block's Jacobian against its whole matrix, and the joint Jacobian's memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, ratio, seconds

RTOL = 1e-3
BLOCK = 6
ALLOWED_BYTES = 2e9
PROBES = 8
DECAY = 1.0
TOP = 4.0


def vit(name: str, smoke: bool) -> Any:
    """Return a timm model whose chosen block's two branches have spectra that fall like 1/k, as trained ones do."""
    import timm

    sizes: dict[str, Any] = {"img_size": 32, "embed_dim": 48, "num_heads": 3} if smoke else {}
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=10, **sizes).eval()
    block = model.blocks[BLOCK - 1]
    with torch.no_grad():
        for linear in (block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            left, values, right = torch.linalg.svd(linear.weight, full_matrices=False)
            falling = TOP * torch.arange(1, len(values) + 1) ** -DECAY
            linear.weight.copy_(left * falling @ right)
    return model


def entering(model: Any, images: Tensor) -> Tensor:
    """Return the states that the chosen block is given."""
    seen: list[Tensor] = []
    handle = model.blocks[BLOCK - 1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


def whole(block: nn.Module, states: Tensor, backend: SDPBackend) -> Tensor:
    """Return the class token's Jacobian as a matrix, by reverse mode over all of its rows."""

    def end(cls: Tensor) -> Tensor:
        out: Tensor = block(torch.cat([cls[None, None], states[:, 1:]], dim=1))[0, 0]
        return out

    with sdpa_kernel(backend):
        matrix: Tensor = jacrev(end)(states[0, 0])
    return matrix.detach()


class Sides:
    """Both ways of one model's Jacobian, cls → cls, and what they agree on."""

    def __init__(self, name: str, smoke: bool) -> None:
        self.model = vit(name, smoke)
        self.images = torch.randn(1, 3, *self.model.patch_embed.img_size)
        self.states, self.block = entering(self.model, self.images), self.model.blocks[BLOCK - 1]
        backends = (SDPBackend.MATH,) if smoke else (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION)
        self.best = min(backends, key=lambda one: min(self._seconds(one), self._seconds(one)))

    def _seconds(self, backend: SDPBackend) -> float:
        return seconds(lambda: whole(self.block, self.states, backend))

    @property
    def peer(self) -> str:
        """What the other side is."""
        return f"torch.func.jacrev ({self.best.name.lower()} attention) and its SVD"

    def theirs(self) -> Tensor:
        """Return all singular values of one block."""
        return torch.linalg.svdvals(whole(self.block, self.states, self.best))

    def ours(self, **options: Any) -> Any:
        """Return the call's result for one block, or for what ``options`` say."""
        given = {"span": (BLOCK - 1, BLOCK), "directional": False, "dense": False, "rtol": RTOL, "progress": False}
        return depthflow.jacobian(self.model, self.images, **{**given, **options}).isel(sample=0)

    def top(self) -> str:
        """Return how far the leading values are apart, or raise."""
        found = self.ours().isel(span=0)
        error = float(np.abs(found.singular_value.values / self.theirs().double().numpy()[:8] - 1).max())
        if not error <= RTOL or not bool(found.converged):
            raise Disagreement(f"jacobian: singular values differ by {error:.1e}, converged: {bool(found.converged)}")
        return f"{error:.0e} relative"

    def gains(self) -> Any:
        """Return the gains of all blocks by probes."""
        return self.ours(span="blocks", n_modes=0, n_probes=PROBES)

    def gain(self) -> str:
        """Return how many standard errors the gain is from the exact one, or raise."""
        found = self.gains().sel(span=BLOCK)
        exact = float(np.sqrt((self.theirs().double().numpy() ** 2).mean()))
        off = abs(float(found.rms_gain) - exact) / float(found.rms_gain_error)
        if not off < 4:
            raise Disagreement(f"jacobian: the gain is {off:.1f} standard errors from the exact one")
        return f"{off:.1f} standard errors"


def rows(smoke: bool) -> Rows:
    """Yield the class token's top 8 in two sizes, the gain by probes, and the joint state's top 8."""
    where = f"/16, block {BLOCK}, cls → cls, 1/k spectrum"
    small = Sides("vit_small_patch16_224", smoke)
    repeats = 1 if smoke else 5
    speed = 1 / ratio(small.ours, small.theirs, repeats)
    yield Row("jacobian, top 8", f"ViT-S{where}", small.peer, speed, 3.0, True, small.top())
    blocks = len(small.model.blocks)
    speed = blocks / ratio(small.gains, small.theirs, repeats)
    yield Row(
        f"rms_gain, {PROBES} probes",
        f"ViT-S/16, {blocks} blocks, cls → cls",
        f"{small.peer}, × {blocks}",
        speed,
        20.0,
        True,
        small.gain(),
    )
    if not smoke:
        base = Sides("vit_base_patch16_224", smoke)
        speed = 1 / ratio(base.ours, base.theirs, 3)
        yield Row("jacobian, top 8", f"ViT-B{where}", base.peer, speed, 6.0, True, base.top())
    yield joint(smoke)


def joint(smoke: bool) -> Row:
    """Return the memory of the joint state's top 8 above the model's, measured in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.jacobian", *(["--smoke"] if smoke else [])],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    if not found["converged"]:
        raise Disagreement(f"jacobian: the joint state's top 8 did not converge; residuals {found['residual']}")
    return Row(
        "jacobian, joint state, top 8: memory above the model",
        f"ViT-S/16, {found['dim']:,} dimensions, block {BLOCK}, {found['seconds']:.0f} s",
        f"{ALLOWED_BYTES / 1e9:g} GB (dense: {found['dim'] ** 2 * 4 / 1e9:.3g} GB)",
        found["bytes"] / ALLOWED_BYTES,
        1.0,
        False,
        f"residuals ≤ {max(found['residual']):.0e} of σ",
    )


def measure_joint(smoke: bool) -> dict[str, Any]:
    """Return peak memory, time and residuals of the joint Jacobian in this process."""
    model = vit("vit_small_patch16_224", smoke)
    images = torch.randn(1, 3, *model.patch_embed.img_size)
    dim = entering(model, images).numel()
    found: Any = None

    def work() -> None:
        nonlocal found
        found = depthflow.jacobian(model, images, span=(BLOCK - 1, BLOCK), tokens="all", dense=False, progress=False)

    Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM is the peak
    before = memory("VmRSS")
    taken = seconds(work)
    return {
        "bytes": memory("VmHWM") - before,
        "seconds": taken,
        "dim": dim,
        "converged": bool(found.converged),
        "residual": (found.residual / found.singular_value).values.ravel().tolist(),
    }


def memory(name: str) -> int:
    """Return a figure of this process's memory, in bytes, as Linux keeps it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}.")


if __name__ == "__main__":
    print(json.dumps(measure_joint("--smoke" in sys.argv)))
