"""Call a model's blocks again, each with the arguments that the model gave it, on other states."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from depthflow.recording.arguments import HERE, Arguments, leaving, left_with
from depthflow.recording.mode import call

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from depthflow.models.base import Adapter
    from depthflow.recording.inputs import Batch

SHARE_OF_UPDATE, SHARE_OF_STATE = 1e-4, 1e-6
"""How far a replay may be from its recording, in norm: attention by another kernel differs by rounding, a missing
argument by a good part of the update."""


class BlockCall(NamedTuple):
    """One call of a block as the model made it, the state left open in what it took and in what it returned."""

    name: str
    module: nn.Module
    arguments: Arguments
    output: Any = None


class Replay:
    """The block calls of one batch.

    Attributes
    ----------
    batch : Batch
        What the model was called with.
    calls : list of BlockCall
        Block ℓ is entry ℓ − 1.
    states : list of torch.Tensor
        Depths 0 … L, each (sample, token, feature), on the model's device.
    output
        What the model returned.
    axes : mapping
        By a block's number and an argument's name, which axis of it is that of the samples.
    in_place : bool
        Whether a block was seen to write over the state that it was given.
    """

    def __init__(
        self, adapter: Adapter, batch: Batch, home: torch.device | None, calls: list[BlockCall], states: list[Tensor]
    ) -> None:
        self.adapter, self.batch, self.calls, self.states = adapter, batch, calls, states
        self.output: Any = None
        self.axes: Mapping[tuple[int, str], int] = {}
        self.in_place = False
        self._home = home

    @property
    def n_blocks(self) -> int:
        """How many blocks ran: L."""
        return len(self.calls)

    def block(self, number: int, state: Tensor) -> Tensor:
        """Return what block ``number``, counted from 1, makes of ``state`` (copy · sample, token, feature).

        Where there are several copies of the batch, they lie one after another.
        """
        made = self.calls[number - 1]
        copies = len(state) // self.batch.size
        given = state.clone()  # some blocks write over it

        def fill(name: str, leaf: Any) -> Any:
            if leaf is HERE:
                return given
            axis = self.axes.get((number, name)) if copies > 1 else None
            return leaf if axis is None else torch.cat([leaf] * copies, dim=axis)

        args, kwargs = made.arguments.map(fill)
        version = given._version
        state = leaving(made.module(*args, **kwargs), made.name)
        self.in_place |= given._version > version
        return state

    def unlike(self, number: int, before: Tensor, after: Tensor, kept_in: torch.dtype | None = None) -> str | None:
        """Return how what block ``number`` makes of ``before`` differs from ``after``, if it does.

        ``kept_in`` is the precision in which the states were kept, where it is not the one that they have now.
        """
        try:
            found = self.block(number, before)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return f"fails ({str(error).splitlines()[0]})"
        if found.shape != after.shape:
            return f"returns shape {tuple(found.shape)} in place of {tuple(after.shape)}"
        eps = torch.finfo(kept_in or after.dtype).eps
        off, update = (found - after).norm(), (after - before).norm()
        if off <= max(SHARE_OF_UPDATE, 8 * eps) * update + max(SHARE_OF_STATE, 2 * eps) * after.norm():
            return None
        return f"returns another state, off by {float(off / update):.2g} of its update"

    def path(self, start: int, state: Tensor) -> Iterator[Tensor]:
        """Give the states of depths ``start`` … L if ``state`` is that of ``start``."""
        yield state
        for number in range(start + 1, self.n_blocks + 1):
            state = self.block(number, state)
            yield state

    def span(self, start: int, stop: int, state: Tensor) -> Tensor:
        """Return the state of depth ``stop`` if ``state`` is that of ``start``."""
        for number in range(start + 1, stop + 1):
            state = self.block(number, state)
        return state

    def readout(self, states: Sequence[Tensor]) -> Any:
        """Return what the model makes of ``states``, depths 1 … L, in place of those that its blocks would return."""
        with _passing_on(self.calls, states):
            return call(self.adapter.root, self.batch, self._home)

    def arguments(self) -> dict[tuple[int, str], Any]:
        """Return everything that the blocks are given beside the state, by the block's number and the name."""
        return {
            (number, name): leaf
            for number, made in enumerate(self.calls, start=1)
            for name, leaf in made.arguments.leaves().items()
        }


@contextmanager
def _passing_on(calls: Sequence[BlockCall], states: Sequence[Tensor]) -> Iterator[None]:
    """Let the blocks return ``states`` in the order of the calls, and compute nothing."""
    returned = (left_with(made.output, state) for made, state in zip(calls, states, strict=True))
    modules = list({id(made.module): made.module for made in calls}.values())
    before = [module.__dict__.get("forward") for module in modules]

    def pass_on(*args: Any, **kwargs: Any) -> Any:
        return next(returned)

    try:
        for module in modules:
            module.forward = pass_on
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward
