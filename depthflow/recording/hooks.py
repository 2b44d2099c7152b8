"""Hooks on a model's blocks that hand on every state in the order in which the blocks are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from depthflow.errors import RecordError
from depthflow.models.base import Adapter, Refusal
from depthflow.recording.arguments import leaving, take_state

if TYPE_CHECKING:
    from types import TracebackType

Keep = Callable[[int, Tensor], None]
"""Takes a depth and its state (sample, token, feature), which is valid only until it returns."""


class Tape:
    """While entered, every forward pass of the adapter's model hands its states to ``keep``, depth 0 first.

    Depth 0 is what the first block is given and depth ℓ what the ℓ-th call of a block returns. The hooks are
    registered after all others, so that a state that someone's hook replaces is recorded as the model passes it on.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.order: tuple[int, ...] | None = None
        self._modules: list[nn.Module] = list(dict.fromkeys(adapter.blocks))
        self._names = [adapter.names[adapter.blocks.index(module)] for module in self._modules]
        self._stack = ExitStack()
        self._calls: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        self._last: Tensor | None = None
        self._break: tuple[int, int] | None = None
        self._samples = 0
        self._keep: Keep | None = None

    def __enter__(self) -> Tape:
        with ExitStack() as stack:
            for number, module in enumerate(self._modules):
                stack.enter_context(module.register_forward_pre_hook(self._before(number), with_kwargs=True))
                if self.adapter.one_stream:  # before others: what a hook does to a block's input is part of the block
                    follow = module.register_forward_pre_hook(self._follow(number), prepend=True, with_kwargs=True)
                    stack.enter_context(follow)
                stack.enter_context(module.register_forward_hook(self._after(number)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def modules(self) -> list[str]:
        """The dotted name of each block in the order of the calls; block ℓ is entry ℓ − 1."""
        return [self._names[number] for number in self.order or ()]

    @property
    def tokens(self) -> int:
        """How many tokens the states of the last pass had."""
        return self._shapes[0][1]

    @contextmanager
    def forward(self, samples: int, keep: Keep) -> Iterator[None]:
        """Expect one forward pass of ``samples`` samples; at its end check that every block ran as in the first.

        Raises
        ------
        RecordError
            If a block did not run, or the calls differ from those of the first pass.
        UnsupportedModelError
            If the states are not (sample, token, feature) of one shape.
        """
        self._calls, self._shapes, self._samples, self._keep = [], [], samples, keep
        self._break = None
        try:
            yield
            self._check()
        finally:
            self._last = self._keep = None

    def _before(self, number: int) -> Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if self._keep is None:
                return
            if not self._calls:
                self._see(0, take_state(args, kwargs, self._names[number])[0])
            elif number in self._calls:
                self._require_chain(number, take_state(args, kwargs, self._names[number])[0])

        return hook

    def _follow(self, number: int) -> Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if self._keep is None or not self._calls or self.order is not None or self._break is not None:
                return
            if not self._is_last(take_state(args, kwargs, self._names[number])[0]):
                self._break = self._calls[-1], number

        return hook

    def _after(self, number: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._keep is None:
                return
            self._calls.append(number)
            self._last = leaving(output, self._names[number])
            self._see(len(self._calls), self._last)

        return hook

    def _see(self, depth: int, state: Tensor) -> None:
        self._shapes.append(tuple(state.shape))
        usable = state.ndim == 3 and state.shape[0] == self._samples and self._shapes[-1] == self._shapes[0]
        if usable and self._keep is not None:
            self._keep(depth, state)

    def _require_chain(self, number: int, state: Tensor) -> None:
        """Raise unless a block that runs again is given what the block before it returned: one residual stream."""
        if self._is_last(state):
            return
        raise RecordError(
            f"{self._names[number]} ran again within one forward pass, on states that are not the output of the block "
            "before: the model makes several passes over its blocks (several views or crops?), and their states are "
            "not one trajectory. Give it one view at a time."
        )

    def _is_last(self, state: Tensor) -> bool:
        """Return whether a block is given what the block before it returned, wherever it runs."""
        last = self._last
        if last is None or state is last:
            return last is not None
        same = state.shape == last.shape and state.dtype == last.dtype
        return same and torch.allclose(state.to(last.device), last, rtol=0, atol=0, equal_nan=True)

    def _check(self) -> None:
        idle = [name for number, name in enumerate(self._names) if number not in self._calls]
        if idle:
            raise RecordError(
                f"{len(idle)} of {len(self._names)} blocks did not run in the forward pass, first {idle[0]!r}. "
                "Are these the blocks that these inputs go through? A scripted or exported model runs no hooks: give "
                "the module itself; else pass blocks=."
            )
        refusal = self._refuse()
        if refusal is not None:
            raise refusal.error()
        order = tuple(self._calls)
        if self.order is None:
            self.order = order
        elif order != self.order:
            raise RecordError(
                f"the blocks ran {len(order)} times in this batch and {len(self.order)} times in the first, or in "
                "another order; a trajectory needs the same blocks for every sample."
            )

    def _refuse(self) -> Refusal | None:
        shapes = list(dict.fromkeys(self._shapes))
        family, first = self.adapter.family, shapes[0]
        if len(shapes) > 1:
            if len({shape[1:] for shape in shapes}) == 1:
                counts = " → ".join(str(shape[0]) for shape in shapes)
                return Refusal(
                    f"the number of samples changes between the blocks of {family} ({counts}), so that states of one "
                    "sample cannot be told apart.",
                    "Pass blocks=[…] with blocks between which it stays.",
                )
            listed = " → ".join("×".join(map(str, shape[1:])) for shape in shapes)
            return Refusal(
                f"{family} is hierarchical: its states change shape with depth ({listed}), so they have no common "
                "space.",
                "Pass blocks=[…] with the blocks of one stage of equal shape, or use an isotropic model.",
            )
        if len(first) != 3:
            return Refusal(
                f"the blocks of {family} pass on states of {len(first)} axes, shape {first}; a trajectory needs "
                "(sample, token, feature).",
                "Wrap each block so that its output is flattened to these axes, and pass blocks=[…] with the wrappers.",
            )
        if first[0] != self._samples:
            if first[0] == 1:
                return Refusal(
                    f"{family} packs the tokens of {self._samples} samples into one sequence, of shape {first}; a "
                    "trajectory needs (sample, token, feature).",
                    "Pass batch_size=1, or batches of one sample.",
                )
            seen = "(token, sample, feature)" if first[1] == self._samples else f"{first[0]} samples"
            return Refusal(
                f"the blocks of {family} pass on states of shape {first} for {self._samples} samples, which reads as "
                f"{seen}; a trajectory needs (sample, token, feature).",
                "Pass blocks=[…] with modules whose outputs have these axes.",
            )
        if self._break is not None:
            before, after = (self._names[number] for number in self._break)
            path = before.rpartition(".")[0]
            given = f"blocks={path!r}" if path else "blocks=[…] with them"
            return Refusal(
                f"in {family} {after} is not given what {before} returned: something between them changes the states "
                "(a norm, a position embedding, another branch), so they are not one trajectory.",
                f"To record what each block returns all the same, pass {given}.",
            )
        return None
