"""What is free, under the limits that containers and the schedulers of clusters set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from depthflow.errors import RecordError
from depthflow.recording import memory

if TYPE_CHECKING:
    from pathlib import Path


def group(folder: Path, names: tuple[str, str, str], limit: str, used: int, idle: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {idle}\n")


NEW = ("memory.max", "memory.current", "inactive_file")
OLD = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "groups").mkdir()
    monkeypatch.setattr(memory, "PROCESS_GROUPS", tmp_path / "process")
    monkeypatch.setattr(memory, "MOUNTED", tmp_path / "groups")
    monkeypatch.setattr(memory, "_system", lambda: 10**9)
    return tmp_path


def test_no_limit_leaves_what_the_system_has(limits: Path) -> None:
    assert memory.available() == 10**9
    (limits / "process").write_text("0::/\n")
    assert memory.available() == 10**9
    group(limits / "groups", NEW, "max", 7, 0)
    assert memory.available() == 10**9


def test_a_container_sees_its_own_group_at_the_root(limits: Path) -> None:
    (limits / "process").write_text("0::/\n")
    group(limits / "groups", NEW, "5000", 3000, 400)
    assert memory.available() == 5000 - 3000 + 400


def test_the_tightest_of_the_groups_above_counts(limits: Path) -> None:
    (limits / "process").write_text("1:name=systemd:/other\n0::/slurm/job_7/step_0\n")
    group(limits / "groups/slurm", NEW, "max", 9000, 0)
    group(limits / "groups/slurm/job_7", NEW, "8000", 3000, 100)
    group(limits / "groups/slurm/job_7/step_0", NEW, "9000", 3000, 100)
    group(limits / "groups/slurm/job_8", NEW, "1", 1, 0)
    assert memory.available() == 8000 - 3000 + 100


def test_groups_of_version_1(limits: Path) -> None:
    (limits / "process").write_text("4:memory:/slurm/job_7\n2:cpu,cpuacct:/x\n0::/\n")
    group(limits / "groups/memory", OLD, "9223372036854771712", 99, 0)
    group(limits / "groups/memory/slurm/job_7", OLD, "6000", 1000, 50)
    assert memory.available() == 6000 - 1000 + 50


def test_a_group_beyond_its_limit_leaves_nothing(limits: Path) -> None:
    (limits / "process").write_text("0::/\n")
    group(limits / "groups", NEW, "5000", 6000, 0)
    assert memory.available() == 0
    with pytest.raises(RecordError, match=r"a batch needs 2 kB of memory, and 0 B are free. Lower batch_size."):
        memory.require(2000, "a batch", "Lower batch_size.", torch.device("cpu"))
