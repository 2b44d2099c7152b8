"""What every model of a registry is held to: recorded right by several paths, or refused for a true reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import depthflow
from depthflow.errors import UnsupportedModelError
from depthflow.models.base import ModelInfo, TokenLayout
from tests.registries.poke import misplaced
from tests.registries.survey import Step, Survey, call, chains, is_norm, watch
from tests.snapshot import Snapshot
from tests.tolerances import FLOAT32

RECORDED, REFUSED, FAILED, NOT_BUILT = "recorded", "refused", "failed", "not built"

HOOKS = "plain hooks"
CHAIN = "one stream"
OWN_STATES = "the library's own states"
NORM = "final norm"
TOKENS = "the model's own count of tokens"
GRID = "the library's own rows and columns"
PLACES = "patches that answer to their place in the image"
SHAPES = "observed shapes"


@dataclass(frozen=True)
class Reference:
    """What the library itself says of a model, by a path that is not depthflow's.

    ``states`` maps a depth to (sample, token, feature); ``types`` and ``grid`` are what the model's own attributes and
    outputs say of the tokens inside its blocks, None where they say nothing.
    """

    states: Mapping[int, Tensor] = field(default_factory=dict)
    depth: int | None = None
    isotropic: bool | None = None
    types: tuple[str, ...] | None = None
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class Candidate:
    """A model of a registry: how to build it, what to call it with, and what the library itself gives."""

    library: str
    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[nn.Module], Any]
    reference: Callable[[nn.Module, Any], Reference | None]
    remedy: Callable[[nn.Module, Any, UnsupportedModelError], str | None] | None = None
    """Follows a refusal's advice, and returns what is wrong with it, None where it works."""


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate: ``checked_by`` are the paths that confirmed it, ``seconds`` the processor's."""

    library: str
    name: str
    family: str
    outcome: str
    reason: str | None = None
    blocks: int | None = None
    tokens: str | None = None
    width: int | None = None
    checked_by: tuple[str, ...] = ()
    seconds: float = 0.0


def judge(candidate: Candidate) -> Outcome:
    """Return what became of ``candidate``."""
    start = time.process_time()
    found = _judged(candidate)
    who = {"library": candidate.library, "name": candidate.name, "family": candidate.family}
    return Outcome(**who, **found, seconds=round(time.process_time() - start, 2))


def _judged(candidate: Candidate) -> dict[str, Any]:
    try:
        torch.manual_seed(0)
        model = candidate.build().eval()
        inputs = candidate.inputs(model)
        unseen = depthflow.inspect(model)
        before = outputs(shaken(model), inputs) if unseen.supported else []
    except Exception as error:
        return {"outcome": NOT_BUILT, "reason": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    try:
        return _recorded(candidate, model, inputs, before, unseen)
    except UnsupportedModelError as refusal:
        return _refused(candidate, model, inputs, refusal)
    except Exception as error:
        return {"outcome": FAILED, "reason": f"{type(error).__name__}: {error}"[:500]}


def shaken(model: nn.Module) -> nn.Module:
    """Return the model with noise on its parameters: tokens and scales that start at zero would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and not parameter.is_meta:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Return every tensor that the model returns."""
    torch.manual_seed(1)
    with torch.no_grad():
        return tensors(call(model, inputs))


def tensors(value: Any) -> list[Tensor]:
    """Return every tensor in a nest of containers."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for part in value for tensor in tensors(part)] if isinstance(value, list | tuple) else []


def require(truth: bool, fault: str) -> None:
    """Raise an error that says ``fault`` unless ``truth``."""
    if not truth:
        raise AssertionError(fault)


def _recorded(
    candidate: Candidate, model: nn.Module, inputs: Any, before: list[Tensor], unseen: ModelInfo
) -> dict[str, Any]:
    snapshot = Snapshot(model) if unseen.supported else None
    torch.manual_seed(1)
    traj = depthflow.record(model, inputs, progress=False)
    torch.manual_seed(1)
    info = depthflow.inspect(model, inputs)
    require(snapshot is not None, "inspect refuses what record takes")
    snapshot.require(model)
    after = outputs(model, inputs)
    require(len(before) == len(after), "the model returns another number of tensors after the recording")
    for one, other in zip(before, after, strict=True):
        require(torch.equal(one.nan_to_num(), other.nan_to_num()), "the model's output is another after the recording")

    states = traj.transpose("sample", "depth", "token", "feature").values
    names = list(traj.attrs["modules"])
    require(list(info.blocks) == names, f"inspect names {info.blocks}, the recording {names}")
    require(info.layout is not None and info.layout.types == tuple(traj.token_type.values), "layouts differ")
    require(info.width == states.shape[3], f"inspect says {info.width} features, recorded {states.shape[3]}")
    require(unseen.width in (None, info.width), f"unseen width {unseen.width}, seen {info.width}")

    seen = watch(model, inputs)
    checked = [HOOKS, CHAIN]
    require_states(seen.steps(set(names)), names, states)
    if _require_norm(seen, info.final_norm, set(names), states):
        checked.append(NORM)
    if _require_places(model, inputs, names[0], info.layout):
        checked.append(PLACES)
    reference = candidate.reference(model, inputs)
    if reference is not None:
        checked += _require_reference(reference, info.layout, states)
    return {
        "outcome": RECORDED,
        "blocks": len(names),
        "tokens": str(info.layout),
        "width": info.width,
        "checked_by": tuple(checked),
    }


def require_states(steps: list[Step], names: list[str], states: np.ndarray) -> None:
    """Require that the blocks ran in this order, one on what the one before returned, with the states recorded."""
    ran = [step.name for step in steps]
    require(ran == names, f"the blocks ran as {ran}, recorded as {names}")
    np.testing.assert_array_equal(states[:, 0], steps[0].given, err_msg="depth 0 is not what block 1 is given")
    for depth, step in enumerate(steps, start=1):
        np.testing.assert_array_equal(states[:, depth], step.returned, err_msg=f"depth {depth} is not {step.name}'s")
        np.testing.assert_array_equal(
            states[:, depth - 1], step.given, err_msg=f"{step.name} is not given depth {depth - 1}: no one stream"
        )
        require(not np.array_equal(states[:, depth], states[:, depth - 1]), f"{step.name} moves no state")


def _require_norm(seen: Survey, named: str | None, blocks: set[str], states: np.ndarray) -> bool:
    """Require that the final norm named is given the last state, or what is pooled of it; and that none is left out."""
    last = torch.from_numpy(states[:, -1])
    end = max(step.order for step in seen.all if step.name in blocks)
    after = [step for step in seen.all if step.order > end and is_norm(step.name, step.kind)]
    whole = [step.name for step in after if _is(step.given, last) and "attn" not in step.name]
    # Where several heads each have a norm of their own, none of them is the model's.
    require(len(set(whole)) != 1 or named is not None, f"{whole} norms the last state, but no final norm is named")
    if named is None:
        return False
    given = [step.given.float() for step in after if step.name == named]
    require(bool(given), f"the final norm {named} does not run after the blocks")
    require(not whole or named in whole, f"{named} is named as final norm; the last state is given to {whole}")
    return any(_part_of(last, state) for state in given)


def _require_places(model: nn.Module, inputs: Any, block: str, layout: Any) -> bool:
    """Require that each patch answers to its place in the image, where it has one and there is an image."""
    named = inputs if isinstance(inputs, Mapping) else {None: inputs}
    images = {name: value for name, value in named.items() if isinstance(value, Tensor) and value.ndim == 4}
    if layout.grid is None or len(images) != 1 or len(named) != 1:
        return False
    ((name, image),) = images.items()
    fault = misplaced(model, image, block, layout, name)
    require(fault is None, fault or "")
    return True


def _is(given: Tensor, last: Tensor) -> bool:
    """Return whether ``given`` is the last state, perhaps laid out as a map (sample, row, column, feature)."""
    same = given.numel() == last.numel() and given.shape[-1] == last.shape[-1]
    return same and torch.equal(given.float().reshape(last.shape), last)


def _part_of(last: Tensor, given: Tensor) -> bool:
    """Return whether ``given`` is the last state, some of its tokens, or their mean."""
    if _is(given, last):
        return True
    if given.ndim == 3 and given.shape[2] == last.shape[2]:
        more = given.shape[1] - last.shape[1]
        return torch.equal(given[:, max(more, 0) :], last[:, max(-more, 0) :])
    if given.shape != last[:, 0].shape:
        return False
    pooled = (last[:, start:].mean(dim=1) for start in range(min(16, last.shape[1])))
    singles = (last[:, token] for token in range(min(16, last.shape[1])))
    return any(torch.allclose(given, one, **_close()) for one in (*pooled, *singles, last[:, -1]))


def _close() -> dict[str, float]:
    return {"rtol": FLOAT32["rtol"], "atol": FLOAT32["atol"]}


def _require_reference(reference: Reference, layout: Any, states: np.ndarray) -> list[str]:
    checked = []
    depth = states.shape[1] - 1
    require(reference.isotropic is not False, "recorded, though the library's own states change shape with depth")
    require(reference.depth in (None, depth), f"the library has {reference.depth} blocks, recorded {depth}")
    for place, state in sorted(reference.states.items()):
        got, wanted = states[:, place], state.detach().float().numpy()
        require(got.shape == wanted.shape, f"depth {place}: {got.shape}, the library gives {wanted.shape}")
        np.testing.assert_allclose(got, wanted, **FLOAT32, err_msg=f"depth {place} is not the library's")
        checked = [OWN_STATES]
    if reference.types is not None:
        require(layout.types == reference.types, f"types {layout}; the library's own: {runs(reference.types)}")
        checked.append(TOKENS)
    if reference.grid is not None:
        require(layout.grid == reference.grid, f"grid {layout.grid}; the library's own {reference.grid}")
        checked.append(GRID)
    return checked


def runs(types: tuple[str, ...]) -> str:
    """Return types of tokens as text."""
    return str(TokenLayout(types))


def _refused(candidate: Candidate, model: nn.Module, inputs: Any, refusal: UnsupportedModelError) -> dict[str, Any]:
    try:
        doubt = _doubt(refusal, lambda: candidate.reference(model, inputs), watch(model, inputs))
        if doubt is None and candidate.remedy is not None:
            doubt = candidate.remedy(model, inputs, refusal)
        doubt = doubt or ("it offers no remedy" if not refusal.remedy else None)
    except Exception as error:
        doubt = f"its reason could not be checked: {type(error).__name__}: {error}"[:300]
    if doubt is not None:
        return {"outcome": FAILED, "reason": f"refused ({refusal.reason}), but {doubt}"}
    return {"outcome": REFUSED, "reason": refusal.reason, "checked_by": (SHAPES,)}


STACK_SHARE = 0.5
"""A chain of alike modules that holds more of the parameters than this is what the model is."""


def _doubt(refusal: UnsupportedModelError, own: Callable[[], Reference | None], seen: Survey) -> str | None:
    """Return why the reason of a refusal is not true of the model, None if it is; ``own`` gives the library's word."""
    found = chains(seen)
    shapes = {chain.shape for chain in found}
    reason = refusal.reason
    if "two streams" in reason:
        return None if any(step.streams > 1 for step in seen.all) else "no module takes and returns two states"
    if "hierarchical" in reason or "one token less" in reason:
        if len(shapes) > 1 or _isotropic(own()) is False:
            return None
        return f"no change of its states' shape was seen: {sorted(shapes)}"
    if "axes" in reason:
        return None if any(len(shape) != 2 for shape in shapes) else f"its states have the shapes {sorted(shapes)}"
    if _isotropic(own()):
        return "the library itself gives states of one shape"
    whole = [chain for chain in found if len(chain.shape) == 2 and chain.share > STACK_SHARE]
    if "keeps no list" in reason or "has no list" in reason:
        return f"{whole[0].parent} is a stack of {whole[0].length} alike modules" if whole else None
    return None


def _isotropic(reference: Reference | None) -> bool | None:
    return None if reference is None else reference.isotropic
