"""A family's model run as the tests need it: by itself, by depthflow, and under hooks that share nothing with it."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

import depthflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor, nn

    from tests.adapters.families import Case


def call(model: nn.Module, batch: Any) -> Any:
    return model(**batch) if isinstance(batch, dict) else model(batch)


def answer(model: nn.Module, batch: Any) -> Tensor:
    """Return the model's first output tensor."""
    with torch.no_grad():
        return passed_on(call(model, batch))


def given(case: Case, model: nn.Module) -> Any:
    """Return the argument ``blocks=``."""
    return case.given(model) if callable(case.given) else case.given


def take(case: Case, model: nn.Module, batch: Any, **kwargs: Any) -> Any:
    return depthflow.record(model, batch, blocks=given(case, model), progress=False, **kwargs)


def state_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the state that a block is called with."""
    return args[0] if args else kwargs["hidden_states"]


def with_state(args: tuple[Any, ...], kwargs: dict[str, Any], state: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a block's arguments with another state."""
    return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})


def passed_on(output: Any) -> Tensor:
    """Return the state among what a block returns."""
    return output if isinstance(output, torch.Tensor) else output[0]


def states_by_plain_hooks(case: Case, model: nn.Module, batch: Any) -> np.ndarray:
    """Return (sample, depth, token, feature) by hooks that share nothing with depthflow's."""
    model = copy.deepcopy(model).eval()
    seen: list[Tensor] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.append(state_given(args, kwargs).clone())

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.append(passed_on(output).clone())

    blocks = case.blocks(model)
    blocks[0].register_forward_pre_hook(enter, with_kwargs=True)
    for block in dict.fromkeys(blocks):
        block.register_forward_hook(leave)
    with torch.no_grad():
        call(model, batch)
    return torch.stack(seen, dim=1).numpy()


WAYS_TO_COMPILE = ("whole", "in place", "each block")


@contextmanager
def compiled(case: Case, model: nn.Module, way: str) -> Iterator[nn.Module]:
    """Give the model compiled in one of the ways."""
    if way == "whole":
        model = torch.compile(model, backend="eager")
    elif way == "in place":
        model.compile(backend="eager")
    else:
        for block in case.blocks(model):
            block.compile(backend="eager")
    try:
        yield model
    finally:
        torch.compiler.reset()
