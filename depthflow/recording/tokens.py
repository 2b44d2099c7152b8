"""Which tokens of a state are kept, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from depthflow.errors import ParameterError, RecordError, is_whole_number
from depthflow.models.base import TokenLayout
from depthflow.schema import CLS, MEAN, OFF_GRID, PATCH, TOKEN, TOKEN_TYPES, leading_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from depthflow.trajectories import Tokens

ALL = "all"
CLS_AND_MEAN = "cls+mean"


@dataclass(frozen=True)
class Kept:
    """The tokens kept of each state: positions along ``token``, or cls and the mean over ``patches``."""

    layout: TokenLayout
    index: np.ndarray
    patches: np.ndarray | None = None

    def __post_init__(self) -> None:
        ragged = sorted(
            {*self.index.tolist(), *(() if self.patches is None else self.patches.tolist())} & self.layout.ragged
        )
        if ragged:
            raise RecordError(
                f"token {ragged[0]} is padding in some samples of a batch and not in others, so its type is not "
                "one and the same. Batch samples of equal length (one length for the whole recording), or pass tokens= "
                "with positions that no sample pads, such as tokens='cls' or tokens=[0]."
            )

    @property
    def count(self) -> int:
        """How many tokens are kept."""
        return len(self.index) + (self.patches is not None)

    def token(self) -> np.ndarray:
        """Return the label of each token along the dim ``token``."""
        return self.index if self.patches is None else np.arange(self.count)

    def types(self) -> list[str]:
        """Return the type of each token."""
        return [self.layout.types[i] for i in self.index] + ([] if self.patches is None else [MEAN])

    def places(self) -> tuple[list[int], list[int]] | None:
        """Return the row and column of each token, or None where there is no grid."""
        if self.layout.grid is None:
            return None
        rows, cols = ([place[i] for i in self.index] for place in self.layout.places())
        off = [] if self.patches is None else [OFF_GRID]
        return rows + off, cols + off

    def of(self, state: Tensor) -> Tensor:
        """Return the kept tokens of a state (sample, token, feature); a view where they are contiguous."""
        if self.patches is not None:
            exact = state if state.dtype == torch.float64 else state.float()
            cls, patches = _positions(exact, self.index), _positions(exact, self.patches)
            return torch.cat([cls, patches.mean(dim=1, keepdim=True)], dim=1)
        return _positions(state, self.index)


def _positions(state: Tensor, index: np.ndarray) -> Tensor:
    if len(index) == index[-1] - index[0] + 1 and np.all(np.diff(index) == 1):
        return state[:, index[0] : index[-1] + 1]
    return state[:, torch.as_tensor(index, device=state.device)]


def unknown(count: int) -> TokenLayout:
    """Return the layout of ``count`` tokens of which nothing is known."""
    return TokenLayout((TOKEN,) * count)


def choose(tokens: Tokens, layout: TokenLayout) -> Kept:
    """Return what ``tokens`` keeps of states with ``layout``.

    Raises
    ------
    ParameterError
        If a type is absent (says which are there), an index is out of range, or ``tokens`` is neither.
    RecordError
        If a token kept is padding in some samples only.
    """
    types, count = layout.types, len(layout.types)
    if tokens is None or (isinstance(tokens, str) and tokens == ALL):
        return Kept(layout, np.arange(count))
    if isinstance(tokens, str) and tokens == CLS_AND_MEAN:
        _require([CLS, PATCH], types, tokens)
        return Kept(layout, np.array([types.index(CLS)]), np.flatnonzero(np.array(types) == PATCH))
    chosen = [tokens] if isinstance(tokens, str | int | np.integer) else list(tokens)
    if chosen and all(isinstance(item, str) for item in chosen):
        _require([str(item) for item in chosen], types, tokens)
        return Kept(layout, np.flatnonzero(np.isin(types, chosen)))
    if not chosen or not all(map(is_whole_number, chosen)):
        raise ParameterError(f"needs tokens as {ALL!r}, {CLS_AND_MEAN!r}, a type, types or indices; got {tokens!r}.")
    index = np.array(chosen, dtype=np.int64)
    wrong = index[(index < -count) | (index >= count)]
    if len(wrong):
        raise ParameterError(f"there is no token {wrong[0]}: the states have {count} tokens, 0 to {count - 1}.")
    return Kept(layout, index % count)


def or_stand_in(tokens: Tokens, layout: TokenLayout | None) -> Tokens:
    """Return ``tokens``, or where ``"cls"`` is asked of a layout without one, what stands in for it."""
    asked = isinstance(tokens, str) and tokens == CLS
    return leading_tokens(layout.types) if asked and layout is not None else tokens


def require_same(first: Kept, kept: Kept) -> None:
    """Raise unless a batch keeps the tokens that the first batch kept."""
    if (first.types(), first.token().tolist(), first.places()) != (kept.types(), kept.token().tolist(), kept.places()):
        raise RecordError(
            f"a batch has other tokens than the first: {kept.layout} against {first.layout}. Give all batches one "
            "shape (one image size, one length of text), or choose tokens that all have, such as tokens='cls'."
        )


def require_types(tokens: Tokens, layout: TokenLayout | None) -> None:
    """Raise before anything runs if ``tokens`` names a type that a model of ``layout`` never has."""
    if layout is None or isinstance(tokens, int | np.integer | None) or (isinstance(tokens, str) and tokens == ALL):
        return
    if isinstance(tokens, str) or all(isinstance(item, str) for item in tokens):
        choose(tokens, layout)


def _require(wanted: Sequence[str], types: Sequence[str], tokens: Tokens) -> None:
    strange = [kind for kind in wanted if kind not in TOKEN_TYPES]
    if strange:
        raise ParameterError(
            f"tokens={tokens!r} is not known; choose among {ALL!r}, {CLS_AND_MEAN!r} and {TOKEN_TYPES}."
        )
    absent = [kind for kind in wanted if kind not in types]
    if absent:
        raise ParameterError(
            f"tokens={tokens!r}: this model has no token of type {absent[0]!r}; it has "
            f"{sorted(set(types))}. Choose among these, or give indices."
        )
