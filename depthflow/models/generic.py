"""Any torch module: blocks in an attribute ``blocks``, or wherever the caller says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from depthflow.errors import ParameterError
from depthflow.models.base import Adapter, Call, Refusal, TokenLayout, bare, plain
from depthflow.models.vit import VisionTransformer
from depthflow.schema import CLS, DISTILLATION, REGISTER

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Blocks: TypeAlias = str | nn.Module | Sequence[nn.Module] | None

CONTAINERS = (nn.ModuleList, nn.Sequential)


def flatten(blocks: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Return the blocks with chunks of blocks (lists in the list) opened and ``nn.Identity`` padding left out."""
    flat: list[tuple[str, nn.Module]] = []
    for name, block in blocks:
        chunk = bare(block)
        if isinstance(chunk, nn.ModuleList):
            flat += flatten((f"{name}.{key}", child) for key, child in chunk.named_children())
        elif not isinstance(block, nn.Identity):
            flat.append((name, block))
    return flat


def children(name: str, container: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the blocks that ``container`` holds, by dotted name."""
    name = plain(name)
    return flatten((f"{name}.{key}" if name else key, child) for key, child in container.named_children())


def candidates(model: nn.Module) -> list[str]:
    """Return the dotted names of the lists in ``model`` that could be its blocks: two or more children of one class."""
    found: list[str] = []
    for path, module in model.named_modules():
        name = plain(path)
        inside = [child for _, child in children(name, module)] if isinstance(module, CONTAINERS) else []
        alike = len(inside) > 1 and len({type(child) for child in inside}) == 1
        if (
            alike
            and any(True for _ in inside[0].children())
            and not any(name.startswith(f"{outer}.") for outer in found)
        ):
            found.append(name)
    return found


def remedy(names: Sequence[str]) -> str:
    """Return the advice to pass ``blocks=``, naming lists that could be meant."""
    if not names:
        return "Pass blocks=[…], the list of the modules that each map the residual stream one step on."
    listed = " or ".join(f"blocks={name!r}" for name in names[:4])
    return f"Pass {listed} if these blocks map states to states of the same shape, or blocks=[…] with the modules."


def square(size: object) -> tuple[int, int] | None:
    """Return a size given as one int or as (rows, columns) as a pair."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Sequence) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


class GenericAdapter(Adapter):
    """A module that keeps its blocks in ``blocks``; its layout is derived from the names that vision transformers use.

    What cannot be derived, or does not fit the tokens observed, is of type ``"token"``.
    """

    def __init__(self, root: nn.Module, prefix: str = "") -> None:
        super().__init__(root, prefix)
        self.family = f"torch/{type(self.part).__name__}"
        self.layout_must_hold = False
        holder = bare(getattr(self.part, "blocks", None))
        if isinstance(holder, CONTAINERS):
            self.named_blocks = children(self.dotted("blocks"), holder)
        if not self.named_blocks:
            self.refusal = Refusal(
                f"{type(root).__name__} is of no family that depthflow knows, and has no list of modules called "
                "'blocks', so where its residual stream runs is unknown.",
                remedy(candidates(root)),
            )

    def prefix_tokens(self) -> list[str] | None:
        """Return the types of the tokens before the patches, or None where the module does not say."""
        part = self.part
        cls, registers = getattr(part, "cls_token", None), getattr(part, "register_tokens", None)
        types = [CLS] if isinstance(cls, Tensor) else []
        types += [DISTILLATION] if isinstance(getattr(part, "dist_token", None), Tensor) else []
        types += [REGISTER] * (registers.shape[-2] if isinstance(registers, Tensor) else 0)
        declared = getattr(part, "num_prefix_tokens", None)
        if declared is None:
            return types or None
        return types if declared == len(types) else None

    def layout(self, call: Call | None = None) -> TokenLayout | None:
        """Return prefix and grid from ``cls_token``, ``register_tokens``, ``grid_size`` or ``patch_size``."""
        prefix, grid = self.prefix_tokens(), self.patch_grid(call)
        return TokenLayout.image(prefix, grid) if prefix is not None and grid is not None else None

    def patch_grid(self, call: Call | None) -> tuple[int, int] | None:
        """Return the rows and columns of patches for the images of ``call``, or for the module's own image size."""
        embed = getattr(self.part, "patch_embed", None)
        patch = square(getattr(self.part, "patch_size", None)) or square(getattr(embed, "patch_size", None))
        images = call.images() if call else None
        if patch and images is not None:
            return images.shape[2] // patch[0], images.shape[3] // patch[1]
        return square(getattr(self.part, "grid_size", None)) or square(getattr(embed, "patches_resolution", None))

    def width(self) -> int | None:
        """Return ``embed_dim``, where the module has it."""
        width = getattr(self.part, "embed_dim", None)
        return width if isinstance(width, int) else None

    def final_norm(self) -> str | None:
        """Return ``norm``, where the module has it."""
        return self.first_norm(["norm"])

    def recipe(self) -> dict[str, Any] | None:
        """Return the settings of depthflow's own vision transformer; no other module is known from its root up."""
        if self.prefix or type(self.part) is not VisionTransformer:
            return None
        return {"library": "depthflow", "model": "VisionTransformer", "arguments": asdict(self.part.settings)}


class GivenBlocks(Adapter):
    """Any model with the blocks that the caller names; ``found`` is what depthflow would have seen in it."""

    one_stream = False

    def __init__(self, root: nn.Module, blocks: Blocks, found: Adapter) -> None:
        super().__init__(root)
        self.named_blocks = _given(root, blocks)
        self.found = found
        self.family, self.library = found.family, found.library
        self.layout_must_hold = False
        # The family's layout describes the family's own blocks; another list (a decoder, a text tower) has its own.
        self.same_stream = found.refusal is None and {id(block) for block in self.blocks} <= {
            id(block) for block in found.blocks
        }

    def name(self) -> str:
        """Return what the model calls itself."""
        return self.found.name()

    def layout(self, call: Call | None = None) -> TokenLayout | None:
        """Return the family's layout if the blocks given are among the family's own."""
        return self.found.layout(call) if self.same_stream else None

    def width(self) -> int | None:
        """Return the family's width if the blocks given are among the family's own."""
        return self.found.width() if self.same_stream else None

    def final_norm(self) -> str | None:
        """Return the family's final norm if the blocks given are among the family's own."""
        return self.found.final_norm() if self.same_stream else None

    def preprocessing(self) -> dict[str, object] | None:
        """Return the family's preprocessing."""
        return self.found.preprocessing()

    def recipe(self) -> dict[str, Any] | None:
        """Return the family's recipe: which blocks are looked at changes nothing in the model."""
        return self.found.recipe()

    def replayable(self) -> AbstractContextManager[None]:
        """Return the family's context."""
        return self.found.replayable()

    def attention_written_out(self) -> AbstractContextManager[None]:
        """Return the family's context."""
        return self.found.attention_written_out()


def _given(root: nn.Module, blocks: Blocks) -> list[tuple[str, nn.Module]]:
    if isinstance(blocks, str):
        path = plain(blocks)
        try:
            module = root.get_submodule(path)
        except AttributeError as error:
            raise ParameterError(
                f"blocks={blocks!r} is not in {type(root).__name__}: {error}. {_lists(root)}"
            ) from None
        named = children(path, bare(module)) if isinstance(bare(module), CONTAINERS) else [(path, module)]
    else:
        parts = blocks if isinstance(blocks, Sequence | nn.ModuleList | nn.Sequential) else [blocks]
        names = {id(module): plain(name) for name, module in root.named_modules(remove_duplicate=False)}
        strange = next((part for part in parts if id(part) not in names), None)
        if strange is not None:
            raise ParameterError(
                f"blocks= holds a {type(strange).__name__} that is not a module of this {type(root).__name__}. "
                f"Give modules of the model itself, or a dotted name. {_lists(root)}"
            )
        named = flatten((names[id(part)], part) for part in parts if isinstance(part, nn.Module))
    if not named:
        raise ParameterError(f"blocks= names no blocks in {type(root).__name__}. {_lists(root)}")
    return named


def _lists(root: nn.Module) -> str:
    names = candidates(root)
    return (
        f"Lists of alike modules in it: {', '.join(map(repr, names))}."
        if names
        else "It holds no list of alike modules."
    )
