"""Read what a model is called with, however it comes, as a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthflow.errors import ParameterError, RecordError
from depthflow.models.base import Call

LABEL_KEYS = ("label", "labels")


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
        if size_of(call) != self.size:
            raise RecordError(f"needs a batch of {self.size} samples after the change; got {size_of(call)}.")
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


def whole(inputs: Any) -> Batch | None:
    """Return all samples of an array or a dict of arrays as one batch; None where inputs come in batches."""
    return read_batch(inputs, keep_labels=False) if isinstance(inputs, Tensor | np.ndarray | Mapping) else None


def label_array(labels: Any) -> np.ndarray:
    """Return one label a sample as an array of numbers or strings."""
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.ndim != 1:
        raise ParameterError(
            f"needs labels as one class a sample, shape (sample,); got shape {array.shape}. Reduce them to one, "
            "or pass labels= yourself and the recording ignores those that come with the inputs."
        )
    if array.dtype.kind == "O" and any(label is None for label in array):
        raise ParameterError("needs a label for each sample; got None among them. Name that class, such as 'unknown'.")
    if array.dtype.kind not in "biufSUOT":
        raise ParameterError(f"needs labels as numbers or strings; got dtype {array.dtype}.")
    return array.astype(np.dtypes.StringDType()) if array.dtype.kind in "SUO" else array


def holds(known: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Return whether an array of dtype ``known`` can take values of dtype ``other`` as they are."""
    return np.can_cast(other, known) and (known.kind == "T") == (other.kind == "T")


def kind(dtype: np.dtype[Any]) -> str:
    """Return what an array holds, for messages."""
    return "strings" if dtype.kind == "T" else str(dtype)


def id_array(ids: Any) -> np.ndarray:
    """Return one name a sample as an array of whole numbers or strings, no two of them the same."""
    array = np.asarray(ids.detach().cpu() if isinstance(ids, Tensor) else ids)
    if array.ndim != 1 or array.dtype.kind not in "iuUOT":
        raise ParameterError(
            f"needs sample_ids as one whole number or string a sample; got shape {array.shape}, dtype {array.dtype}."
        )
    array = array.astype(np.dtypes.StringDType()) if array.dtype.kind in "UO" else array
    names, often = np.unique(array, return_counts=True)
    if (often > 1).any():
        raise ParameterError(f"needs sample_ids that differ; {names[often > 1][0]!r} occurs {often.max()} times.")
    return array


def batched(value: Any) -> bool:
    """Return whether ``value`` is a tensor or an array with a sample axis."""
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0


def read_batch(item: Any, *, keep_labels: bool) -> Batch:
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
        named = dict(item)
        for key in LABEL_KEYS:
            value = named.get(key)
            # One value a sample is its class; anything else is the model's own input, such as the next tokens.
            if isinstance(value, Tensor | np.ndarray | list) and np.ndim(value) == 1:
                labels = named.pop(key)
        call = Call((), {str(name): _tensor(value) for name, value in named.items()})
    elif isinstance(item, Tensor | np.ndarray):
        call = Call((_tensor(item),), {})
    else:
        raise RecordError(
            f"needs each batch as a tensor, (tensor, label) or a dict; got {type(item).__name__}. A dataset "
            "of single samples goes into a DataLoader first."
        )
    size = size_of(call)
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


def size_of(call: Call) -> int:
    """Return how many samples a call holds, by the length of its tensors or arrays."""
    sizes = {name: len(value) for name, value in call.named().items() if batched(value)}
    if not sizes:
        raise RecordError("needs at least one tensor with a sample axis among the inputs; got none.")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
        raise RecordError(f"needs every input batched along its first axis; got lengths {listed}.")
    return next(iter(sizes.values()))
