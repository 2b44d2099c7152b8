"""Read a model's inputs, however they come, as batches that it can be called with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from depthflow.errors import ParameterError, RecordError
from depthflow.models.base import Call

LABEL_KEYS = ("label", "labels")
KINDS = (
    "a tensor or array (sample, …), a dict of these, or an iterable of batches (tensor, (tensor, label) or dict), such "
    "as a DataLoader"
)


@dataclass(frozen=True)
class Batch:
    """One call of the model: its arguments, the number of samples, and their labels where they came along."""

    call: Call
    size: int
    labels: np.ndarray | None = None

    def part(self, start: int, stop: int) -> Batch:
        """Return the samples from ``start`` to before ``stop`` as a batch of their own."""

        def cut(value: Any) -> Any:
            return value[start:stop] if isinstance(value, Tensor) and value.ndim > 0 else value

        kwargs = {name: cut(value) for name, value in self.call.kwargs.items()}
        labels = None if self.labels is None else self.labels[start:stop]
        return Batch(Call(tuple(map(cut, self.call.args)), kwargs), stop - start, labels)

    def doubled(self) -> Batch:
        """Return the samples followed by themselves."""

        def twice(value: Any) -> Any:
            return torch.cat([value, value]) if isinstance(value, Tensor) and value.ndim > 0 else value

        kwargs = {name: twice(value) for name, value in self.call.kwargs.items()}
        return Batch(Call(tuple(map(twice, self.call.args)), kwargs), 2 * self.size)

    def taken(self, index: np.ndarray) -> Batch:
        """Return the samples at the positions ``index``, in that order, without labels."""
        places = torch.from_numpy(index)

        def take(value: Any) -> Any:
            return value[places.to(value.device)] if isinstance(value, Tensor) and value.ndim > 0 else value

        kwargs = {name: take(value) for name, value in self.call.kwargs.items()}
        return Batch(Call(tuple(map(take, self.call.args)), kwargs), len(index))

    def changed(self, change: Callable[[Any], Any]) -> Batch:
        """Return the batch with what the model is called with, one tensor or a dict, changed: a copy, to write over."""

        def own(value: Any) -> Any:
            return value.clone() if isinstance(value, Tensor) else value

        kwargs = {name: own(value) for name, value in self.call.kwargs.items()}
        call = Call((), change(kwargs)) if kwargs else Call((change(own(self.call.args[0])),))
        if _size(call) != self.size:
            raise RecordError(f"needs a batch of {self.size} samples after the change; got {_size(call)}.")
        return Batch(call, self.size, self.labels)

    def shape(self) -> str:
        """Return the shapes of what the model is called with, for messages."""
        shapes = {name: tuple(value.shape) for name, value in self.call.named().items() if isinstance(value, Tensor)}
        if list(shapes) == ["0"]:
            return str(shapes["0"])
        return ", ".join(f"{name} {shape}" for name, shape in shapes.items())

    def to(self, device: torch.device | None, dtype: torch.dtype | None) -> Call:
        """Return the call on ``device``, its floating-point tensors in the model's ``dtype``."""

        def move(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.to(device, dtype if value.is_floating_point() else None)

        return Call(tuple(map(move, self.call.args)), {name: move(value) for name, value in self.call.kwargs.items()})


class Feed:
    """The batches of ``inputs`` in order; ``count`` is how many samples there are, where that is known beforehand."""

    def __init__(self, inputs: Any, batch_size: int, labels: Any = None) -> None:
        self.count: int | None = None
        self.labels = None if labels is None else label_array(labels)
        self._batches: Iterable[Batch]
        if isinstance(inputs, Tensor | np.ndarray | Mapping):
            every = _batch(inputs, keep_labels=labels is None)
            self.count = every.size
            self._batches = _slices(every, batch_size)
        elif isinstance(inputs, str) or not isinstance(inputs, Iterable):
            raise RecordError(f"needs inputs as {KINDS}; got {type(inputs).__name__}.")
        else:
            self.count = _announced(inputs)
            self._batches = _read(inputs, keep_labels=labels is None)
        if self.labels is not None and self.count:
            self.check_labels(self.count)

    def check_labels(self, count: int) -> None:
        """Raise unless there is one label for each of ``count`` samples."""
        if self.labels is not None and len(self.labels) != count:
            raise ParameterError(f"needs one label for each of {count} samples; got {len(self.labels)} labels.")

    def labels_of(self, batch: Batch, position: int) -> np.ndarray | None:
        """Return the labels of a batch whose first sample is number ``position``."""
        if self.labels is None:
            return batch.labels
        if position + batch.size > len(self.labels):
            self.check_labels(position + batch.size)
        return self.labels[position : position + batch.size]

    def __iter__(self) -> Iterator[Batch]:
        labelled: bool | None = None
        for batch in self._batches:
            if batch.size == 0:
                raise RecordError("a batch holds no samples; at least one is needed in each.")
            if labelled is not None and labelled != (batch.labels is not None):
                raise RecordError("labels came with some batches and not with others; all or none are needed.")
            labelled = batch.labels is not None
            yield batch
        if labelled is None:
            raise RecordError("needs at least one sample; the inputs hold none.")


def whole(inputs: Any) -> Batch | None:
    """Return all samples of an array or a dict of arrays as one batch; None where inputs come in batches."""
    return _batch(inputs, keep_labels=False) if isinstance(inputs, Tensor | np.ndarray | Mapping) else None


def label_array(labels: Any) -> np.ndarray:
    """Return one label a sample as an array of numbers or strings."""
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.ndim != 1:
        raise ParameterError(
            f"needs labels as one class a sample, shape (sample,); got shape {array.shape}. Reduce them to one, "
            "or pass labels= yourself and the recording ignores those that come with the inputs."
        )
    return array.astype(np.dtypes.StringDType()) if array.dtype.kind in "UO" else array


def _batch(item: Any, *, keep_labels: bool) -> Batch:
    """Read one batch: a tensor, a dict, or either with labels beside it."""
    labels = None
    if isinstance(item, list | tuple):
        if not 1 <= len(item) <= 2 or not isinstance(item[0], Tensor | np.ndarray | Mapping):
            held = ", ".join(type(part).__name__ for part in item)
            raise RecordError(
                f"needs each batch as a tensor, (tensor, label) or a dict; got a {type(item).__name__} "
                f"of ({held}). Select what the model is called with, or join images with torch.stack."
            )
        item, labels = item[0], item[1] if len(item) == 2 else None
    if isinstance(item, Mapping):
        kwargs = {str(name): _tensor(value) for name, value in item.items()}
        for key in LABEL_KEYS:
            value = kwargs.get(key)
            # One value a sample is its class; anything else is the model's own input, such as the next tokens.
            if isinstance(value, Tensor | list) and np.ndim(value) == 1:
                labels = kwargs.pop(key)
        call = Call((), kwargs)
    elif isinstance(item, Tensor | np.ndarray):
        call = Call((_tensor(item),), {})
    else:
        raise RecordError(
            f"needs each batch as a tensor, (tensor, label) or a dict; got {type(item).__name__}. A dataset "
            "of single samples goes into a DataLoader first."
        )
    size = _size(call)
    read = label_array(labels) if labels is not None and keep_labels else None
    if read is not None and len(read) != size:
        raise RecordError(f"a batch of {size} samples came with {len(read)} labels; one a sample is needed.")
    return Batch(call, size, read)


def _tensor(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "biufc":
        raise RecordError(f"needs inputs that are arrays of numbers; got dtype {value.dtype}.")
    return torch.from_numpy(value if value.flags.writeable and min(value.strides, default=0) >= 0 else value.copy())


def _size(call: Call) -> int:
    sizes = {name: len(value) for name, value in call.named().items() if isinstance(value, Tensor) and value.ndim > 0}
    if not sizes:
        raise RecordError("needs at least one tensor with a sample axis among the inputs; got none.")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
        raise RecordError(f"needs every input batched along its first axis; got lengths {listed}.")
    return next(iter(sizes.values()))


def _read(items: Iterable[Any], *, keep_labels: bool) -> Iterator[Batch]:
    """Read one batch after another; a DataLoader starts its workers and draws its order when the first is wanted."""
    for item in items:
        yield _batch(item, keep_labels=keep_labels)


def _slices(every: Batch, batch_size: int) -> Iterator[Batch]:
    for start in range(0, every.size, batch_size):
        yield every.part(start, min(start + batch_size, every.size))


def _announced(inputs: Iterable[Any]) -> int | None:
    """Return how many samples the batches hold, as far as they say it before they are read."""
    if isinstance(inputs, DataLoader):
        if inputs.batch_size is None or not isinstance(inputs.sampler, Sized):
            return None
        count = len(inputs.sampler)
        return count - count % inputs.batch_size if inputs.drop_last else count
    if isinstance(inputs, Sequence):
        return sum(_batch(item, keep_labels=False).size for item in inputs)
    return None
