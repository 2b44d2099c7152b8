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

from depthflow.errors import SurrogateError, raise_faults
from depthflow.models.base import Call
from depthflow.recording.arguments import HERE, Arguments
from depthflow.recording.capture import settle
from depthflow.recording.inputs import Batch, Feed, whole
from depthflow.recording.replay import BlockCall, Replay
from depthflow.recording.tokens import Kept, choose, require_same
from depthflow.schema import DIMS, MEAN, check, labels, token_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import xarray as xr

    from depthflow.models.base import Adapter
    from depthflow.recording.replayer import Replayer

STATE_ALONE = Arguments((HERE,), {})
"""What a block is called with that takes nothing beside the state."""

WINDOW_BYTES = 256 * 2**20
"""How much of a store is read at once; samples are shuffled among the chunks that are read together."""


class Lesson(NamedTuple):
    """One batch: the teacher's states at depths 0 … L, and what its blocks were given beside them."""

    states: list[Tensor]
    arguments: list[Arguments]

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.states[0])


class Share(NamedTuple):
    """Which of several processes this is."""

    rank: int = 0
    of: int = 1


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
    grain, window : int
        Samples that lie together on disk, and grains that are read at once; single samples are shuffled freely.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, share: Share, grain: int = 1, window: int | None = None
    ) -> None:
        self.count, self.seed, self.share = count, seed, share
        self.batch_size = min(batch_size, count // share.of)
        if self.batch_size == 0:
            raise SurrogateError(f"{share.of} processes cannot share {count} samples. Give more samples.")
        self.per_epoch = count // (self.batch_size * share.of)
        self._grain, self._window = grain, window
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
        grains = np.split(np.arange(self.count), np.arange(self._grain, self.count, self._grain))
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


class StoredSource:
    """States are read from a recorded trajectory; the teacher does not run, so its blocks must take the state alone.

    Parameters
    ----------
    traj : xarray.DataArray
        In memory or from a store.
    adapter : Adapter
        Of the teacher.
    device : torch.device or None
        Where the surrogate is.
    batch_size, seed, share
        As of :class:`Order`.
    """

    def __init__(
        self,
        traj: xr.DataArray,
        adapter: Adapter,
        device: torch.device | None,
        batch_size: int,
        seed: int,
        share: Share,
    ) -> None:
        _require_whole(traj, len(adapter.named_blocks))
        self._traj, self._adapter, self._device = traj.transpose(*DIMS), adapter, device
        self.count = traj.sizes["sample"]
        self.token_types = token_types(traj)
        self._kept_in = torch.float16 if traj.dtype == np.float16 else None
        per_sample = traj.nbytes // self.count
        grain, window = 1, None
        if self._traj.chunks is not None:
            grain = self._traj.chunks[0][0]
            window = max(1, WINDOW_BYTES // (grain * per_sample))
        self._order = Order(self.count, batch_size, seed, share, grain, window)

    def at(self, stage: int, step: int) -> Lesson:
        """Return the lesson of a step."""
        return self._lesson(self._order.at(stage, step))

    def through(self, batch_size: int, most: int | None = None) -> Iterator[Lesson]:
        """Give all samples in order, or the first ``most``."""
        count = self.count if most is None else min(most, self.count)
        for start in range(0, count, batch_size):
            yield self._lesson(np.arange(start, min(start + batch_size, count)))

    def replay(self, batch_size: int) -> Replay:
        """Return the first samples' block calls, tested: the blocks must make of each state the next one.

        Raises
        ------
        SurrogateError
            If they do not: the states are of another model, or its blocks take more than a state.
        """
        states, _ = next(self.through(batch_size))
        calls = [BlockCall(name, block, STATE_ALONE, HERE) for name, block in self._adapter.named_blocks]
        replay = Replay(self._adapter, Batch(Call(), len(states[0])), self._device, calls, states)
        for number in range(1, replay.n_blocks + 1):
            problem = replay.unlike(number, states[number - 1], states[number], self._kept_in)
            if problem is not None:
                raise SurrogateError(
                    f"the states given are not what this model makes: its block {calls[number - 1].name!r} {problem}. "
                    "They are of another model or of other weights, or its blocks take more than the state, such as "
                    "rotary positions or a mask; then give the inputs, and the model runs on the fly."
                )
        return replay

    def _lesson(self, index: np.ndarray) -> Lesson:
        order = np.argsort(index)
        read = np.ascontiguousarray(self._traj.isel(sample=index[order]).values)
        states = torch.from_numpy(read)[torch.from_numpy(np.argsort(order))].to(self._device)
        states = states.float() if states.dtype == torch.float16 else states
        return Lesson(list(states.unbind(1)), [STATE_ALONE] * (states.shape[1] - 1))


def _require_whole(traj: xr.DataArray, blocks: int) -> None:
    """Raise unless a trajectory has every depth and token of a model with so many blocks."""
    faults = []
    check(traj, "fit_surrogate")
    if set(traj.dims) != set(DIMS):
        raise SurrogateError(f"a fit to recorded states needs the dims {DIMS}; got {tuple(map(str, traj.dims))}.")
    depth, token = labels(traj, "depth"), labels(traj, "token")
    if not np.array_equal(depth, np.arange(blocks + 1)):
        faults.append(f"needs every depth of the model, 0 to {blocks}; got {depth.tolist()}. Record without depths=.")
    if MEAN in token_types(traj) or not np.array_equal(token, np.arange(len(token))):
        kinds = ", ".join(dict.fromkeys(token_types(traj)))
        faults.append(f"needs every token as the blocks see it; got {len(token)} ({kinds}). Record with tokens='all'.")
    raise_faults(SurrogateError, "a fit to recorded states", faults)
