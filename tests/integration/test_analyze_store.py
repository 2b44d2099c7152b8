"""A store of states is analysed part by part: the answers are those of memory, and a failure leaves nothing behind."""

from __future__ import annotations

import pickle
import subprocess
import sys
import weakref
from threading import Lock
from typing import TYPE_CHECKING

import dask.array
import numpy as np
import pytest
import xarray as xr
from tqdm import tqdm

import depthflow
from depthflow import analysis, cases, lazy, pictures, results
from depthflow.cases import EACH, POOLED, Case
from depthflow.errors import StoreError, TrajectoryError
from depthflow.output import claim
from depthflow.summary import summarize
from tests.tolerances import FLOAT64

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES, DEPTHS, TOKENS, FEATURES = 23, 6, 7, 11
SAMPLE_BYTES = DEPTHS * TOKENS * FEATURES * 4
CHUNK = 2


@pytest.fixture(scope="module")
def whole() -> xr.DataArray:
    """Return labelled states in three directions, in memory."""
    rng = np.random.default_rng(0)
    label = np.arange(SAMPLES) % 3
    states = (
        rng.normal(size=(SAMPLES, DEPTHS, TOKENS, FEATURES)).cumsum(axis=1) + 8 * np.eye(3, FEATURES)[label, None, None]
    )
    traj = depthflow.trajectory(
        states.astype(np.float32),
        token_type=["cls"] + ["patch"] * (TOKENS - 1),
        label=[f"class {one}" for one in label],
    )
    return traj.assign_coords(sample=100 + np.arange(SAMPLES))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make parts of two chunks, and of results chunks of a few samples, as a large store has them."""
    monkeypatch.setattr(lazy, "PART_BYTES", 2 * CHUNK * SAMPLE_BYTES)
    monkeypatch.setattr(results, "CHUNK_BYTES", 5 * DEPTHS * TOKENS * 8)


def in_chunks(traj: xr.DataArray, note=None) -> xr.DataArray:
    """Return the trajectory as an opened store has it: states in chunks, coords in memory; ``note`` sees each chunk."""
    states = dask.array.from_array(traj.values, chunks=(CHUNK, -1, -1, -1))
    if note is not None:
        states = states.map_blocks(note, dtype=states.dtype, meta=np.empty((0,) * 4, states.dtype))
    return traj.copy(data=states)


@pytest.mark.usefixtures("small_parts")
def test_a_store_has_the_answers_of_memory(whole, tmp_path):
    memory = analysis.analyze(whole, progress=False)
    found = analysis.analyze(in_chunks(whole), store=tmp_path / "r.zarr", progress=False)
    assert found.store == tmp_path / "r.zarr"
    for group in results.GROUPS:
        ours, theirs = getattr(found, group), getattr(memory, group)
        assert set(ours) == set(theirs) == {*EACH, *POOLED}
        for name, expected in theirs.items():
            if name in EACH:
                xr.testing.assert_identical(ours[name].compute(), expected)
            else:
                xr.testing.assert_allclose(ours[name].compute(), expected, **FLOAT64)
    angle = found.results["convergence"]["angle"]
    assert angle.chunks is not None, "what is larger than a chunk stays on disk"
    assert set(angle.chunks[0][:-1]) == {5}, "chunks of results are larger than the states'"
    assert found.results["phases"]["similarity"].chunks is None
    assert summarize(found) == summarize(memory)
    written = pictures.draw(found, tmp_path)
    assert {path.stem for path in written} == {*EACH, *POOLED}


@pytest.mark.usefixtures("small_parts")
def test_results_are_read_back_as_xarray_reads_them(whole, tmp_path):
    found = analysis.analyze(in_chunks(whole), measures=["convergence"], store=tmp_path / "r.zarr", progress=False)
    tree = xr.open_datatree(tmp_path / "r.zarr", engine="zarr", consolidated=False)
    assert tree["null"].attrs == {"null": analysis.NULL_BY_CHANCE}
    xr.testing.assert_identical(
        tree["results/convergence"].to_dataset().compute(), found.results["convergence"].compute()
    )
    assert tree["results/convergence"].label.values[:3].tolist() == ["class 0", "class 1", "class 2"]


def test_memory_and_a_store_are_saved_alike(whole, tmp_path):
    memory = analysis.analyze(whole, measures=["coherence", "basins"], progress=False)
    analysis.save(memory, tmp_path / "memory.zarr")
    analysis.analyze(whole, measures=["coherence", "basins"], store=tmp_path / "store.zarr", progress=False)
    trees = [
        xr.open_datatree(tmp_path / f"{name}.zarr", engine="zarr", consolidated=False) for name in ("memory", "store")
    ]
    xr.testing.assert_identical(*trees)
    with pytest.raises(StoreError, match=r"memory.zarr exists already and is not overwritten"):
        analysis.save(memory, tmp_path / "memory.zarr")


def test_only_the_measures_of_single_samples_say_so(whole):
    for name, measure in {**EACH, **POOLED}.items():
        assert bool(measure(Case(whole, None, 0)).attrs.get("samplewise")) == (name in EACH), name


@pytest.mark.usefixtures("small_parts")
def test_all_measures_of_single_samples_read_the_states_once(whole, tmp_path):
    read = []

    def note(block):
        read.append(len(block))
        return block

    traj = in_chunks(whole, note)
    analysis.analyze(traj, null=whole, measures=list(EACH), store=tmp_path / "r.zarr", progress=False)
    assert sum(read) == SAMPLES


def test_no_more_than_two_parts_are_held(whole, monkeypatch):
    monkeypatch.setattr(lazy, "PART_BYTES", 1)
    lock, alive, most = Lock(), 0, 0

    def gone():
        nonlocal alive
        with lock:
            alive -= 1

    def note(block):
        nonlocal alive, most
        copy = block.copy()
        weakref.finalize(copy, gone)
        with lock:
            alive += 1
            most = max(most, alive)
        return copy

    seen = []
    for part in lazy.loaded_parts(in_chunks(whole, note)):
        seen.append(part.sample.values)
        del part
    assert np.concatenate(seen).tolist() == whole.sample.values.tolist()
    assert {len(samples) for samples in seen[:-1]} == {CHUNK}
    assert most <= 3, "the part that is worked on, and the one that is read meanwhile"


def test_parts_of_states_without_labels_know_their_place(whole):
    bare = in_chunks(whole.drop_vars(["sample", "label"]))
    parts = list(lazy.loaded_parts(bare))
    assert np.concatenate([part.sample for part in parts]).tolist() == list(range(SAMPLES))


@pytest.mark.usefixtures("small_parts")
def test_a_failure_leaves_no_store(whole, tmp_path):
    states = whole.values.copy()
    states[-1, 2, 3] = np.nan
    path = tmp_path / "r.zarr"
    with pytest.raises(
        TrajectoryError, match=r"convergence found a state of norm nan, first at sample 122, depth 2, token 3"
    ):
        analysis.analyze(in_chunks(whole.copy(data=states)), store=path, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_parts")
def test_what_a_killed_analysis_left_is_replaced(whole, tmp_path):
    path = tmp_path / "r.zarr"
    with results.NewResults(path, "chance") as new:
        new.write("results", "basins", xr.Dataset())
        assert not path.exists()
        (left,) = tmp_path.iterdir()
    path.rename(left)
    analysis.analyze(in_chunks(whole), measures=["convergence"], store=path, progress=False)
    assert list(tmp_path.iterdir()) == [path]
    assert list(results.open_results(path)["results"]) == ["convergence"]
    with pytest.raises(StoreError, match=r"r.zarr exists already and is not overwritten. Remove it"):
        analysis.analyze(whole, store=path, progress=False)


def test_the_bar_tells_what_is_read(whole):
    bar = tqdm(total=1, disable=False, file=_Nowhere())
    traj = lazy.watched(in_chunks(whole), bar)
    np.testing.assert_array_equal(traj.values, whole.values)
    assert bar.postfix == f"{SAMPLES} samples read"
    elsewhere = pickle.loads(pickle.dumps(lazy._Reading(bar, 0)))
    np.testing.assert_array_equal(elsewhere(whole.values), whole.values)
    assert bar.postfix == f"{SAMPLES} samples read"
    assert lazy.watched(whole, bar) is whole
    bar.close()


class _Nowhere:
    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...


def test_one_linear_map_of_a_path_without_samples(whole):
    path = whole.isel(sample=0, drop=True)
    found = analysis.analyze(path, measures=["dmd"], progress=False).results["dmd"]
    xr.testing.assert_identical(found, depthflow.dmd(path, ridge=cases.RIDGE))


@pytest.mark.parametrize("form", ["array", "batches", "dict", "labelled batches"])
def test_the_first_samples_of_inputs_in_any_form(form):
    x, y = np.arange(24.0, dtype=np.float32).reshape(8, 3), np.arange(8)
    batches = [x[:3], x[3:6], x[6:]]
    inputs = {
        "array": x,
        "batches": batches,
        "dict": {"x": x},
        "labelled batches": list(zip(batches, (y[:3], y[3:6], y[6:]), strict=True)),
    }[form]
    subject = cases.Subject(None, inputs, None if form == "labelled batches" else y)
    first = list(subject.first(5, 3)["inputs"])
    taken = [given["x"] if form == "dict" else given for given, _ in first]
    np.testing.assert_array_equal(np.concatenate([np.asarray(one) for one in taken]), x[:5])
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in first]), y[:5])


@pytest.mark.parametrize(("features", "most", "taken"), [(64, 32, 32), (384, 32, 8), (768, 256, 64), (384, 256, 68)])
def test_the_model_runs_again_on_fewer_samples_of_large_states(features, most, taken):
    size = 13 * 197 * features if features > 64 else 13 * 17 * features
    traj = xr.DataArray(np.broadcast_to(np.float32(0), (5, size)), dims=("sample", "all"))
    assert cases.Case(traj, None, 0).few(most) == taken
    assert cases.Case(traj.isel(sample=0), None, 0).few(most) == taken


def test_states_are_analysed_without_torch():
    code = "import sys, depthflow.cli, depthflow.output; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_labelled_store_by_the_command_line(whole, tmp_path: Path, monkeypatch):
    from depthflow import store
    from depthflow.cli import main

    monkeypatch.setattr(store, "CHUNK_BYTES", CHUNK * SAMPLE_BYTES)
    depthflow.save_trajectory(whole, tmp_path / "t.zarr")
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["depthflow", "analyze", str(tmp_path / "t.zarr"), "-o", str(out), "--quiet"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    names = {path.name for path in out.iterdir()}
    assert names == {"results.zarr", "summary.txt"} | {f"{name}.png" for name in (*EACH, *POOLED)}
    assert results.open_results(out / "results.zarr")["results"]["basins"].ari.sizes == {"depth": DEPTHS}


def test_a_null_without_labels_is_drawn(whole, tmp_path):
    null = whole.drop_vars("label")
    found = analysis.analyze(whole, null=null, measures=["basins"], progress=False)
    assert "ari" in found.results["basins"]
    assert "ari" not in found.null["basins"]
    assert summarize(found)
    assert [path.name for path in pictures.draw(found, tmp_path)] == ["basins.png"]


@pytest.mark.parametrize("gap", ["traj", "null"])
def test_depths_that_are_not_consecutive_are_said_before_anything_is_measured(whole, tmp_path, monkeypatch, gap):
    def never(case):
        raise AssertionError("measured")

    monkeypatch.setitem(analysis.MEASURES, "basins", never)
    given = {"traj": whole, "null": whole} | {gap: whole.isel(depth=[0, 2, 5])}
    with pytest.raises(TrajectoryError, match=r"analyze needs consecutive depths.*got depth 0 followed by 2"):
        analysis.analyze(**given, measures=["basins", "dmd"], store=tmp_path / "r.zarr", progress=False)
    monkeypatch.undo()
    assert set(analysis.analyze(**given, measures=["basins"], progress=False).results) == {"basins"}


def test_results_have_no_room_where_a_file_is(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match=r"out cannot be made a folder: File exists. Choose another with -o"):
        claim(tmp_path / "out")


@pytest.mark.parametrize(
    ("fitted", "held_out"),
    [
        (TOKENS * SAMPLES, [*range(1, SAMPLES, 2)]),
        (TOKENS * 6, [*range(2, SAMPLES, 4)]),
        (1, [SAMPLES // 2]),
    ],
)
def test_a_map_is_fitted_to_evenly_spaced_samples(whole, monkeypatch, fitted, held_out) -> None:
    monkeypatch.setattr(cases, "FITTED", fitted)
    step = SAMPLES if len(held_out) == 1 else 2 * held_out[0]
    found = POOLED["dmd"](Case(whole, None, 0))
    expected = depthflow.dmd(
        whole.isel(sample=slice(0, None, 2 * (step // 2))), ridge=cases.RIDGE, test=whole.isel(sample=held_out)
    )
    xr.testing.assert_identical(found, expected)
