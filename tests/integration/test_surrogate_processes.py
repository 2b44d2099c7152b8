"""Two processes that torchrun starts train the surrogate that one process trains with batches twice as large."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import depthflow
from depthflow import SurrogateSettings
from tests.stacks import vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import TRAINED

pytestmark = pytest.mark.filterwarnings("ignore:fit_surrogate. the surrogate ends no nearer")

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
import torch.distributed
from safetensors.torch import save_file
from tests.integration.test_surrogate_processes import fit

torch.set_num_threads(1)
rank, folder = os.environ["RANK"], Path(sys.argv[1])
for kind in ("teacher", "fresh"):
    made = fit(kind, 3, folder / kind)
    weights = {name: weight.detach().contiguous() for name, weight in made.named_parameters()}
    save_file(weights, folder / f"{kind}{rank}")
    (folder / f"{kind}{rank}.json").write_text(json.dumps(made.history))
torch.distributed.destroy_process_group()
"""


def fit(init: str, batch_size: int, checkpoint: str | None) -> depthflow.RecurrentSurrogate:
    """Fit on 14 of 15 images, one being for validation: two steps an epoch, of 6 samples among all processes."""
    images = torch.randn(15, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    settings = SurrogateSettings(
        init=init, steps=(11, 10), batch_size=batch_size, validate_every=5, learning_rate=1e-3, matrix_rate=1e-3
    )
    return depthflow.fit_surrogate(
        vit(), images, phases=[1, 1, 2, 2], settings=settings, checkpoint=checkpoint, progress=False
    )


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path)],
        check=False, capture_output=True, timeout=200, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr.decode()
    for kind in ("teacher", "fresh"):
        first, second = (load_file(tmp_path / f"{kind}{rank}") for rank in (0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)
        wanted = fit(kind, 6, None)
        history, other = (json.loads((tmp_path / f"{kind}{rank}.json").read_text()) for rank in (0, 1))
        for name in ("step", "stage", "loss", "r2", "validation_step", "validation_loss", "validation_r2"):
            np.testing.assert_allclose(history[name], wanted.history[name], **TRAINED)
            assert history[name] == other[name]
        for name, weight in wanted.named_parameters():
            size, felt = weight.detach().abs().max(), torch.ones(len(weight), dtype=torch.bool)
            if name.endswith("qkv.bias"):  # a bias of the keys changes no attention: AdamW steps by its rounding's sign
                felt[len(weight) // 3 : 2 * len(weight) // 3] = False
            np.testing.assert_allclose(first[name][felt] / size, weight.detach()[felt] / size, rtol=0, atol=1e-3)
        assert [path.name for path in (tmp_path / kind).iterdir()] == ["checkpoint.safetensors"]
