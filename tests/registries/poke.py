"""Which token is which by what it answers to: a learned token moves one position, a patch of the image another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.registries.survey import call, first_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 0.5
"""How much is added; a learned token or a pixel is of the order of 1 after the noise of the contract."""

PLACES = 12
"""How many patches are poked on a large grid."""


class _Reached(Exception):
    def __init__(self, state: Tensor) -> None:
        self.state = state


def entering(model: nn.Module, inputs: Any, block: str) -> Tensor:
    """Return what the block is given; nothing after it runs."""

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = first_tensor([args, kwargs])
        assert state is not None
        raise _Reached(state.clone())

    hook = model.get_submodule(block).register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
    torch.manual_seed(1)
    try:
        with torch.no_grad():
            call(model, inputs)
    except _Reached as reached:
        return reached.state
    finally:
        hook.remove()
    raise AssertionError(f"{block} did not run")


def types_by_poking(
    model: nn.Module, inputs: Any, block: str, parameters: Mapping[str, str], other: str = "patch"
) -> tuple[str, ...]:
    """Return the type of each token that ``block`` is given: which moves with which of the ``parameters``.

    ``parameters`` maps the last part of a parameter's name, such as ``"cls_token"``, to a type.
    """
    start = entering(model, inputs, block)
    types = [other] * start.shape[1]
    for name, parameter in model.named_parameters():
        kind = parameters.get(name.rpartition(".")[2])
        if kind is None:
            continue
        kept = parameter.data.clone()
        try:
            parameter.data.add_(SIZE * torch.randn_like(kept))
            moved = (entering(model, inputs, block) != start).any(dim=2).any(dim=0)
        finally:
            parameter.data.copy_(kept)
        for token in moved.nonzero().flatten().tolist():
            types[token] = kind
    return tuple(types)


def misplaced(model: nn.Module, images: Tensor, block: str, layout: Any, name: str | None = None) -> str | None:
    """Return which token's row and column are not where it looks, None if all are right.

    A part of the image that one patch covers is changed; the token there must move the most of all.
    """
    rows, cols = layout.grid
    places = [(row, col) for row in range(rows) for col in range(cols)]
    if len(places) > PLACES:
        chosen = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[: PLACES - 2].tolist()
        places = [places[0], places[-1], *(places[one] for one in chosen)]
    high, wide = images.shape[2] // rows, images.shape[3] // cols
    row_of, col_of = layout.places()
    for row, col in places:
        poked = images[:1].clone()
        inside = poked[:, :, row * high : (row + 1) * high, col * wide : (col + 1) * wide]
        inside.add_(torch.randn(inside.shape, generator=torch.Generator().manual_seed(1)).to(inside) * 2)
        pair = torch.cat([images[:1], poked])
        state = entering(model, pair if name is None else {name: pair}, block)
        moved = (state[1] - state[0]).double().norm(dim=1)
        token = int(moved.argmax())
        # Where embeddings overlap, as in a convolutional stem, the patch beside may answer most.
        slack = 0 if int((moved > 0).sum()) == 1 else 1
        if abs(row_of[token] - row) > slack or abs(col_of[token] - col) > slack:
            return f"token {token} answers to the patch in row {row}, column {col}; recorded as {_at(layout, token)}"
    return None


def _at(layout: Any, token: int) -> str:
    rows, cols = layout.places()
    return f"{layout.types[token]} in row {rows[token]}, column {cols[token]}"
