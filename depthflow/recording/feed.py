"""Read a model's inputs batch by batch, from any batch on where they allow it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol, TypeAlias

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from depthflow.errors import ParameterError, RecordError
from depthflow.models.base import Call
from depthflow.recording.inputs import (
    LABEL_KEYS,
    Batch,
    batched,
    holds,
    id_array,
    kind,
    label_array,
    read_batch,
    size_of,
)

KINDS = (
    "a tensor or array (sample, …), a dict of these, or an iterable of batches (tensor, (tensor, label) or dict), such "
    "as a DataLoader"
)

Wants: TypeAlias = Callable[[int, int], bool]
"""From a batch's first sample and the one after its last to whether it is wanted."""


def everything(start: int, stop: int) -> bool:
    """Want every batch."""
    return True


class Feed:
    """The batches of ``inputs`` in order; ``count`` is how many samples there are, where that is known beforehand.

    Parameters
    ----------
    inputs
        As :func:`depthflow.record` takes them.
    batch_size : int
        Samples a batch of an array or a dict of arrays.
    labels, ids : array-like, optional
        One label and one name a sample; without ``labels``, those that come with the batches count.
    """

    def __init__(self, inputs: Any, batch_size: int, labels: Any = None, ids: Any = None) -> None:
        self.labels = None if labels is None else label_array(labels)
        self.ids = None if ids is None else id_array(ids)
        self._source = _source(inputs, batch_size, keep_labels=labels is None)
        self.count = self._source.count
        self.in_order = self._source.in_order
        """Whether the samples come in the same order each time, as far as that can be told."""
        self.passed = 0
        """Samples gone by, read or not."""
        self._first: Batch | None = None
        self._after: Iterator[tuple[int, Batch]] = iter(())
        if self.count:
            self.check_counts(self.count)
        elif self.count is None and self.ids is not None:
            self.count = len(self.ids)

    def check_counts(self, count: int) -> None:
        """Raise unless there is one label and one name for each of ``count`` samples."""
        for name, given in (("label", self.labels), ("sample id", self.ids)):
            if given is not None and len(given) != count:
                raise ParameterError(f"needs one {name} for each of {count} samples; got {len(given)} {name}s.")

    def labels_of(self, batch: Batch, position: int) -> np.ndarray | None:
        """Return the labels of a batch whose first sample is number ``position``."""
        return batch.labels if self.labels is None else self._part(self.labels, batch, position)

    def columns(self, batch: Batch, position: int) -> dict[str, np.ndarray]:
        """Return what is known of each sample of a batch whose first is number ``position``, by the coord's name."""
        ids = None if self.ids is None else self._part(self.ids, batch, position)
        found = {"label": self.labels_of(batch, position), "sample_id": ids}
        return {name: values for name, values in found.items() if values is not None}

    def _part(self, given: np.ndarray, batch: Batch, position: int) -> np.ndarray:
        if position + batch.size > len(given):
            self.check_counts(position + batch.size)
        return given[position : position + batch.size]

    def first(self) -> Batch:
        """Return the first batch; :meth:`rest` gives those after it."""
        if self._first is None:
            self._after = self._source.read(everything)
            read = next(self._after, None)
            if read is None:
                raise RecordError("needs at least one sample; the inputs hold none.")
            self._first = _sound(read[1])
            self.passed = self._first.size
        return self._first

    def rest(self, wants: Wants = everything) -> Iterator[tuple[int, Batch]]:
        """Give the wanted batches after the first, each after the number of its first sample.

        Where the inputs allow it, others are not read.

        Raises
        ------
        RecordError
            If a batch is empty, or has labels where the first has none, or labels that the first's type cannot hold.
        """
        first = self.first()

        def later(start: int, stop: int) -> bool:
            return start > 0 and wants(start, stop)

        anew = self._source.leaves_out(lambda start, stop: start == 0 or wants(start, stop))
        for start, batch in self._source.read(later) if anew else self._after:
            _require_alike(first.labels, _sound(batch).labels)
            self.passed = start + batch.size
            if wants(start, self.passed):
                yield start, batch
        if anew:
            self.passed = self._source.count or 0

    def __iter__(self) -> Iterator[Batch]:
        yield self.first()
        for _, batch in self.rest():
            yield batch


def _sound(batch: Batch) -> Batch:
    if batch.size == 0:
        raise RecordError("a batch holds no samples; at least one is needed in each.")
    return batch


def _require_alike(first: np.ndarray | None, labels: np.ndarray | None) -> None:
    if (labels is None) != (first is None):
        raise RecordError("labels came with some batches and not with others; all or none are needed.")
    if labels is not None and first is not None and not holds(first.dtype, labels.dtype):
        raise RecordError(
            f"labels came as {kind(first.dtype)} with the first batch and as {kind(labels.dtype)} with another. Give "
            "all the same type, or pass labels=."
        )


class _Source(Protocol):
    """Where batches come from."""

    in_order: bool

    @property
    def count(self) -> int | None:
        """How many samples there are, where that is known before they are read."""

    def leaves_out(self, wants: Wants) -> bool:
        """Return whether an unwanted batch can be left unread, and there is one."""

    def read(self, wants: Wants) -> Iterator[tuple[int, Batch]]:
        """Give batches, the wanted ones among them, each after the number of its first sample."""


class _Array:
    """Arrays that are cut into batches; of one that lies on disk, only the batch at hand is read."""

    in_order = True

    def __init__(self, inputs: Any, batch_size: int, keep_labels: bool) -> None:
        self.inputs, self.batch_size, self.keep_labels = inputs, batch_size, keep_labels
        named = inputs if isinstance(inputs, Mapping) else {"0": inputs}
        self.count = size_of(Call((), {str(name): value for name, value in named.items()}))

    def leaves_out(self, wants: Wants) -> bool:
        return not all(wants(*span) for span in _spans(self.count, self.batch_size))

    def read(self, wants: Wants) -> Iterator[tuple[int, Batch]]:
        for start, stop in _spans(self.count, self.batch_size):
            if wants(start, stop):
                yield start, read_batch(_cut(self.inputs, start, stop), keep_labels=self.keep_labels)


class _Loader:
    """A DataLoader that goes through its dataset in order, so that it can begin anywhere."""

    in_order = True

    def __init__(self, loader: DataLoader, keep_labels: bool) -> None:
        self.loader, self.keep_labels = loader, keep_labels
        self.batch_size = int(loader.batch_size or 1)
        total = len(loader.sampler)  # type: ignore[arg-type]
        self.count = total - total % self.batch_size if loader.drop_last else total

    def leaves_out(self, wants: Wants) -> bool:
        return not all(wants(*span) for span in _spans(self.count, self.batch_size))

    def read(self, wants: Wants) -> Iterator[tuple[int, Batch]]:
        spans = [span for span in _spans(self.count, self.batch_size) if wants(*span)]
        items = _at(self.loader, spans) if self.leaves_out(wants) else self.loader
        for (start, stop), item in zip(spans, items, strict=True):
            batch = read_batch(item, keep_labels=self.keep_labels)
            if batch.size != stop - start:
                raise RecordError(
                    f"the DataLoader made {batch.size} samples of the {stop - start} from {start} on, so which is "
                    "which is not known. Give iter(loader), whose batches are counted as they come, or let its "
                    "collate_fn keep their number."
                )
            yield start, batch


class _Stream:
    """Batches that can only be read one after the other."""

    def __init__(self, items: Iterable[Any], keep_labels: bool) -> None:
        self.items, self.keep_labels = items, keep_labels
        self.count = _announced(items)
        self.in_order = not isinstance(items, DataLoader)

    def leaves_out(self, wants: Wants) -> bool:
        return False

    def read(self, wants: Wants) -> Iterator[tuple[int, Batch]]:
        start = 0
        for item in self.items:
            batch = read_batch(item, keep_labels=self.keep_labels)
            yield start, batch
            start += batch.size


def _source(inputs: Any, batch_size: int, *, keep_labels: bool) -> _Source:
    if isinstance(inputs, Tensor | np.ndarray | Mapping):
        return _Array(inputs, batch_size, keep_labels)
    if isinstance(inputs, str) or not isinstance(inputs, Iterable):
        raise RecordError(f"needs inputs as {KINDS}; got {type(inputs).__name__}.")
    if not isinstance(inputs, DataLoader):
        return _Stream(inputs, keep_labels)
    in_order = (
        type(inputs).__iter__ is DataLoader.__iter__
        and inputs.batch_size is not None
        and type(inputs.sampler) is SequentialSampler
        and not isinstance(inputs.dataset, IterableDataset)
    )
    return _Loader(inputs, keep_labels) if in_order else _Stream(inputs, keep_labels)


def _spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _cut(inputs: Any, start: int, stop: int) -> Any:
    """Return the samples from ``start`` to before ``stop`` of an array or of a dict of arrays and labels."""
    if not isinstance(inputs, Mapping):
        return inputs[start:stop]
    return {
        name: value[start:stop] if batched(value) or (name in LABEL_KEYS and isinstance(value, list)) else value
        for name, value in inputs.items()
    }


def _at(loader: DataLoader, spans: Sequence[tuple[int, int]]) -> DataLoader:
    """Return a loader that gives what ``loader`` does of the samples in ``spans``, a batch each."""
    return DataLoader(
        loader.dataset,
        batch_sampler=[list(range(*span)) for span in spans],
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def _announced(inputs: Iterable[Any]) -> int | None:
    """Return how many samples the batches hold, as far as they say it before they are read."""
    if isinstance(inputs, DataLoader):
        if inputs.batch_size is None or not isinstance(inputs.sampler, Sized):
            return None
        count = len(inputs.sampler)
        return count - count % inputs.batch_size if inputs.drop_last else count
    if isinstance(inputs, Sequence):
        return sum(read_batch(item, keep_labels=False).size for item in inputs)
    return None
