"""What a surrogate learns from: its teacher's states, batch by batch, made on the fly or read from a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from depthflow.errors import SurrogateError
from depthflow.recording.capture import settle
from depthflow.recording.feed import Feed
from depthflow.recording.inputs import Batch, whole
from depthflow.recording.tokens import Kept, choose, require_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from depthflow.recording.arguments import Arguments
    from depthflow.recording.replay import Replay
    from depthflow.recording.replayer import Replayer
    from depthflow.recording.share import Share


class Lesson(NamedTuple):
    """One batch: the teacher's states at depths 0 … L, and what its blocks were given beside them."""

    states: list[Tensor]
    arguments: list[Arguments]

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.states[0])


class Source(Protocol):
    """Gives the lesson of any step of a stage, the same one each time it is asked."""

    token_types: list[str]
    """Of the states, known from the first lesson on."""

    @property
    def count(self) -> int | None:
        """How many samples there are, where that is known."""
        ...

    def at(self, stage: int, step: int) -> Lesson:
        """Return the shuffled lesson of a step."""
        ...

    def through(self, batch_size: int, most: int | None = None) -> Iterator[Lesson]:
        """Give all samples in order, or the first ``most``."""
        ...

    def replay(self, batch_size: int) -> Replay:
        """Return the first samples' block calls."""
        ...


class Order:
    """The samples of each step: every epoch in a new order, which the seed alone decides.

    Parameters
    ----------
    count, batch_size : int
        Samples in all; samples a step and process. What is left of an epoch is left out of it.
    seed : int
        Of the orders.
    share : Share
        Each process has its own part of each step.
    grains : sequence of int, optional
        Numbers of samples that lie together on disk, in order; by default each lies alone.
    window : int, optional
        How many grains are read at once, among which samples are shuffled; all by default.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        share: Share,
        grains: Sequence[int] | None = None,
        window: int | None = None,
    ) -> None:
        self.count, self.seed, self.share = count, seed, share
        self.batch_size = min(batch_size, count // share.of)
        if self.batch_size == 0:
            raise SurrogateError(f"{share.of} processes cannot share {count} samples. Give more samples.")
        self.per_epoch = count // (self.batch_size * share.of)
        self._starts = np.cumsum(grains)[:-1] if grains is not None else np.arange(1, count)
        self._window = window
        self._epoch: tuple[int, int] | None = None
        self._order = np.arange(0)

    def at(self, stage: int, step: int) -> np.ndarray:
        """Return the positions of the samples of a step that are this process's."""
        epoch, place = divmod(step, self.per_epoch)
        if self._epoch != (stage, epoch):
            self._epoch, self._order = (stage, epoch), self._shuffled(np.random.default_rng([self.seed, stage, epoch]))
        start = (place * self.share.of + self.share.rank) * self.batch_size
        return self._order[start : start + self.batch_size]

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        grains = np.split(np.arange(self.count), self._starts)
        rng.shuffle(order := np.arange(len(grains)))
        window = self._window or len(grains)
        parts = [np.concatenate([grains[n] for n in order[at : at + window]]) for at in range(0, len(grains), window)]
        return np.concatenate([rng.permutation(part) for part in parts])


class LiveSource:
    """The teacher runs on each batch of inputs.

    Parameters
    ----------
    replayer : Replayer
        Of the teacher.
    inputs : tensor, array, dict of these, dataset, or iterable of batches
        As of :func:`depthflow.fit_surrogate`.
    batch_size, seed, share
        As of :class:`Order`.
    workers : int
        Processes that read a dataset.
    augment : callable, optional
        From what the model is called with, a tensor or a dict, to a changed one of the same shapes.
    """

    def __init__(
        self,
        replayer: Replayer,
        inputs: Any,
        batch_size: int,
        seed: int,
        share: Share,
        workers: int = 0,
        augment: Callable[[Any], Any] | None = None,
    ) -> None:
        self._replayer, self._inputs, self._augment = replayer, inputs, augment
        self._seed, self._share, self._workers = seed, share, workers
        self._all = whole(inputs)
        self._map = isinstance(inputs, Dataset) and not isinstance(inputs, IterableDataset)
        self.count = len(inputs) if self._map else Feed(inputs, batch_size).count
        self._order: Order | None = None
        if self._all is not None or self._map:
            self._order = Order(self.count or 0, batch_size, seed, share)
        elif isinstance(inputs, Iterator):
            raise SurrogateError(
                "a fit goes through its inputs many times, and these can be gone through once. Give an array, a "
                "dataset, a list of batches or a DataLoader."
            )
        self._running: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None
        self._kept: Kept | None = None
        self.token_types: list[str] = []

    def at(self, stage: int, step: int) -> Lesson:
        """Return the lesson of a step; steps that follow one another are read ahead."""
        if self._next != (stage, step):
            self._running = self._from(stage, step)
        batch, self._next = next(self._running), (stage, step + 1)
        if self._augment is not None:
            with seeded(self._seed, stage, step, self._share.rank):
                batch = batch.changed(self._augment)
        return self._lesson(batch)

    def through(self, batch_size: int, most: int | None = None) -> Iterator[Lesson]:
        """Give all samples in order, or the first ``most``."""
        seen = 0
        for batch in repeatable(self._in_order(batch_size), self._seed):
            part = batch if most is None or seen + batch.size <= most else batch.part(0, most - seen)
            yield self._lesson(part)
            seen += part.size
            if seen == most:
                return

    def replay(self, batch_size: int) -> Replay:
        """Return the first samples' block calls."""
        return self._replayer.capture(next(repeatable(self._in_order(batch_size), self._seed)))

    def _in_order(self, batch_size: int) -> Feed:
        every = DataLoader(self._inputs, batch_size, num_workers=self._workers) if self._map else self._inputs
        return Feed(every, batch_size)

    def _from(self, stage: int, step: int) -> Iterator[Batch]:
        """Give this process's batches of a step and of all that follow."""
        if self._order is None:
            return islice(self._endless(stage), step, None)
        indices = (self._order.at(stage, number) for number in count(step))
        if self._all is not None:
            return map(self._all.taken, indices)
        picked: Any = ([int(index) for index in batch] for batch in indices)
        own = torch.Generator().manual_seed(self._seed)  # else it draws from those of the first step that is read
        loader = DataLoader(self._inputs, batch_sampler=picked, num_workers=self._workers, generator=own)
        return repeatable(Feed(loader, 1), self._seed, stage, first=step)

    def _endless(self, stage: int) -> Iterator[Batch]:
        """Give this process's batches, epoch after epoch; what does not make one for each process is left out."""
        for epoch in count():
            made = 0
            feed = repeatable(Feed(self._inputs, 1), self._seed, stage, epoch)
            for batches in zip(*[feed] * self._share.of, strict=False):
                yield batches[self._share.rank]
                made += 1
            if not made:
                raise SurrogateError(f"the inputs hold fewer than {self._share.of} batches, one for each process.")

    def _lesson(self, batch: Batch) -> Lesson:
        replay = self._replayer.capture(batch)
        adapter = self._replayer.adapter
        kept = choose("all", settle(adapter, adapter.layout(batch.call), replay.states[0].shape[1]))
        if self._kept is None:
            self._kept, self.token_types = kept, kept.types()
        require_same(self._kept, kept)
        return Lesson(replay.states, [made.arguments for made in replay.calls])


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Let torch draw random numbers that ``entropy`` alone decides, and take none from the caller's."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        yield


def repeatable(batches: Iterable[Batch], *entropy: int, first: int = 0) -> Iterator[Batch]:
    """Give the batches, each drawn as its number decides, so that a DataLoader that shuffles gives the same again."""
    running = iter(batches)
    for number in count(first):
        with seeded(*entropy, number):
            batch = next(running, None)
        if batch is None:
            return
        yield batch
