"""The arguments that a block is called with: the state among them, and what comes beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from depthflow.models.base import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = object()
"""Stands for the state where it was taken out of the arguments."""


class Arguments(NamedTuple):
    """What a block was called with, the state replaced by ``HERE``."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def map(self, function: Callable[[str, Any], Any]) -> Arguments:
        """Return the arguments with every leaf replaced by ``function`` of its name and itself."""
        kwargs = {name: _mapped(value, name, function) for name, value in self.kwargs.items()}
        return Arguments(_mapped(self.args, "args", function), kwargs)

    def leaves(self) -> dict[str, Any]:
        """Return all but the state, such as ``rope`` or ``position_embeddings[0]``, by name."""
        found: dict[str, Any] = {}
        self.map(found.__setitem__)
        return {name: leaf for name, leaf in found.items() if leaf is not HERE}


def take_state(args: tuple[Any, ...], kwargs: Mapping[str, Any], block: str) -> tuple[Tensor, Arguments]:
    """Return the state that ``block`` is given, and its arguments without it.

    The state is the first tensor, which comes by position in all but a few models, or the only item of a list there.
    """
    state = _sole(args[0]) if args else None
    if state is not None:
        return state, Arguments((_emptied(args[0]), *args[1:]), kwargs)
    for name, value in kwargs.items():
        state = _sole(value)
        if state is not None:
            return state, Arguments(args, {**kwargs, name: _emptied(value)})
    raise Refusal(
        f"the block {block!r} is called without a tensor.", "Pass blocks=[…] with modules that take states."
    ).error()


def leaving(output: Any, block: str) -> Tensor:
    """Return the state that ``block`` passes on: its output, or the first element of a tuple or of a list of one."""
    if isinstance(output, tuple) or (isinstance(output, list) and len(output) == 1):
        output = output[0]
    if isinstance(output, Tensor):
        return output
    raise Refusal(
        f"the block {block!r} returns {type(output).__name__}, not a state.",
        "Pass blocks=[…] with modules that return a tensor, or a tuple that starts with one.",
    ).error()


def left_with(output: Any, state: Any, rest: Callable[[str, Any], Any] = lambda _, leaf: leaf) -> Any:
    """Return a block's output with ``state`` in place of the state that it passed on, ``rest`` applied to all else."""
    if not isinstance(output, tuple | list):
        return state
    others = [_mapped(part, f"output[{place}]", rest) for place, part in enumerate(output[1:], start=1)]
    return type(output)(state, *others) if hasattr(output, "_fields") else type(output)([state, *others])


def blank(_: str, leaf: Any) -> Any:
    """Return zeros for a tensor of numbers that may follow the state: who reads them is found out."""
    return leaf.new_zeros(leaf.shape) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _sole(value: Any) -> Tensor | None:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, Tensor) else None


def _emptied(value: Any) -> Any:
    return type(value)([HERE]) if isinstance(value, list | tuple) else HERE


def _mapped(value: Any, name: str, function: Callable[[str, Any], Any]) -> Any:
    if type(value) in (list, tuple) or hasattr(value, "_fields"):
        parts = [_mapped(part, f"{name}[{place}]", function) for place, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if type(value) is dict:
        return {key: _mapped(part, f"{name}[{key!r}]", function) for key, part in value.items()}
    return function(name, value)
