"""What does not belong to a store, or would be lost in it, is refused; whoever comes second does no harm."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
import xarray as xr
import zarr
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

import depthflow
import depthflow.store
from depthflow.errors import RecordError, StoreError
from depthflow.recording import storing
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAMPLES, TOKENS, WIDTH = 11, 7, 5
DEPTHS = 4
ROWS = 3


@pytest.fixture
def x() -> Tensor:
    return torch.randn(SAMPLES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(depthflow.store, "CHUNK_BYTES", ROWS * DEPTHS * TOKENS * WIDTH * 4)


def chain() -> Chain:
    return Chain(torch.tanh, lambda state: state + torch.cos(state), torch.sin)


def record(inputs: Any, model: nn.Module | None = None, **kwargs: Any) -> xr.DataArray:
    return depthflow.record(model or chain(), inputs, progress=False, **kwargs)


def interrupted(items: Any, after: int) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number == after:
            raise KeyboardInterrupt
        yield item


def labelled(x: Tensor, dtype: str = "int64") -> list[Any]:
    return [(part, np.arange(len(part)).astype(dtype)) for part in x.split(4)]


@pytest.mark.parametrize(
    ("begun", "continued", "message"),
    [
        (
            labelled,
            lambda x: x.split(4),
            r"keeps label \(int64\) beside each sample's states; this .* has nothing",
        ),
        (lambda x: x.split(4), labelled, r"keeps nothing beside .* has label \(int64\). Record with the same labels"),
        (labelled, lambda x: labelled(x, "float64"), r"keeps label \(int64\) beside .* has label \(float64\)"),
        (labelled, lambda x: labelled(x, "str"), r"keeps label \(int64\) beside .* has label \(strings\)"),
    ],
)
def test_labels_come_along_as_they_did(tmp_path, x, begun, continued, message) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(interrupted(begun(x), 2), store=tmp_path / "t.zarr")
    with pytest.raises(StoreError, match=message):
        record(iter(continued(x)), store=tmp_path / "t.zarr")


@pytest.mark.parametrize("others", [4, 9])
def test_a_finished_store_has_as_many_samples_as_the_inputs(tmp_path, x, others) -> None:
    record(iter(x[:8].split(4)), store=tmp_path / "t.zarr")
    with pytest.raises(StoreError, match=rf"holds 8 samples; these inputs hold {others}. Record with the same inputs"):
        record(iter(x[:others].split(4)), store=tmp_path / "t.zarr")


@pytest.mark.parametrize("announced", [8, 14])
def test_a_loader_that_gives_others_than_it_announced(tmp_path, x, announced) -> None:
    class Announced(Sampler):
        def __len__(self) -> int:
            return announced

        def __iter__(self) -> Iterator[int]:
            return iter(range(SAMPLES))

    with pytest.raises(RecordError, match=rf"the inputs announced {announced} samples and gave 11. Give iter"):
        record(DataLoader(x, 4, sampler=Announced()), store=tmp_path / "t.zarr")


def test_another_order_is_found_where_all_samples_are_nearly_alike(tmp_path, x) -> None:
    alike = 1 + 0.01 * x
    path = tmp_path / "t.zarr"
    with pytest.raises(KeyboardInterrupt):
        record(interrupted(alike.split(4), 2), store=path)
    with pytest.raises(StoreError, match=r"sample \d comes out otherwise than .* holds it \(by \d\.\d% on average"):
        record(torch.cat([alike[:1], alike[1:].flip(0)]).split(4).__iter__(), store=path)
    rounded = alike.clone()
    rounded[1:] *= 1 + 1e-6
    assert record(iter(rounded.split(4)), store=path).sizes["sample"] == SAMPLES


def test_samples_that_are_all_the_same_go_on(tmp_path, x) -> None:
    same = x[:1].expand(SAMPLES, -1, -1).clone()
    with pytest.raises(KeyboardInterrupt):
        record(interrupted(same.split(4), 2), store=tmp_path / "t.zarr")
    same[1:] *= 1 + 1e-6
    assert record(iter(same.split(4)), store=tmp_path / "t.zarr").sizes["sample"] == SAMPLES


class Tied(nn.Module):
    """One block that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Tanh()])
        self.calls, self.stop = 0, 99

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        for _ in range(3):
            x = self.blocks[0](x)
        return x


def test_a_block_that_runs_several_times_is_continued(tmp_path, x) -> None:
    model = Tied()
    model.stop = 4
    with pytest.raises(KeyboardInterrupt):
        record(x, model, store=tmp_path / "t.zarr", batch_size=3)
    again = Tied()
    stored = record(x, again, store=tmp_path / "t.zarr", batch_size=3)
    np.testing.assert_array_equal(stored, record(x, Tied(), batch_size=3))


@pytest.mark.parametrize("kept", range(4, 11))
def test_the_last_samples_are_not_lost(tmp_path, x, monkeypatch, kept) -> None:
    write = storing.StoreSink._write

    def killed(sink: Any, start: int, stop: int, *args: Any) -> None:
        if stop > kept:
            raise KeyboardInterrupt
        write(sink, start, stop, *args)

    with monkeypatch.context() as patched:
        patched.setattr(storing.StoreSink, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            record(iter(x.split(4)), store=tmp_path / "t.zarr")
    stored = record(iter(x.split(4)), store=tmp_path / "t.zarr")
    np.testing.assert_array_equal(stored, record(x, batch_size=4))


def test_another_shape_of_states_is_refused(tmp_path) -> None:
    images = torch.randn(4, 1, 6, 6)
    record(iter(images.split(2)), vit(), store=tmp_path / "t.zarr")
    group = zarr.open_group(tmp_path / "t.zarr", mode="r+")
    group.attrs["complete"] = False
    group["done"][2:] = False
    group["state"].resize((4, 5, 10, 11))
    with pytest.raises(StoreError, match=r"holds states of shape \(5, 10, 11\); this recording has \(5, 10, 12\)"):
        record(iter(images.split(2)), vit(), store=tmp_path / "t.zarr")


def place(monkeypatch, rank: int, of: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(of))


def test_tokens_that_another_process_pads_otherwise(tmp_path, monkeypatch) -> None:
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 24}
    torch.manual_seed(0)
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=99, **sizes))
    mask = torch.ones(8, 6, dtype=torch.long)
    mask[4:, 5:] = 0
    inputs = {"input_ids": torch.randint(3, 99, (8, 6)), "attention_mask": mask}

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    place(monkeypatch, 0, 2)
    with monkeypatch.context() as patched:
        patched.setattr(storing.StoreSink, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            record(inputs, bert, store=tmp_path / "t.zarr", batch_size=2)
    place(monkeypatch, 1, 2)
    with pytest.raises(StoreError, match=r"holds other tokens than this recording has, by token_type. Give all"):
        record(inputs, bert, store=tmp_path / "t.zarr", batch_size=2)


def test_more_processes_than_chunks(tmp_path, x, monkeypatch) -> None:
    sizes = []
    for rank in range(8):
        place(monkeypatch, rank, 8)
        sizes.append(record(x, store=tmp_path / "t.zarr", batch_size=4).sizes["sample"])
    assert sorted(sizes) == [0, 0, 1, 2, 2, 2, 2, 2]
    np.testing.assert_array_equal(depthflow.open_trajectory(tmp_path / "t.zarr"), record(x, batch_size=4))


def test_a_store_that_others_finish_while_this_one_makes_it(tmp_path, x, monkeypatch) -> None:
    path, write = tmp_path / "t.zarr", xr.Dataset.to_zarr

    def slow(dataset: xr.Dataset, *args: Any, **kwargs: Any) -> Any:
        made = write(dataset, *args, **kwargs)
        monkeypatch.setattr(xr.Dataset, "to_zarr", write)
        record(x, store=path, batch_size=4)  # removes what looks like a leftover, and is the store being made
        return made

    monkeypatch.setattr(xr.Dataset, "to_zarr", slow)
    np.testing.assert_array_equal(record(x, store=path, batch_size=4), record(x, batch_size=4))
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_finish_at_the_same_time(tmp_path, x, monkeypatch) -> None:
    put, took = zarr.storage._local._put, []

    def taken(where: Path, value: Any, *args: Any, **kwargs: Any) -> int:
        if where == tmp_path / "t.zarr" / "zarr.json":
            took.append(where)
            raise FileNotFoundError("zarr.json.partial")
        return put(where, value, *args, **kwargs)

    place(monkeypatch, 0, 2)
    record(x, store=tmp_path / "t.zarr", batch_size=4)
    place(monkeypatch, 1, 2)
    with monkeypatch.context() as patched:
        patched.setattr(zarr.storage._local, "_put", taken)
        assert record(x, store=tmp_path / "t.zarr", batch_size=4).sizes["sample"] == 5
    assert took
    record(x, store=tmp_path / "t.zarr", batch_size=4)
    assert depthflow.open_trajectory(tmp_path / "t.zarr").sizes["sample"] == SAMPLES


@pytest.mark.filterwarnings("ignore:Object at:zarr.errors.ZarrUserWarning")
def test_a_store_that_is_removed_meanwhile(tmp_path, x) -> None:
    def removed() -> Iterator[Tensor]:
        for number, part in enumerate(x.split(1)):
            if number == 5:
                shutil.rmtree(tmp_path / "t.zarr", ignore_errors=True)
            yield part

    with pytest.raises(StoreError, match=r"lacks the array '\w+': was it removed meanwhile, or not written by"):
        record(removed(), store=tmp_path / "t.zarr")


def test_wherever_a_store_stops_growing_it_is_continued(tmp_path, x, monkeypatch) -> None:
    monkeypatch.setattr(storing, "UNANNOUNCED", 1)
    put, stop = zarr.storage._local._put, [999]

    def full(where: Path, *args: Any, **kwargs: Any) -> int:
        if where.name == "zarr.json" and ".creating" not in str(where):
            stop[0] -= 1
            if stop[0] < 0:
                raise OSError("killed")
        return put(where, *args, **kwargs)

    monkeypatch.setattr(zarr.storage._local, "_put", full)
    whole = record(iter(x.split(4)), store=tmp_path / "whole.zarr").values
    resizes = 999 - stop[0]
    assert resizes >= 9
    for after in range(1, resizes, 2):
        stop[0] = after
        with pytest.raises(StoreError, match="killed"):
            record(iter(x.split(4)), store=tmp_path / f"{after}.zarr")
        stop[0] = 999
        np.testing.assert_array_equal(record(iter(x.split(4)), store=tmp_path / f"{after}.zarr"), whole)
