"""Every module's call in one forward pass, seen by hooks that share nothing with depthflow's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """One call of a module: the first tensor that it was given and that it returned, and how many states it took on."""

    order: int
    name: str
    kind: str
    given: Tensor
    returned: Tensor
    streams: int


@dataclass(frozen=True)
class Survey:
    """The calls of one forward pass in the order in which they ended, and each module's parameters of its own."""

    all: list[Step]
    parameters: Mapping[str, int]

    def weight(self, names: set[str]) -> int:
        """Return how many parameters the modules called ``names`` and those in them have."""
        inside = tuple(f"{name}." for name in names)
        return sum(count for name, count in self.parameters.items() if f"{name}.".startswith(inside))

    def steps(self, names: set[str]) -> list[Step]:
        """Return the calls of the modules called ``names``."""
        return [step for step in self.all if step.name in names]


@dataclass(frozen=True)
class Chain:
    """Siblings of one class that return states of one shape, each to the next, and their share of all parameters."""

    parent: str
    length: int
    shape: tuple[int, ...]
    share: float


def call(model: nn.Module, inputs: Any) -> Any:
    """Return what the model makes of its inputs."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def first_tensor(value: Any) -> Tensor | None:
    """Return the tensor itself, or the first one of a tuple, list or mapping."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((found for found in map(first_tensor, value) if found is not None), None)
    return value if isinstance(value, Tensor) else None


def states(value: Any) -> int:
    """Return how many tensors of three axes or more are in a nest of containers."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return sum(map(states, value))
    return int(isinstance(value, Tensor) and value.ndim > 2 and value.is_floating_point())


def watch(model: nn.Module, inputs: Any) -> Survey:
    """Return every call of a module that holds others, or of a norm, in one forward pass; states are copied."""
    seen: list[Step] = []
    given: dict[str, list[tuple[Tensor | None, int]]] = {}
    copies: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def copied(tensor: Tensor) -> Tensor:
        """Return a copy, shared by all calls that see the tensor before it changes; it is kept, so its id stays."""
        if tensor.is_meta:
            return tensor
        key = (id(tensor), tensor._version)
        if key not in copies:
            copies[key] = (tensor, tensor.clone())
        return copies[key][1]

    def hooks(name: str) -> Any:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensor = first_tensor([args, kwargs])
            given.setdefault(name, []).append((None if tensor is None else copied(tensor), states([args, kwargs])))

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            (start, count), tensor = given[name].pop(), first_tensor(output)
            if start is not None and tensor is not None:
                streams = min(count, states(output))
                seen.append(Step(len(seen), name, type(module).__name__, start, copied(tensor), streams))

        return enter, leave

    torch.manual_seed(1)
    sizes = {}
    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            sizes[name] = sum(parameter.numel() for parameter in module.parameters(recurse=False))
            inside = next(module.children(), None) is not None  # a layer such as Linear is no block
            if name and (inside or is_norm(name, type(module).__name__)):
                enter, leave = hooks(name)
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave).remove)
        call(model, inputs)
    return Survey(seen, sizes)


def is_norm(name: str, kind: str) -> bool:
    """Return whether a module is a norm by its own name or by its class's."""
    return kind != "Identity" and ("norm" in kind.lower() or "norm" in name.rpartition(".")[2])


def chains(seen: Survey) -> list[Chain]:
    """Return the chains of two or more siblings, largest share of the parameters first."""
    by_parent: dict[str, list[Step]] = {}
    for step in seen.all:
        if not is_norm(step.name, step.kind):
            by_parent.setdefault(step.name.rpartition(".")[0], []).append(step)
    found = [chain for parent, steps in by_parent.items() for chain in _links(parent, steps, seen)]
    return sorted(found, key=lambda chain: -chain.share)


def _links(parent: str, steps: list[Step], seen: Survey) -> Iterator[Chain]:
    run: list[Step] = []
    for step in [*steps, None]:
        if step is not None and run and _follows(run[-1], step):
            run.append(step)
            continue
        if len(run) > 1:
            share = seen.weight({one.name for one in run}) / max(sum(seen.parameters.values()), 1)
            yield Chain(parent, len(run), tuple(run[0].returned.shape[1:]), share)
        run = [step] if step is not None else []


def _follows(before: Step, step: Step) -> bool:
    """Return whether ``step`` is given what ``before`` returned, and hands on the same shape."""
    shapes = {before.returned.shape, step.given.shape, step.returned.shape}
    if len(shapes) > 1 or before.kind != step.kind or step.given.ndim < 3:
        return False
    return before.returned is step.given or (not step.given.is_meta and torch.equal(before.returned, step.given))
