"""A recording to a store equals one to memory, can be continued, and never passes for finished when it is not."""

from __future__ import annotations

import errno
import shutil
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import depthflow
import depthflow.store
from depthflow.errors import ParameterError, RecordError, StoreError
from depthflow.models.vit import VisionTransformer, ViTSettings
from tests.threads import one_thread  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SAMPLES, BLOCKS, TOKENS, WIDTH = 11, 5, 10, 12
ROWS = 3


def build(seed: int = 0) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(ViTSettings(image_size=6, patch_size=2, width=WIDTH, depth=BLOCKS, heads=3)).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(depthflow.store, "CHUNK_BYTES", ROWS * (BLOCKS + 1) * TOKENS * WIDTH * 4)


def record(inputs: Any, **kwargs: Any) -> xr.DataArray:
    return depthflow.record(kwargs.pop("model", build()), inputs, progress=False, **kwargs)


def interrupted(images: Tensor, size: int, after: int, names: list[str] | None = None) -> Iterator[Any]:
    for number, part in enumerate(images.split(size)):
        if number == after:
            raise KeyboardInterrupt
        start = number * size
        yield part if names is None else (part, names[start : start + len(part)])


@pytest.mark.parametrize("labels", [None, list(range(SAMPLES)), [f"class {index % 3}" for index in range(SAMPLES)]])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_store_equals_memory(tmp_path, images, labels, dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = record(images, labels=labels, dtype=dtype, store=tmp_path / "t.zarr", batch_size=4)
    assert stored.chunks is not None
    expected = record(images, labels=labels, dtype=dtype, batch_size=4)
    xr.testing.assert_identical(stored.compute(), expected)
    xr.testing.assert_identical(depthflow.open_trajectory(tmp_path / "t.zarr"), stored)


@pytest.mark.parametrize(
    ("batch_size", "chunks"),
    [(1, (3, 3, 3, 2)), (2, (2, 2, 2, 2, 2, 1)), (4, (2, 2, 2, 2, 2, 1)), (9, (3, 3, 3, 2)), (11, (1,) * 11)],
)
def test_chunks_are_whole_batches_or_equal_parts_of_one(tmp_path, images, batch_size, chunks) -> None:
    stored = record(images, store=tmp_path / "t.zarr", batch_size=batch_size)
    assert stored.chunks[0] == chunks
    np.testing.assert_array_equal(stored.values, record(images, batch_size=batch_size).values)


def test_tokens_and_depths_in_a_store(tmp_path, images) -> None:
    options = {"tokens": "cls+mean", "depths": [0, 2, 5], "batch_size": 4}
    stored = record(images, store=tmp_path / "t.zarr", **options)
    xr.testing.assert_identical(stored.compute(), record(images, **options))


def test_number_of_samples_not_known_beforehand(tmp_path, images) -> None:
    names = [f"name {index}" for index in range(SAMPLES)]
    stored = record(interrupted(images, 4, 99, names), store=tmp_path / "t.zarr")
    xr.testing.assert_identical(stored.compute(), record(interrupted(images, 4, 99, names)))


class Stopped(VisionTransformer):
    """Notes the size of each batch, and is interrupted at a given one."""

    stop = 99

    def forward(self, x: Tensor) -> Tensor:
        if len(self.calls) == self.stop:
            raise KeyboardInterrupt
        self.calls.append(len(x))
        return super().forward(x)


Stopped.__name__ = VisionTransformer.__name__  # it is the same model to the store


def stopped(at: int = 99) -> Stopped:
    model = build()
    model.__class__ = Stopped
    model.stop, model.calls = at, []
    return model


@pytest.mark.parametrize("known", [True, False])
def test_an_interrupted_recording_is_continued(tmp_path, images, known) -> None:
    path = tmp_path / "t.zarr"

    def inputs() -> Any:
        return images if known else iter(images.split(4))

    with pytest.raises(KeyboardInterrupt):
        record(inputs(), model=stopped(2), store=path, batch_size=4)
    missing = r"3 of 11" if known else r"all after the first 8"
    with pytest.raises(StoreError, match=rf"unfinished recording: {missing} samples are missing.*call.* record again"):
        depthflow.open_trajectory(path)
    again = stopped()
    stored = record(inputs(), model=again, store=path, batch_size=4)
    assert again.calls == [4, 3], "of what is there, one sample's batch is run for comparison"
    np.testing.assert_array_equal(stored.values, record(images, batch_size=4).values)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 5])
def test_wherever_it_stops_the_store_becomes_the_same(tmp_path, images, known, batch_size) -> None:
    labels = [f"class {index % 3}" for index in range(SAMPLES)]

    def inputs() -> Any:
        starts = range(0, SAMPLES, batch_size)
        pairs = ((images[at : at + batch_size], labels[at : at + batch_size]) for at in starts)
        return images if known else pairs

    options: dict[str, Any] = {"batch_size": batch_size, "labels": labels if known else None}
    record(inputs(), store=tmp_path / "whole.zarr", **options)
    for stop in range(1, -(-SAMPLES // batch_size)):
        path = tmp_path / f"{stop}.zarr"
        with pytest.raises(KeyboardInterrupt):
            record(inputs(), model=stopped(stop), store=path, **options)
        record(inputs(), store=path, **options)
        assert files(path) == files(tmp_path / "whole.zarr")


def files(path: Path) -> dict[str, bytes]:
    """Return every file of a store with its content."""
    return {str(one.relative_to(path)): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


def test_what_is_there_is_not_read_again(tmp_path, images) -> None:
    asked: list[int] = []

    class Noted(Dataset):
        def __len__(self) -> int:
            return SAMPLES

        def __getitem__(self, index: int) -> Tensor:
            asked.append(index)
            return images[index]

    with pytest.raises(KeyboardInterrupt):
        record(DataLoader(Noted(), 2), model=stopped(4), store=tmp_path / "t.zarr")
    asked.clear()
    stored = record(DataLoader(Noted(), 2), store=tmp_path / "t.zarr")
    assert asked == [0, 1, 6, 7, 8, 9, 10], "the first batch and one written before are looked at, to compare them"
    np.testing.assert_array_equal(stored.values, record(images, batch_size=2).values)


def test_an_array_on_disk_is_read_batch_by_batch(tmp_path, images) -> None:
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(record(mapped, batch_size=4).values, record(images, batch_size=4).values)


def test_leftovers_of_a_killed_writer_are_removed(tmp_path, images) -> None:
    path = tmp_path / "t.zarr"
    with pytest.raises(KeyboardInterrupt):
        record(images, model=stopped(2), store=path, batch_size=4)
    (path / "state" / "c" / "9.0f.partial").write_bytes(b"half a chunk")
    (tmp_path / ".t.zarr.0f.creating").mkdir()
    record(images, store=path, batch_size=4)
    record(images, store=tmp_path / "whole.zarr", batch_size=4)
    assert files(path) == files(tmp_path / "whole.zarr")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["t.zarr", "whole.zarr"]


def test_other_samples_further_on_are_refused(tmp_path, images) -> None:
    path = tmp_path / "t.zarr"
    with pytest.raises(KeyboardInterrupt):
        record(images, model=stopped(2), store=path, batch_size=4)
    shuffled = torch.cat([images[:1], images[1:].flip(0)])
    with pytest.raises(StoreError, match=r"sample 7 comes out otherwise than .* holds it \(by [\d.]+% .*another order"):
        record(shuffled, store=path, batch_size=4)
    assert zarr.open_group(path, mode="r")["done"][:].sum() == 8


def test_names_of_samples_are_kept(tmp_path, images) -> None:
    names = [f"photo_{index}.jpg" for index in range(SAMPLES)]
    kept = record(images, sample_ids=names, batch_size=4)
    assert kept["sample_id"].values.tolist() == names
    stored = record(images, sample_ids=names, store=tmp_path / "t.zarr", batch_size=4)
    xr.testing.assert_identical(stored.compute(), kept)
    assert record(iter(images.split(4)), sample_ids=range(SAMPLES))["sample_id"].values.tolist() == list(range(SAMPLES))
    with pytest.raises(StoreError, match=r"sample ids '\w+' there, None here"):
        record(images, store=tmp_path / "t.zarr")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"] * SAMPLES, r"sample_ids that differ; 'a' occurs 11 times"),
        (["a", "b"], r"one sample id for each of 11 samples; got 2 sample ids"),
        (np.zeros((SAMPLES, 2), int), r"one whole number or string a sample; got shape \(11, 2\)"),
        (np.arange(SAMPLES) / 2, r"one whole number or string a sample; got shape \(11,\), dtype float64"),
    ],
)
def test_names_that_do_not_fit(images, names, message) -> None:
    with pytest.raises(ParameterError, match=message):
        record(images, sample_ids=names)


def test_fewer_samples_than_names(images) -> None:
    with pytest.raises(ParameterError, match=r"one sample id for each of 11 samples; got 12"):
        record(iter(images.split(4)), sample_ids=range(SAMPLES + 1))


def test_a_finished_store_is_opened(tmp_path, images) -> None:
    first = record(images, store=tmp_path / "t.zarr")
    xr.testing.assert_identical(record(images, store=tmp_path / "t.zarr"), first)


def test_another_batch_size_may_continue(tmp_path, images) -> None:
    path = tmp_path / "t.zarr"
    with pytest.raises(KeyboardInterrupt):
        record(interrupted(images, 4, 1), store=path)
    np.testing.assert_array_equal(record(iter(images.split(5)), store=path).values[:3], record(images[:4]).values[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": "cls"}, r"tokens 'all' there, 'cls' here"),
        ({"depths": [0, 1]}, r"depths None there, \[0, 1\] here"),
        ({"dtype": "float64"}, r"dtype 'float32' there, 'float64' here"),
        ({"labels": range(SAMPLES)}, r"labels None there"),
    ],
)
def test_other_settings_are_refused(tmp_path, images, change, message) -> None:
    record(images, store=tmp_path / "t.zarr")
    with pytest.raises(StoreError, match=rf"other settings: {message}.*another path"):
        record(images, store=tmp_path / "t.zarr", **change)


def test_another_model_and_other_inputs_are_refused(tmp_path, images) -> None:
    record(images, store=tmp_path / "t.zarr")
    with pytest.raises(StoreError, match=r"other settings: weights '\w+' there, '\w+' here\. "):
        record(images, model=build(seed=1), store=tmp_path / "t.zarr")
    with pytest.raises(StoreError, match=r"first sample"):
        record(images.flip(0), store=tmp_path / "t.zarr")
    with pytest.raises(StoreError, match=r"samples 11 there, 4 here"):
        record(images[:4], store=tmp_path / "t.zarr")


def test_what_exists_is_not_overwritten(tmp_path, images) -> None:
    record(images, store=tmp_path / "t.zarr")
    with pytest.raises(StoreError, match=r"exists already and is not overwritten"):
        record(images, store=tmp_path / "t.zarr", resume=False)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"exists and is no store"):
        record(images, store=tmp_path / "folder")
    depthflow.save_trajectory(record(images), tmp_path / "saved.zarr")
    with pytest.raises(StoreError, match=r"was not written by record"):
        record(images, store=tmp_path / "saved.zarr")


def test_an_address_is_no_folder(images) -> None:
    with pytest.raises(ParameterError, match=r"store is a folder on a file system .*; got 's3://bucket/t.zarr'"):
        record(images, store="s3://bucket/t.zarr")


def test_a_store_that_lost_files_does_not_open(tmp_path, images) -> None:
    record(images, store=tmp_path / "t.zarr", batch_size=4)
    shutil.rmtree(tmp_path / "t.zarr" / "state" / "c" / "3")
    with pytest.raises(StoreError, match=r"lacks 1 of its 6 chunks of states: was it copied whole\?"):
        depthflow.open_trajectory(tmp_path / "t.zarr")


def test_done_marks_what_is_written(tmp_path, images) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(images, model=stopped(2), store=tmp_path / "t.zarr", batch_size=4)
    group = zarr.open_group(tmp_path / "t.zarr", mode="r")
    assert group["done"][:].tolist() == [True] * 8 + [False] * 3
    np.testing.assert_array_equal(np.isnan(group["state"][:]).all(axis=(1, 2, 3)), ~group["done"][:])


@pytest.mark.parametrize("known", [True, False])
def test_a_full_disk_is_told_and_the_store_continued(tmp_path, images, monkeypatch, known) -> None:
    path, written = tmp_path / "t.zarr", []
    put = zarr.storage._local._put

    def full(place: Path, *args: Any, **kwargs: Any) -> int:
        if "state" in place.parts and place.name == "0":
            written.append(place)
            if len(written) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        return put(place, *args, **kwargs)

    def inputs() -> Any:
        return images if known else iter(images.split(2))

    kept = f"4 of {SAMPLES if known else 'all'} samples are kept"
    with monkeypatch.context() as patched:
        patched.setattr(zarr.storage._local, "_put", full)
        with pytest.raises(
            StoreError, match=rf"writing to .* failed: No space left on device. {kept}. Make room there"
        ):
            record(inputs(), store=path, batch_size=2)
    np.testing.assert_array_equal(record(inputs(), store=path, batch_size=2).values, record(images, batch_size=2))


def test_a_disk_that_is_too_small_is_told_before_anything_runs(tmp_path, images, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=31000))
    with pytest.raises(StoreError, match=r"needs 31.7 kB more, and 31 kB are free on its disk. Make room, or keep"):
        record(images, store=tmp_path / "t.zarr", batch_size=4)
    assert list(tmp_path.iterdir()) == []


def test_places_that_may_never_be_filled_need_no_room(tmp_path, images, monkeypatch) -> None:
    path, expected = tmp_path / "t.zarr", record(images, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        record(interrupted(images, 2, 3), store=path, batch_size=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=expected.nbytes))
    np.testing.assert_array_equal(record(iter(images.split(2)), store=path, batch_size=2).values, expected.values)


class TestProcesses:
    """Several processes fill one store: here one after another, each told its place by the environment."""

    @pytest.fixture
    def run(self, tmp_path, images, monkeypatch) -> Callable[..., Any]:
        def run(rank: int, of: int, model: Any = None, inputs: Any = None, **options: Any) -> Any:
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(of))
            given = {"labels": [f"class {index % 3}" for index in range(SAMPLES)], "batch_size": 2, **options}
            return record(
                images if inputs is None else inputs, store=tmp_path / "t.zarr", model=model or build(), **given
            )

        return run

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_each_records_its_own_samples_and_returns_them(self, tmp_path, images, run, order) -> None:
        whole = record(images, batch_size=2)
        models = {rank: stopped() for rank in order}
        parts = {rank: run(rank, 2, models[rank]) for rank in order}
        for rank, own in ((0, slice(0, 6)), (1, slice(6, 11))):
            xr.testing.assert_equal(parts[rank].drop_vars("label"), whole[own])
        assert models[0].calls == [2, 2, 2]
        assert models[1].calls == [2, 2, 2, 1], (
            "one batch before its own: the first, for the store's shape, or to compare"
        )
        np.testing.assert_array_equal(depthflow.open_trajectory(tmp_path / "t.zarr"), whole)

    def test_a_killed_one_is_resumed_to_the_same_store(self, tmp_path, images, run) -> None:
        for rank in range(3):
            run(rank, 3)
        whole = files(tmp_path / "t.zarr")
        shutil.rmtree(tmp_path / "t.zarr")
        run(0, 3)
        with pytest.raises(KeyboardInterrupt):
            run(1, 3, stopped(2))
        run(2, 3)
        with pytest.raises(StoreError, match=r"2 of 11 samples are missing"):
            depthflow.open_trajectory(tmp_path / "t.zarr")
        run(1, 3)
        assert files(tmp_path / "t.zarr") == whole

    def test_another_number_of_processes_goes_on(self, tmp_path, images, run) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(1, 2, stopped(3))
        run(0, 1)
        np.testing.assert_array_equal(depthflow.open_trajectory(tmp_path / "t.zarr"), record(images, batch_size=2))

    def test_none_writes_a_file_of_another(self, tmp_path, run) -> None:
        run(0, 2)
        before = files(tmp_path / "t.zarr")
        run(1, 2)
        after = files(tmp_path / "t.zarr")
        assert [name for name in before if before[name] != after[name]] == ["zarr.json"], (
            "which says that it is complete"
        )
        states = [name for name in after if name.startswith("state/c")]
        assert len(states) == 6
        assert len([name for name in before if name.startswith("state/c")]) == 3

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (lambda images: iter(images.split(2)), r"2 processes share the recording, so the number of samples"),
            (lambda images: DataLoader(images, 2, shuffle=True), r"a DataLoader that does not shuffle"),
        ],
    )
    def test_inputs_that_cannot_be_shared(self, images, run, inputs, message) -> None:
        with pytest.raises(RecordError, match=message):
            run(0, 2, inputs=inputs(images), labels=None)

    def test_a_store_that_must_be_new(self, run) -> None:
        with pytest.raises(ParameterError, match=r"resume=False would have each refuse what another has made"):
            run(0, 2, resume=False)

    def test_a_place_that_is_none(self, run) -> None:
        with pytest.raises(RecordError, match=r"RANK='2' and WORLD_SIZE='2', which is no place"):
            run(2, 2)
