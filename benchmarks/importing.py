"""What ``import depthflow`` costs beyond ``import numpy``, and that it loads no heavy package."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from benchmarks._harness import Disagreement, Row, Rows, seconds

HEAVY = ("torch", "numba", "matplotlib")
ALLOWANCE = 0.15
"""Seconds that ``import depthflow`` may take beyond ``import numpy``."""


def rows(smoke: bool) -> Rows:
    """Yield the one row: (time − NumPy's time) over the allowance."""
    probe = f"import sys, depthflow; print([name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.strip()
    if loaded != "[]":
        raise Disagreement(f"import depthflow loaded {loaded}")

    def fresh(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    pairs = [(fresh("import numpy, depthflow"), fresh("import numpy")) for _ in range(1 if smoke else 9)]
    extra = median(ours - numpys for ours, numpys in pairs)
    yield Row(
        "import depthflow, beyond NumPy",
        "–",
        f"{ALLOWANCE} s",
        extra / ALLOWANCE,
        1.0,
        False,
        f"none of {', '.join(HEAVY)} loaded",
    )
