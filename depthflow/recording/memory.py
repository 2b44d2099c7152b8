"""How much memory is free, and an error before it runs out."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from depthflow.errors import RecordError

MARGIN = 0.9
"""Share of the free memory that a recording may take: the model's own activations need the rest."""

KEEP_LESS = (
    "Write to disk with store='states.zarr', or keep less: tokens='cls+mean', depths=[…], dtype='float16', or fewer "
    "samples."
)
"""What to do where a recording does not fit."""


def available() -> int | None:
    """Return the bytes of memory that this process can still take, or None where the system does not say."""
    found = [size for size in (_system(), _control_group()) if size is not None]
    return min(found) if found else None


def _system() -> int | None:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _control_group() -> int | None:
    """Return what a container's limit leaves; cached files are given up when memory is asked for."""
    group = Path("/sys/fs/cgroup")
    if not all((group / name).is_file() for name in ("memory.max", "memory.current", "memory.stat")):
        return None
    limit = (group / "memory.max").read_text().strip()
    if not limit.isdigit():
        return None
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    used = int((group / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
    return max(0, int(limit) - used)


def require(needed: int, what: str, remedy: str = KEEP_LESS, device: torch.device | None = None) -> None:
    """Raise with the ``remedy`` unless ``needed`` bytes for ``what`` fit into the free memory of ``device``."""
    cuda = device is not None and device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if cuda else available()
    if free is not None and needed > MARGIN * free:
        raise RecordError(f"{what} needs {_readable(needed)} of memory, and {_readable(free)} are free. {remedy}")


def _readable(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
