"""A fit whose process is killed without a warning goes on, in another process, as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import depthflow
from depthflow import SurrogateSettings
from tests.stacks import vit
from tests.threads import one_thread  # noqa: F401

STEPS = (7, 8)
EVERY = 2

SCRIPT = """
import os, signal, sys
from itertools import count
import torch
from depthflow.surrogate.optimizer import Optimizer
from tests.integration.test_surrogate_resume import fit

torch.set_num_threads(1)
calls, step = count(1), Optimizer.step

def killed(self):
    step(self)
    if next(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

Optimizer.step = killed
fit(sys.argv[1])
"""


def fit(checkpoint: str | None) -> depthflow.RecurrentSurrogate:
    images = torch.randn(13, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return depthflow.fit_surrogate(
        vit(),
        images,
        augment=lambda x: x + 0.1 * torch.randn_like(x),
        settings=SurrogateSettings(steps=STEPS, batch_size=4, validate_every=3, checkpoint_every=EVERY),
        checkpoint=checkpoint,
        progress=False,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fit_surrogate. the surrogate ends no nearer")
def test_a_process_killed_in_each_stage_is_resumed_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    wanted = fit(None)
    first = int(rng.integers(EVERY + 1, STEPS[0]))  # steps of the first process: some checkpoint is there, not the last
    left = STEPS[0] - (first - first % EVERY)
    second = left + int(rng.integers(EVERY + 1, STEPS[1]))
    for steps in (first, second):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(steps)]
        killed = subprocess.run(
            command, check=False, capture_output=True, timeout=240, env={**os.environ, "PYTHONPATH": "."}
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    made = fit(str(tmp_path))
    assert all(map(torch.equal, made.parameters(), wanted.parameters()))
    assert made.history["loss"] == wanted.history["loss"]
    assert made.history["validation_loss"] == wanted.history["validation_loss"]
    assert made.history["step"] == wanted.history["step"]
