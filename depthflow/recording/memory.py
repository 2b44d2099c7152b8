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


PROCESS_GROUPS, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
GROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Where Linux says what a control group may take, has taken, and would give up: version 2 and version 1."""


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
    """Return what the limits on this process leave, as containers and schedulers of clusters set them."""
    if not PROCESS_GROUPS.is_file():
        return None
    left = []
    for line in PROCESS_GROUPS.read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds in GROUPS:
            folder, *names = GROUPS[kinds]
            group = MOUNTED / folder / path.lstrip("/")
            # Inside a container the path may be that outside, where the folder itself is the container's group.
            left += [_left(parent, *names) for parent in (group, *group.parents) if parent.is_relative_to(MOUNTED)]
    return min((size for size in left if size is not None), default=None)


def _left(group: Path, limit: str, used: str, idle: str) -> int | None:
    """Return what one group's limit leaves; cached files are given up when memory is asked for."""
    if not all((group / name).is_file() for name in (limit, used, "memory.stat")):
        return None
    most = (group / limit).read_text().strip()
    if not most.isdigit():
        return None
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return max(0, int(most) - int((group / used).read_text()) + int(stat.get(idle, 0)))


def require(needed: int, what: str, remedy: str = KEEP_LESS, device: torch.device | None = None) -> None:
    """Raise with the ``remedy`` unless ``needed`` bytes for ``what`` fit into the free memory of ``device``."""
    cuda = device is not None and device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if cuda else available()
    if free is not None and needed > MARGIN * free:
        raise RecordError(f"{what} needs {readable(needed)} of memory, and {readable(free)} are free. {remedy}")


def readable(size: float) -> str:
    """Return a number of bytes in a unit that suits it."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
