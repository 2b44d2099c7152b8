"""Run a model on batches with every block ready to be called again, and test that this gives the same."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from depthflow.errors import RecordError
from depthflow.recording.arguments import HERE, blank, left_with, take_state
from depthflow.recording.hooks import Tape
from depthflow.recording.mode import call
from depthflow.recording.replay import BlockCall, Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from torch import nn

    from depthflow.models.base import Adapter
    from depthflow.recording.inputs import Batch

NUDGE = 0.1
"""By how much of its size depth 0 is changed, to see which arguments follow the state."""

Kind: TypeAlias = tuple[Any, ...]
"""How many samples a batch has and what its blocks are given beside the states: number, name, type and shape."""

PLAIN = (Tensor, bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device, type(None))
"""What an argument may be without a memory of its own."""


class ReplayError(RecordError):
    """The blocks of a model cannot be called again as the model calls them."""


class Replayer:
    """While entered, runs an adapter's model on batches and gives their :class:`Replay`.

    Parameters
    ----------
    adapter : Adapter
        Of a model that is run undisturbed.
    home : torch.device or None
        Where inputs belong.
    what : str
        The caller, which opens the messages.
    tested : bool
        Whether the blocks will be called again, so that this must be tested to give the same.
    """

    def __init__(self, adapter: Adapter, home: torch.device | None, what: str, tested: bool = True) -> None:
        self.adapter, self._home, self._what, self._tested = adapter, home, what, tested
        self._tape = Tape(adapter)
        self._stack = ExitStack()
        self._calls: list[BlockCall] | None = None
        self._states: list[Tensor] = []
        self._nudged_from: int | None = None
        self._axes: dict[Kind, Mapping[tuple[int, str], int]] = {}
        self._in_place = False

    def __enter__(self) -> Replayer:
        with ExitStack() as stack:
            stack.enter_context(self.adapter.replayable())
            for name, module in {id(block): (name, block) for name, block in self.adapter.named_blocks}.values():
                # Before all other hooks, as those run again when the block is called again.
                stack.enter_context(
                    module.register_forward_pre_hook(self._before(name), prepend=True, with_kwargs=True)
                )
                stack.enter_context(module.register_forward_hook(self._after))
            stack.enter_context(self._tape)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def capture(self, batch: Batch) -> Replay:
        """Run the model on ``batch`` and return its block calls, tested on the first batch of every kind.

        The tests take four more forward passes: the batch beside a changed copy of itself, and every block called
        again on the one and on both.

        Raises
        ------
        RecordError
            If a state is not finite, the model changes states between its blocks, an argument follows the state, or
            a block called again on the state that it had returns another; says which block and argument.
        """
        replay = self._run(batch)
        self._require_finite(replay)
        if not self._tested:
            return replay
        kind: Kind = (batch.size, *((*place, *_kind(leaf)) for place, leaf in replay.arguments().items()))
        if kind not in self._axes:
            doubled = self._doubled(replay)
            replay.axes = self._sample_axes(replay, doubled)
            self._require_same(replay)
            self._require_independent(replay, doubled)
            self._axes[kind] = replay.axes
            self._in_place |= replay.in_place
        replay.axes, replay.in_place = self._axes[kind], self._in_place
        return replay

    def _run(self, batch: Batch) -> Replay:
        self._calls, self._states = [], []
        try:
            with self._tape.forward(batch.size, self._keep):
                output = call(self.adapter.root, batch, self._home)
            replay = Replay(self.adapter, batch, self._home, self._calls, self._states)
        finally:
            self._calls, self._states = None, []
        replay.output = output
        return replay

    def _keep(self, depth: int, state: Tensor) -> None:
        self._states.append(state.clone())

    def _before(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            if self._calls is None:
                return None
            state, arguments = take_state(args, kwargs, name)
            self._calls.append(BlockCall(name, module, arguments))
            if len(self._calls) == 1 and self._nudged_from is not None:
                state = state.clone()
                state[self._nudged_from :] += NUDGE * state[self._nudged_from :].flip(-1)
                nudged: tuple[tuple[Any, ...], Mapping[str, Any]] = arguments.map(
                    lambda _, leaf: state if leaf is HERE else leaf
                )
                return nudged
            last = self._states[-1] if self._states else None
            if last is None or last.shape != state.shape or torch.equal(last, state):
                return None
            if torch.isfinite(last).all():  # what is not finite equals nothing, and is an error of its own
                raise ReplayError(
                    f"{self._what} calls the blocks one after another, but this model changes the states between "
                    f"{self._calls[-2].name!r} and {name!r}. Pass blocks=[…] with modules of which each takes what the "
                    "one before returns."
                )
            return None

        return hook

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._calls is not None:
            self._calls[-1] = self._calls[-1]._replace(output=left_with(output, HERE, blank))

    def _doubled(self, replay: Replay) -> Replay:
        """Run the batch beside a nudged copy of itself."""
        self._nudged_from = replay.batch.size
        try:
            return self._run(replay.batch.doubled())
        finally:
            self._nudged_from = None

    def _sample_axes(self, replay: Replay, doubled: Replay) -> dict[tuple[int, str], int]:
        """Return the axis of the samples in each tensor beside the states that has one.

        What grows in ``doubled`` has an axis of samples, and what differs in the copy follows the state, so that it
        cannot be given again with another.
        """
        beside = doubled.arguments()
        axes = {}
        for place, leaf in replay.arguments().items():
            if not isinstance(leaf, PLAIN):
                continue
            axis = _grown(leaf, beside.get(place))
            expected = torch.cat([leaf, leaf], dim=axis) if isinstance(leaf, Tensor) and axis is not None else leaf
            if not _alike(expected, beside.get(place)):
                number, name = place
                raise ReplayError(
                    f"{self._what} calls the blocks again on other states, but the argument {name!r} of "
                    f"{replay.calls[number - 1].name!r} follows the state or the batch in a way that cannot be "
                    "repeated. Pass blocks=[…] with modules that take the state alone, or one batch of samples of "
                    "equal length."
                )
            if axis is not None:
                axes[place] = axis
        return axes

    def _require_same(self, replay: Replay) -> None:
        """Raise unless every block called again on its recorded state returns the recorded one.

        From the last to the first, so that what a block keeps for a later one, other than in its output, is out of
        date.
        """
        for number in range(replay.n_blocks, 0, -1):
            before, after = replay.states[number - 1 : number + 1]
            made = replay.calls[number - 1]
            problem = replay.unlike(number, before, after)
            if problem is None:
                continue
            leaves = made.arguments.leaves()
            suspects = {name: leaf for name, leaf in leaves.items() if not isinstance(leaf, PLAIN)} or leaves
            listed = ", ".join(f"{name!r} ({type(leaf).__name__})" for name, leaf in suspects.items())
            raise ReplayError(
                f"{self._what} calls each block again with the arguments that it had, but {made.name!r} then "
                f"{problem}. "
                + (f"What could not be captured is probably among its arguments: {listed}. " if listed else "")
                + "Turn off caches and dropout, remove hooks that count calls, or pass blocks=[…] with modules that "
                "depend on their arguments alone."
            )

    def _require_independent(self, replay: Replay, doubled: Replay) -> None:
        """Raise unless samples beside others, and on another path, become what they become in the model."""
        size = replay.batch.size
        for number in range(replay.n_blocks, 0, -1):
            before, after = (
                torch.cat([replay.states[depth], doubled.states[depth][size:]]) for depth in (number - 1, number)
            )
            problem = replay.unlike(number, before, after)
            if problem is not None:
                raise ReplayError(
                    f"{self._what} calls each block on several paths at once, but {replay.calls[number - 1].name!r} "
                    f"then {problem}. Samples act on each other, or the block depends on the size of the batch or on "
                    "what is not among its arguments. Turn off caches, or pass blocks=[…] with modules that depend on "
                    "their arguments and each sample alone."
                )

    def _require_finite(self, replay: Replay) -> None:
        for depth, state in enumerate(replay.states):
            if not torch.isfinite(state).all():
                sample, token, _ = torch.nonzero(~torch.isfinite(state))[0].tolist()
                raise RecordError(
                    f"a state is not finite, first at depth {depth}, sample {sample} of its batch, token {token}. "
                    "Check the input and the model's weights and precision."
                )


def _kind(leaf: Any) -> tuple[Any, ...]:
    return type(leaf), tuple(leaf.shape) if isinstance(leaf, Tensor) else None


def _grown(alone: Any, doubled: Any) -> int | None:
    """Return the one axis along which ``doubled`` is twice as long as ``alone``, or None."""
    if not isinstance(alone, Tensor) or not isinstance(doubled, Tensor) or alone.ndim != doubled.ndim:
        return None
    grown = [axis for axis, (one, two) in enumerate(zip(alone.shape, doubled.shape, strict=True)) if one != two]
    return grown[0] if len(grown) == 1 else None


def _alike(expected: Any, found: Any) -> bool:
    if not isinstance(expected, Tensor):
        return type(expected) is type(found) and bool(expected == found)
    if not isinstance(found, Tensor) or expected.shape != found.shape:
        return False
    wide = torch.complex128 if expected.is_complex() else torch.float64
    return torch.allclose(expected.to(wide), found.to(wide), rtol=1e-4, atol=1e-6, equal_nan=True)
