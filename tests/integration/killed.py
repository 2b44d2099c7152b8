"""Kill recordings at random moments and continue them; ``python -m tests.integration.killed 20`` does it 20 times."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECORD = """
import sys
import torch
import depthflow, depthflow.store
from depthflow.recording import direct
torch.set_num_threads(1)
direct.LEAST = 2**16  # so that these small chunks, too, pass by the page cache while the disk keeps up
depthflow.store.CHUNK_BYTES = 9 * 57 * 2**10
model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("test")
print("begin", flush=True)
depthflow.record(
    model, data.images, labels=data.labels, sample_ids=range(len(data.labels)), batch_size=3, store=sys.argv[1],
    progress=False,
)
"""
"""The bundled model on 360 digits, in chunks of 9 or 6."""


def digest(store: Path) -> str:
    """Return one hash of the names and contents of all files."""
    found = hashlib.sha256()
    for path in sorted(store.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(store)} {path.stat().st_size} ".encode() + path.read_bytes())
    return found.hexdigest()


def start(store: Path, processes: int = 1) -> subprocess.Popen[str]:
    """Start a recording in a process, or in several by torchrun."""
    script = store.with_name("record.py")
    script.write_text(RECORD)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(script), str(store)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def ranks(launcher: int) -> list[int]:
    """Return the processes that torchrun started, in the order of their ranks."""
    return [int(child) for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def finish(store: Path, processes: int = 1) -> None:
    """Record to the end."""
    run = start(store, processes)
    _, errors = run.communicate(timeout=300)
    if run.returncode:
        raise RuntimeError(errors)


def chunks(store: Path) -> int:
    """Return how many chunks of states are on disk."""
    return len([path for path in store.glob("state/c/*") if path.suffix != ".partial"])


def kill_one(store: Path, at: int, delay: float = 0.0, processes: int = 1, rank: int = 0) -> bool:
    """Kill a rank's process ``delay`` seconds after ``at`` chunks are there; return whether it still ran."""
    run = start(store, processes)
    assert run.stdout is not None
    run.stdout.readline()
    victim = run.pid if processes == 1 else ranks(run.pid)[rank]
    while chunks(store) < at and run.poll() is None:
        time.sleep(0.001)
    time.sleep(delay)
    running = run.poll() is None
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        running = False
    run.communicate(timeout=300)
    return running


def main(times: int) -> None:
    """Print for each kill how much was written, and whether the store became the same."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            whole = Path(folder) / f"whole{processes}.zarr"
            finish(whole, processes)
            print(f"{processes} process(es): {chunks(whole)} chunks, hash {digest(whole)[:16]}", flush=True)
            for number in range(times):
                store = Path(folder) / f"{processes}_{number}.zarr"
                rank, at = draw.randrange(processes), draw.randrange(chunks(whole) * 9 // 10)
                killed = kill_one(store, at, draw.uniform(0, 0.02), processes, rank)
                there = chunks(store)
                finish(store, processes)
                same = digest(store) == digest(whole)
                print(f"  {number + 1}: rank {rank} killed with {there} chunks there; same {same}", flush=True)
                if not (killed and same):
                    sys.exit(f"killed {killed}, same {same}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
