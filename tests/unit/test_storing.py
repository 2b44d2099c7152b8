"""A recording to a store equals one to memory, can be continued, and never passes for finished when it is not."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import Tensor

import depthflow
from depthflow.errors import StoreError
from depthflow.models.vit import VisionTransformer, ViTSettings
from depthflow.recording import storing
from tests.threads import one_thread  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    monkeypatch.setattr(storing, "CHUNK_BYTES", ROWS * (BLOCKS + 1) * TOKENS * WIDTH * 4)


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


@pytest.mark.parametrize("batch_size", [1, 2, 4, 11])
def test_every_batch_size_fills_whole_chunks(tmp_path, images, batch_size) -> None:
    stored = record(images, store=tmp_path / "t.zarr", batch_size=batch_size)
    assert stored.chunks[0] == (3, 3, 3, 2)
    np.testing.assert_array_equal(stored.values, record(images, batch_size=batch_size).values)


def test_tokens_and_depths_in_a_store(tmp_path, images) -> None:
    options = {"tokens": "cls+mean", "depths": [0, 2, 5], "batch_size": 4}
    stored = record(images, store=tmp_path / "t.zarr", **options)
    xr.testing.assert_identical(stored.compute(), record(images, **options))


def test_number_of_samples_not_known_beforehand(tmp_path, images) -> None:
    names = [f"name {index}" for index in range(SAMPLES)]
    stored = record(interrupted(images, 4, 99, names), store=tmp_path / "t.zarr")
    xr.testing.assert_identical(stored.compute(), record(interrupted(images, 4, 99, names)))


@pytest.mark.parametrize("known", [True, False])
def test_an_interrupted_recording_is_continued(tmp_path, images, known) -> None:
    path = tmp_path / "t.zarr"
    calls: list[int] = []

    class Counted(VisionTransformer):
        stop = 99

        def forward(self, x: Tensor) -> Tensor:
            if len(calls) == self.stop:
                raise KeyboardInterrupt
            calls.append(len(x))
            return super().forward(x)

    model = build()
    model.__class__ = Counted
    model.stop = 2

    def inputs() -> Any:
        return images if known else iter(images.split(4))

    with pytest.raises(KeyboardInterrupt):
        record(inputs(), model=model, store=path, batch_size=4)
    missing = r"5 of 11" if known else r"all after the first 6"
    with pytest.raises(StoreError, match=rf"unfinished recording: {missing} samples are missing.*call.* record again"):
        depthflow.open_trajectory(path)
    model.stop = 99
    calls.clear()
    stored = record(inputs(), model=model, store=path, batch_size=4)
    assert calls == [4, 3], "the first batch is not run again"
    np.testing.assert_array_equal(stored.values, record(images, batch_size=4).values)


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


def test_done_marks_what_is_written(tmp_path, images) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(interrupted(images, 4, 2), store=tmp_path / "t.zarr")
    group = zarr.open_group(tmp_path / "t.zarr", mode="r")
    assert group["done"][:].tolist() == [True] * 6
    assert np.isfinite(group["state"][:]).all()


def test_a_writer_that_fails_is_loud(tmp_path, images, monkeypatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", fail)
    with pytest.raises(OSError, match="no space left"):
        record(images, store=tmp_path / "t.zarr")
