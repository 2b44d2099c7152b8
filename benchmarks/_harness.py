"""Time two ways of the same work side by side, and keep each result with the check that both agree."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

Work = Callable[[], object]


class Disagreement(RuntimeError):
    """Two ways of one computation gave different answers, so their times cannot be compared."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio of medians, the ratio to reach, and how well the answers agreed."""

    name: str
    size: str
    against: str
    ratio: float
    target: float | None
    higher_is_better: bool
    agreement: str

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None for a row that is kept as context only."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target


Rows = Iterator[Row]


def seconds(work: Work) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratio(ours: Work, theirs: Work, repeats: int = 7) -> float:
    """Return median time of ``ours`` over median time of ``theirs``, interleaved, after one warm-up each."""
    ours()
    theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    return median(time for time, _ in times) / median(time for _, time in times)


PEAK = """
from pathlib import Path
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


def peak(code: str, *arguments: str) -> int:
    """Return the most bytes that a fresh process ever had resident while it ran ``code``; on Linux only."""
    run = subprocess.run([sys.executable, "-c", code + PEAK, *arguments], capture_output=True, text=True, check=True)
    return int(run.stdout.split()[-1])


def exponent(sizes: list[int], work: Callable[[int], Work], repeats: int = 5) -> float:
    """Return the slope of log time against log size: 1 is linear cost."""
    import numpy as np

    medians = []
    for size in sizes:
        call = work(size)
        call()
        medians.append(median(seconds(call) for _ in range(repeats)))
    return float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])
