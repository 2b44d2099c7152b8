"""What depthflow needs to know of a model: its blocks in order, which token is which, where the final norm is."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from depthflow.errors import UnsupportedModelError
from depthflow.schema import OFF_GRID, PAD, PATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager


@dataclass(frozen=True)
class TokenLayout:
    """The type of each token, in order, and the rows and columns of the patches where they fill an image row by row.

    ``ragged`` are the positions that are padding in some samples of the batch and not in others, so that no one type
    is true of them.
    """

    types: tuple[str, ...]
    grid: tuple[int, int] | None = None
    ragged: frozenset[int] = frozenset()

    @classmethod
    def image(cls, prefix: Sequence[str], grid: tuple[int, int]) -> TokenLayout:
        """Return the layout of ``prefix`` tokens followed by the patches of a ``grid``."""
        return cls((*prefix, *[PATCH] * (grid[0] * grid[1])), grid)

    @classmethod
    def padded(cls, types: Sequence[str], mask: Tensor | None) -> TokenLayout:
        """Return the layout of ``types``, of which the last are padding where ``mask`` (sample, token) is 0."""
        kinds = list(types)
        if mask is None or mask.ndim != 2 or mask.shape[1] > len(kinds):
            return cls(tuple(kinds))
        offset = len(kinds) - mask.shape[1]
        some, every = mask.bool().any(dim=0).tolist(), mask.bool().all(dim=0).tolist()
        for index, used in enumerate(some):
            if not used:
                kinds[offset + index] = PAD
        ragged = (offset + index for index, used in enumerate(some) if used and not every[index])
        return cls(tuple(kinds), ragged=frozenset(ragged))

    def places(self) -> tuple[list[int], list[int]]:
        """Return each token's row and column on the image, −1 off the grid or where there is none."""
        rows, cols = [OFF_GRID] * len(self.types), [OFF_GRID] * len(self.types)
        if self.grid is not None:
            for order, token in enumerate(index for index, kind in enumerate(self.types) if kind == PATCH):
                rows[token], cols[token] = divmod(order, self.grid[1])
        return rows, cols

    def __str__(self) -> str:
        runs = [f"{len(list(run))} {kind}" for kind, run in groupby(self.types)]
        return ", ".join(runs) + (f" ({self.grid[0]}×{self.grid[1]})" if self.grid else "")


WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Under which name ``torch.compile`` and others that leave a module's work as it is hold the module itself."""


def plain(name: str) -> str:
    """Return a dotted name without the parts that wrappers add; the wrappers find their module by it too."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def bare(module: Any) -> Any:
    """Return the module inside the wrappers that leave its work as it is."""
    inner = next((getattr(module, name) for name in WRAPPERS if hasattr(module, name)), None)
    return module if inner is None else bare(inner)


def json_safe(value: Any) -> bool:
    """Return whether ``value`` can be written as JSON, which knows no NaN and no Inf."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


class Call(NamedTuple):
    """What a model is called with."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}

    def named(self) -> dict[str, Any]:
        """Return every argument by its name, or by its place where it has none."""
        return {**{str(place): value for place, value in enumerate(self.args)}, **self.kwargs}

    def tensor(self, name: str) -> Tensor | None:
        """Return the tensor that is passed as ``name`` or first."""
        value = self.kwargs.get(name, self.args[0] if self.args else None)
        return value if isinstance(value, Tensor) else None

    def images(self) -> Tensor | None:
        """Return the one tensor (sample, channel, row, column), or None."""
        images = [value for value in self.named().values() if isinstance(value, Tensor) and value.ndim == 4]
        return images[0] if len(images) == 1 else None


class Refusal(NamedTuple):
    """Why a model's forward pass is not recorded, and what its owner can do."""

    reason: str
    remedy: str

    def error(self) -> UnsupportedModelError:
        """Return the error that says both."""
        return UnsupportedModelError(*self)


class Adapter:
    """A model as depthflow sees it; one subclass a family, which overrides what differs.

    Parameters
    ----------
    root : torch.nn.Module
        The model that is called.
    prefix : str
        Dotted name, inside ``root``, of the part that the family knows; empty for ``root`` itself.
    """

    family = "torch"
    library = "torch"
    """The distribution whose version is kept with a recording."""
    one_stream = True
    """Whether each block must be given what the one before it returned; not so where the caller names the blocks."""

    def __init__(self, root: nn.Module, prefix: str = "") -> None:
        self.root = root
        self.prefix = plain(prefix)
        self.part = root.get_submodule(prefix)
        self.refusal: Refusal | None = None
        self.named_blocks: list[tuple[str, nn.Module]] = []
        self.layout_must_hold = True
        """Whether a layout that does not fit the observed tokens is an error; else it is given up."""

    @property
    def names(self) -> list[str]:
        """The blocks' dotted names inside ``root``."""
        return [name for name, _ in self.named_blocks]

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks in order."""
        return [block for _, block in self.named_blocks]

    def name(self) -> str:
        """Return what the model calls itself."""
        return type(self.root).__name__

    def layout(self, call: Call | None = None) -> TokenLayout | None:
        """Return the layout for ``call``, or for the model's usual input; None where it is unknown."""
        return None

    def width(self) -> int | None:
        """Return the number of features of a state where the model says it."""
        return None

    def final_norm(self) -> str | None:
        """Return the dotted name of the norm after the last block, or None."""
        return None

    def preprocessing(self) -> dict[str, Any] | None:
        """Return how the model's images are to be prepared, where the model says it."""
        return None

    def recipe(self) -> dict[str, Any] | None:
        """Return what :func:`depthflow.models.rebuild.build` makes a model of the root's architecture from.

        It names a library and what its constructor is given, all of it fit for JSON, and holds no weights. It is read
        from what the model says of itself, so only a comparison with the model built from it shows whether it is
        complete. None where the family has none, or where the part that it knows is not the root: nobody can rebuild
        a user's own module around it.
        """
        return None

    def replayable(self) -> AbstractContextManager[None]:
        """Return a context in which calling a block changes nothing that its next call depends on."""
        return nullcontext()

    def attention_written_out(self) -> AbstractContextManager[None]:
        """Return a context in which attention is made of operations that can be differentiated twice.

        PyTorch's own fused attention is seen to by the caller.
        """
        return nullcontext()

    def dotted(self, name: str) -> str:
        """Return the name inside ``root`` of the part's submodule ``name``."""
        return plain(f"{self.prefix}.{name}" if self.prefix else name)

    def first_norm(self, names: Iterable[str]) -> str | None:
        """Return the dotted name of the first of the part's submodules ``names`` that is there and does anything."""
        known = {plain(name): module for name, module in self.part.named_modules()}
        found = (name for name in names if name in known and not isinstance(known[name], nn.Identity))
        return next(map(self.dotted, found), None)


@dataclass(frozen=True)
class ModelInfo:
    """What :func:`depthflow.inspect` found; ``print`` it for a table.

    Attributes
    ----------
    model : str
        The model's name.
    family : str
        The library and class that it was recognised as.
    blocks : tuple of str
        Dotted names of the blocks in the order of depth; block ℓ is ``blocks[ℓ - 1]``.
    layout : TokenLayout or None
        The type of each token and the patches' grid; None where it depends on the input or is unknown.
    width : int or None
        Features of a state.
    final_norm : str or None
        Dotted name of the norm after the last block. States are recorded before it.
    supported : bool
        Whether ``record`` takes the model; if not, ``reason`` says why and ``remedy`` what to do.
    observed : bool
        Whether a forward pass has confirmed blocks, layout and width.
    """

    model: str
    family: str
    blocks: tuple[str, ...] = ()
    layout: TokenLayout | None = None
    width: int | None = None
    final_norm: str | None = None
    supported: bool = True
    reason: str | None = None
    remedy: str | None = None
    observed: bool = False

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches, where they are known."""
        return self.layout.grid if self.layout else None

    def __str__(self) -> str:
        rows = [("model", self.model), ("family", self.family)]
        if self.supported:
            first, last = self.blocks[0], self.blocks[-1]
            rows += [
                (
                    "blocks",
                    f"{len(self.blocks)}: {first} … {last}" if first != last else f"{len(self.blocks)}: {first}",
                ),
                ("depths", f"0 … {len(self.blocks)} (0 is the input of block 1)"),
                ("tokens", str(self.layout) if self.layout else "known once inputs are given"),
                ("features", str(self.width) if self.width else "known once inputs are given"),
                ("final norm", f"{self.final_norm or 'none found'} (not applied to recorded states)"),
                ("checked by", "a forward pass" if self.observed else "the model's structure alone"),
            ]
        else:
            rows += [("supported", "no"), ("why", self.reason or ""), ("what to do", self.remedy or "")]
        margin = max(len(key) for key, _ in rows)
        return "\n".join(f"{key:<{margin}}  {value}" for key, value in rows)
