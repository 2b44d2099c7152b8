"""Every form of inputs gives the same recording; every mistake in them says what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, TensorDataset

import depthflow
from depthflow.errors import ParameterError, RecordError
from tests.threads import one_thread  # noqa: F401

SAMPLES, TOKENS, WIDTH = 5, 7, 11


class Model(nn.Module):
    """Adds 1 in its first block and 2 in its second; takes x by place or by name."""

    class Add(nn.Module):
        def __init__(self, amount: float) -> None:
            super().__init__()
            self.amount = amount

        def forward(self, x: Tensor) -> Tensor:
            return x + self.amount

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([self.Add(1), self.Add(2)])

    def forward(self, x: Tensor, flag: bool = False, labels: Tensor | None = None) -> Tensor:
        return self.blocks[1](self.blocks[0](x))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(SAMPLES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([3, 1, 4, 1, 5])


class Stream(IterableDataset):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __iter__(self) -> Any:
        return iter(self.x)


def record(inputs: Any, **kwargs: Any) -> Any:
    return depthflow.record(Model(), inputs, progress=False, **kwargs)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x.numpy(),
        lambda x: x.numpy().astype(np.float64),
        lambda x: np.broadcast_to(x.numpy(), x.shape),
        lambda x: x.numpy()[::-1].copy()[::-1],
        lambda x: {"x": x},
        lambda x: {"x": x.numpy(), "flag": True},
        lambda x: transformers.BatchFeature({"x": x}),
        lambda x: [x[:2], x[2:]],
        lambda x: ({"x": part} for part in x.split(2)),
        lambda x: (part for part in x.split(3)),
        lambda x: [(x[:2],), (x[2:],)],
        lambda x: DataLoader(TensorDataset(x), batch_size=2),
        lambda x: DataLoader(Stream(x), batch_size=2),
        lambda x: DataLoader(x, batch_sampler=[[0], [1, 2], [3, 4]]),
    ],
)
def test_all_forms_give_the_same(x, form) -> None:
    traj = record(form(x), batch_size=2)
    np.testing.assert_array_equal(traj.values[:, 0], x.numpy())
    assert traj.sample.values.tolist() == list(range(SAMPLES))
    assert "label" not in traj.coords


@pytest.mark.parametrize(
    "form",
    [
        lambda x: DataLoader(TensorDataset(x, LABELS), batch_size=2),
        lambda x: [(x[:2], LABELS[:2]), (x[2:], LABELS[2:].tolist())],
        lambda x: {"x": x, "label": LABELS},
        lambda x: {"x": x, "labels": LABELS.numpy()},
        lambda x: ({"x": part, "labels": labels} for part, labels in zip(x.split(2), LABELS.split(2), strict=True)),
        lambda x: [({"x": x}, LABELS)],
    ],
)
def test_labels_that_come_along(x, form) -> None:
    assert record(form(x), batch_size=2).label.values.tolist() == LABELS.tolist()


def test_labels_given_win(x) -> None:
    traj = record(DataLoader(TensorDataset(x, LABELS), batch_size=2), labels=list("abcde"))
    assert traj.label.values.tolist() == list("abcde")


def test_labels_that_are_bytes_are_strings_of_any_length(x) -> None:
    batches = [(x[:2], np.array([b"a", b"bc"])), (x[2:], np.array([b"def", b"", b"g"]))]
    assert record(batches).label.values.tolist() == ["a", "bc", "def", "", "g"]


def test_a_loader_of_the_first_samples(x) -> None:
    traj = record(DataLoader(TensorDataset(x), batch_size=2, sampler=SequentialSampler(range(3))))
    np.testing.assert_array_equal(traj.values[:, 0], x[:3].numpy())


@pytest.mark.parametrize("collate", [lambda items: torch.stack(items)[:1], lambda items: torch.stack([*items, *items])])
def test_a_loader_whose_batches_hold_other_samples(x, collate) -> None:
    loader = DataLoader(x, batch_size=2, collate_fn=collate)
    with pytest.raises(RecordError, match=r"made \d samples of the 2 from 0 on, so which .* Give iter\(loader\)"):
        record(loader)
    np.testing.assert_array_equal(record(iter(loader)).values[0, 0], x[0].numpy())


def test_a_loader_that_drops_its_last_batch(x) -> None:
    assert record(DataLoader(TensorDataset(x), batch_size=2, drop_last=True)).sizes["sample"] == 4


def test_labels_of_several_values_are_the_models_own_input(x) -> None:
    assert "label" not in record({"x": x, "labels": torch.zeros(SAMPLES, TOKENS)}).coords


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda x: iter(()), r"at least one sample; the inputs hold none"),
        (lambda x: [], r"at least one sample"),
        (lambda x: x[:0], r"at least one sample"),
        (lambda x: DataLoader(TensorDataset(x[:0]), batch_size=2), r"at least one sample"),
        (lambda x: [x, x[:0]], r"a batch holds no samples"),
        (lambda x: 7, r"needs inputs as a tensor or array.*; got int"),
        (lambda x: "photos", r"got str"),
        (lambda x: [3, 4], r"got int. A dataset of single samples goes into a DataLoader"),
        (lambda x: [(x, LABELS, LABELS)], r"got a tuple of \(Tensor, Tensor, Tensor\)"),
        (lambda x: [[x[0], 3]], r"one class a sample|labels"),
        (lambda x: {"x": x, "y": x[:2]}, r"batched along its first axis; got lengths 'x' 5, 'y' 2"),
        (lambda x: {"flag": True}, r"at least one tensor with a sample axis"),
        (lambda x: np.array(["a", "b"]), r"arrays of numbers; got dtype <U1"),
        (lambda x: [(x[:2], LABELS[:3])], r"a batch of 2 samples came with 3 labels"),
        (lambda x: [(x[:2], LABELS[:2]), x[2:]], r"labels came with some batches and not with others"),
        (
            lambda x: [(x[:2], torch.tensor([1, 2])), (x[2:], torch.tensor([1.5, 2, 3]))],
            r"labels came as int64 with the first batch and as float32 with another. Give all the same type",
        ),
        (
            lambda x: [(x[:2], torch.tensor([1, 2], dtype=torch.uint8)), (x[2:], torch.tensor([1, 2, 300]))],
            r"labels came as uint8 with the first batch and as int64 with another",
        ),
        (
            lambda x: [(x[:2], ["a", "b"]), (x[2:], [1, 2, 3])],
            r"labels came as strings with the first batch and as int64 with another",
        ),
        (lambda x: [(x, ["a", None, "b", "c", "d"])], r"needs a label for each sample; got None among them"),
        (lambda x: [(x, np.arange(5) * 1j)], r"needs labels as numbers or strings; got dtype complex128"),
        (lambda x: [x[:2], x[2:, :4]], r"other tokens than the first: 4 token against 7 token.*one shape"),
        (lambda x: [x[:2], x[2:, :, :4]], r"states of 4 features; the first had 11"),
    ],
)
def test_bad_inputs(x, inputs, message) -> None:
    with pytest.raises((RecordError, ParameterError), match=message):
        record(inputs(x))


def test_too_few_labels_for_a_generator(x) -> None:
    with pytest.raises(ParameterError, match=r"one label for each of 4 samples; got 3"):
        record(iter(x.split(2)), labels=[1, 2, 3])
    with pytest.raises(ParameterError, match=r"one label for each of 5 samples; got 6"):
        record(iter(x.split(2)), labels=range(6))


# text


@pytest.fixture
def bert() -> Any:
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 24}
    return transformers.BertModel(transformers.BertConfig(vocab_size=99, **sizes))


def ids(samples: int, length: int) -> Tensor:
    tokens = torch.randint(3, 99, (samples, length))
    tokens[:, 0] = 2
    return tokens


def test_text_without_a_class_token_has_none(bert) -> None:
    tokens = ids(4, 6)
    tokens[:, 0] = torch.arange(4) + 10
    assert depthflow.record(bert, {"input_ids": tokens}, progress=False).token_type.values.tolist() == ["token"] * 6


def test_samples_padded_to_different_lengths_are_not_mixed(bert) -> None:
    batch = {"input_ids": ids(3, 6), "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6])}
    with pytest.raises(RecordError, match=r"token 4 is padding in some samples .*equal length.*tokens='cls'"):
        depthflow.record(bert, batch, progress=False)
    assert depthflow.record(bert, batch, tokens="cls", progress=False).sizes["token"] == 1
    assert depthflow.record(bert, batch, tokens=[0, 1, 2, 3], progress=False).sizes["token"] == 4


def test_batches_padded_to_different_lengths(bert) -> None:
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[:, 4:] = 0
    same = [
        {"input_ids": ids(2, 6), "attention_mask": torch.ones_like(mask)},
        {"input_ids": ids(2, 6), "attention_mask": mask},
    ]
    with pytest.raises(RecordError, match=r"other tokens than the first: 1 cls, 3 token, 2 pad against 1 cls, 5 token"):
        depthflow.record(bert, same, progress=False)
    longer = [{"input_ids": ids(2, 6)}, {"input_ids": ids(3, 8)}]
    assert depthflow.record(bert, longer, tokens="cls", progress=False).sizes["sample"] == 5
