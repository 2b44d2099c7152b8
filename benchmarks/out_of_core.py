"""A store of states is analysed in bounded memory, in a time that grows with its size alone.

``DEPTHFLOW_STORE_GB=1,2`` sets the sizes; the folder of temporary files must have room for the largest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr

import depthflow
from benchmarks._harness import Disagreement, Row
from depthflow import analysis
from depthflow.cases import EACH, MEASURES
from depthflow.results import open_results
from depthflow.store import chunk_samples

if TYPE_CHECKING:
    from benchmarks._harness import Rows

GB = (1.0, 5.0, 20.0)
SHAPE, TINY = (13, 197, 384), (4, 5, 8)
"""Depths, tokens and features of a ViT-S, and of the smoke run."""
LIMIT = 2e9
"""Bytes that the whole process may hold at its peak."""
FLAT = 1.15
COMPARED = 16
"""Samples, the first, whose answers are compared with those of memory."""
SAME = {"rtol": 1e-8, "atol": 1e-8}
CLASSES = 10

CHILD = """
import json, re, sys, time
from pathlib import Path
from depthflow import cases, cli

spent = {}

def timed(name, measure):
    def run(case):
        start = time.perf_counter()
        result = measure(case)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
        return result
    return run

for known in (cases.EACH, cases.MEASURES):
    known.update({name: timed(name, measure) for name, measure in known.items()})
sys.argv = ["depthflow", "analyze", sys.argv[1], "-o", sys.argv[2], "--quiet"]
start = time.perf_counter()
try:
    cli.main()
except SystemExit as left:
    if left.code:
        raise
seconds = time.perf_counter() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "spent": spent}))
"""


def rows(smoke: bool) -> Rows:
    """Yield peak memory and time of each size, and how the time per gigabyte grows, in all and of each measure."""
    shape = TINY if smoke else SHAPE
    if smoke:
        sizes: tuple[float, ...] = (4 * COMPARED * _sample_bytes(shape) / 1e9,)
    else:
        sizes = tuple(float(size) for size in os.environ.get("DEPTHFLOW_STORE_GB", "").split(",") if size) or GB
    per_gb, spent = [], []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store, out = Path(folder) / "states.zarr", Path(folder) / "out"
            count = _write(store, size, shape)
            reading = _read(store) / size
            found = _analyzed(store, out)
            agreement = _agreed(store, out, Path(folder))
        per_gb.append(found["seconds"] / size)
        spent.append({name: seconds / size for name, seconds in found["spent"].items()})
        said = f"{size:.3g} GB, {count}×{'×'.join(map(str, shape))} float32"
        name = "depthflow analyze STORE, every measure and its null"
        yield Row(f"{name}: peak memory", said, "2 GB resident", found["peak"] / LIMIT, 1.0, False, agreement)
        yield Row(f"{name}: time", said, "reading the store once", per_gb[-1] / reading, None, False, agreement)
    if len(sizes) > 1:
        said = f"{sizes[-1]:g} GB against {sizes[0]:g} GB"
        growth = f"{per_gb[-1]:.3g} against {per_gb[0]:.3g} s/GB"
        name = "depthflow analyze STORE: growth of the time per GB"
        yield Row(name, said, "the smallest store", per_gb[-1] / per_gb[0], FLAT, False, growth)
        for measure, last in spent[-1].items():
            first = spent[0][measure]
            growth = f"{last:.3g} against {first:.3g} s/GB"
            yield Row(f"{measure} of it: growth", said, "the smallest store", last / first, FLAT, False, growth)


def _sample_bytes(shape: tuple[int, ...]) -> int:
    return int(4 * np.prod(shape))


def _write(path: Path, size: float, shape: tuple[int, ...]) -> int:
    """Write a store of ``size`` GB as recording does, of random walks that come to one of ten ends; count its samples.

    Each block moves a state less than the one before.
    """
    count = int(size * 1e9) // _sample_bytes(shape)
    rows = min(chunk_samples(_sample_bytes(shape), count), COMPARED // 2)
    depths, tokens, features = shape
    label = np.arange(count) % CLASSES
    kinds = np.array(["cls"] + ["patch"] * (tokens - 1), dtype=np.dtypes.StringDType())
    coords = {"sample": np.arange(count), "depth": np.arange(depths), "token": np.arange(tokens)}
    small = xr.Dataset(coords={**coords, "token_type": ("token", kinds), "label": ("sample", label)})
    small.to_zarr(path, zarr_format=3, consolidated=False)
    states = zarr.open_group(path, mode="r+").create_array(
        "state",
        shape=(count, *shape),
        chunks=(rows, *shape),
        dtype="float32",
        compressors=None,
        dimension_names=("sample", "depth", "token", "feature"),
        attributes={"schema_version": depthflow.schema.SCHEMA_VERSION},
    )
    rng = np.random.default_rng(0)
    ends = rng.standard_normal((CLASSES, 1, features), dtype=np.float32)
    step = (0.8 ** np.arange(depths, dtype=np.float32))[:, np.newaxis, np.newaxis]
    for start in range(0, count, rows):
        chosen = label[start : start + rows]
        walk = rng.standard_normal((len(chosen), *shape), dtype=np.float32) + ends[chosen, np.newaxis]
        walk *= step
        states[start : start + rows] = np.cumsum(walk, axis=1, out=walk)
    return count


def _read(path: Path) -> float:
    """Return the seconds of the least that a measure could do: to read all states and add them up."""
    traj = depthflow.open_trajectory(path)
    start = time.perf_counter()
    traj.data.sum().compute()
    return time.perf_counter() - start


def _analyzed(store: Path, out: Path) -> dict[str, Any]:
    """Analyse the store by the command line, in a process of its own; return its peak memory and its times."""
    command = [sys.executable, "-c", CHILD, str(store), str(out)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _agreed(store: Path, out: Path, folder: Path) -> str:
    """Compare with memory: the first samples' rows of the whole, and all results of those samples as a store.

    Raises
    ------
    Disagreement
        If a measure of single samples differs at all, or one of all samples together by more than rounding.
    """
    lazy = depthflow.open_trajectory(store).isel(sample=slice(COMPARED))
    memory = analysis.analyze(lazy.compute(), progress=False)
    part = analysis.analyze(lazy, store=folder / "part.zarr", progress=False)
    whole = open_results(out / "results.zarr")
    for group in ("results", "null"):
        ours, theirs = getattr(part, group), getattr(memory, group)
        for name in MEASURES:
            expected, found = theirs[name], ours[name].compute()
            if name in EACH:
                rows = whole[group][name].isel(sample=slice(COMPARED)).compute()
                same = found.identical(expected) and rows.identical(expected)
            else:
                same = set(found.variables) == set(expected.variables) and all(
                    _close(found[key].values, expected[key].values) for key in expected.variables
                )
            if not same:
                raise Disagreement(f"{name} of the {group}: a store and memory differ")
    return f"{COMPARED} samples: as in memory"


def _close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    if theirs.dtype.kind not in "fc":
        return bool(np.array_equal(ours, theirs))
    return bool(np.allclose(ours, theirs, equal_nan=True, **SAME))
