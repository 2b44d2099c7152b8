"""Chunks that pass by the page cache: same bytes, whole or not at all, and through the cache where it must be."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest
import torch
import zarr

import depthflow
import depthflow.store
from depthflow.models.vit import VisionTransformer, ViTSettings
from depthflow.recording import direct
from depthflow.recording.direct import ALIGN, LEAST, DirectStore, aligned

pytestmark = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no direct writing on this system")


@pytest.fixture
def written(monkeypatch):
    """Return the flags with which chunks' files are opened, in turn."""
    flags = []
    real = direct._append

    def spy(path, values, flag):
        flags.append(flag)
        real(path, values, flag)

    monkeypatch.setattr(direct, "_append", spy)
    return flags


def put(store, values):
    """Write an array of one chunk, and return what zarr reads of it."""
    made = zarr.create_array(store, shape=values.shape, chunks=values.shape, dtype=values.dtype, compressors=None)
    made[:] = values
    return zarr.open_array(store.root, mode="r")[:]


@pytest.mark.parametrize("more", [0, 1, ALIGN - 1, ALIGN])
def test_every_length_comes_back_and_only_the_rest_of_a_block_goes_through_the_cache(tmp_path, written, more):
    values = aligned((LEAST + more,), torch.uint8).random_(generator=torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_array_equal(put(DirectStore(tmp_path / "a.zarr"), values), values)
    assert written == [os.O_DIRECT, 0]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("size", [LEAST - 1, LEAST])
def test_small_chunks_and_those_between_two_blocks_of_memory_go_through_the_cache(tmp_path, written, size):
    values = aligned((LEAST + 1,), torch.uint8).zero_().numpy()[-size:]
    np.testing.assert_array_equal(put(DirectStore(tmp_path / "a.zarr"), values), values)
    assert not written


def test_a_file_system_that_does_not_allow_it_is_asked_once(tmp_path, monkeypatch):
    real, asked = os.open, []

    def refuse(path, flags, mode=0o777):
        if flags & os.O_DIRECT:
            asked.append(path)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, mode)

    monkeypatch.setattr(direct.os, "open", refuse)
    store, values = DirectStore(tmp_path / "a.zarr"), aligned((2, LEAST), torch.uint8).fill_(7).numpy()
    made = zarr.create_array(store, shape=values.shape, chunks=(1, LEAST), dtype="uint8", compressors=None)
    made[0:1] = values[:1]
    made[1:2] = values[1:]
    np.testing.assert_array_equal(zarr.open_array(store.root, mode="r")[:], values)
    assert len(asked) == 1
    assert not store.direct


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(file, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = DirectStore(tmp_path / "a.zarr")
    made = zarr.create_array(store, shape=(LEAST,), chunks=(LEAST,), dtype="uint8", compressors=None)
    monkeypatch.setattr(direct.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        made[:] = aligned((LEAST,), torch.uint8).fill_(7).numpy()
    assert not (store.root / "c").exists() or not list((store.root / "c").iterdir())


@pytest.mark.parametrize("slow", ["model", "disk"])
def test_a_disk_that_falls_behind_the_model_is_written_through_the_cache(tmp_path, monkeypatch, slow):
    torch.manual_seed(0)
    model = VisionTransformer(ViTSettings(image_size=6, patch_size=2, width=64, depth=3, heads=1)).eval()
    images, real, there = torch.randn(24, 1, 6, 6), direct._write, []
    expected = depthflow.record(model, images, batch_size=2, progress=False)
    monkeypatch.setattr(depthflow.store, "CHUNK_BYTES", expected[:2].nbytes)
    monkeypatch.setattr(direct, "LEAST", expected[:2].nbytes)

    def write(path, values):
        there.append(path.parent.name)
        time.sleep(0.03 if slow == "disk" else 0)
        return real(path, values)

    def batches():
        for part in images.split(2):
            time.sleep(0.03 if slow == "model" else 0)
            yield part

    monkeypatch.setattr(direct, "_write", write)
    found = depthflow.record(model, batches(), store=tmp_path / "a.zarr", progress=False)
    np.testing.assert_array_equal(found.values, expected.values)
    assert len(there) == 12 if slow == "model" else len(there) < 12
