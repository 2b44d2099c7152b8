"""How long the demo takes, of the minute that it may."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks._harness import Row, Rows, seconds

ALLOWANCE = 60.0
"""Seconds that ``depthflow demo`` may take on two cores, installed and with warm caches."""


def rows(smoke: bool) -> Rows:
    """Yield the one row: the demo's time over the allowance; the smoke run leaves it to the test of the demo."""
    if smoke:
        return
    with tempfile.TemporaryDirectory() as folder:

        def run(number: int) -> None:
            command = [sys.executable, "-m", "depthflow.cli", "demo", "--quiet", "-o", str(Path(folder) / str(number))]
            subprocess.run(command, check=True, capture_output=True)

        run(0)
        took = median(seconds(lambda number=number: run(number)) for number in range(1, 6))
    yield Row("depthflow demo", "360 digits, 12 blocks, and its null", "60 s", took / ALLOWANCE, 1.0, False, "–")
