"""Plan a surrogate: see what a teacher's blocks are like, and whether others can stand in for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from depthflow.errors import SurrogateError
from depthflow.recording.arguments import HERE
from depthflow.schema import CLS, PATCH, REGISTER
from depthflow.surrogate.anatomy import is_causal, n_heads, writers
from depthflow.surrogate.blocks import attention_mask
from depthflow.surrogate.partition import medoids
from depthflow.surrogate.recurrent import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from depthflow.recording.replay import Replay
    from depthflow.surrogate.settings import SurrogateSettings


def plan(
    replay: Replay,
    similarity: np.ndarray,
    phases: tuple[int, ...],
    token_types: Sequence[str],
    settings: SurrogateSettings,
) -> Plan:
    """Return the plan of a surrogate with these ``phases``.

    Raises
    ------
    SurrogateError
        If the model applies one block at several depths already; or if new blocks cannot stand in for its own, as
        these are given more than a state and a mask, or return more than a state.
    """
    steps = [made.module for made in replay.calls]
    modules = {id(step.block if isinstance(step, Step) else step) for step in steps}
    if len(modules) < replay.n_blocks or isinstance(steps[0], Step):
        raise SurrogateError(
            f"this model applies {len(modules)} blocks at {replay.n_blocks} depths: it is recurrent already. Fit a "
            "model whose blocks have weights of their own."
        )
    for made in replay.calls:
        if not any(parameter.is_floating_point() for parameter in made.module.parameters()):
            raise SurrogateError(
                f"the block {made.name!r} has no weights to be trained. Pass blocks=[…] with modules that have."
            )
    typical = medoids(similarity, phases)
    width = replay.states[0].shape[-1]
    names = tuple(made.name for made in replay.calls)
    if settings.init == "fresh":
        fresh = _fresh(replay, token_types, settings)
        return Plan(names, phases, typical, width, settings.depth_scale, fresh=fresh)
    found = tuple(tuple(writers(replay, number)) if settings.depth_scale else () for number in typical)
    return Plan(names, phases, typical, width, settings.depth_scale, writers=found)


def _fresh(replay: Replay, token_types: Sequence[str], settings: SurrogateSettings) -> dict[str, Any]:
    """Return the arguments of new blocks that can stand in for the teacher's."""
    width, tokens = replay.states[0].shape[-1], replay.states[0].shape[1]
    remedy = "Use init='teacher', which copies its blocks."
    for made in replay.calls:
        leaves = made.arguments.leaves()
        mask = attention_mask(leaves, tokens)
        for name, leaf in leaves.items():
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf is not mask:
                raise SurrogateError(
                    f"the block {made.name!r} is given {name!r} of shape {tuple(leaf.shape)} beside the state, such as "
                    f"rotary positions, of which a fresh block knows nothing. {remedy}"
                )
        rest = list(made.output[1:]) if isinstance(made.output, tuple | list) else []
        if any(isinstance(part, Tensor) for part in rest):
            raise SurrogateError(f"the block {made.name!r} returns more than the state. {remedy}")
    heads = settings.heads or n_heads(replay.calls[0].module, width)
    if width % heads:
        raise SurrogateError(
            f"states of {width} features cannot be shared among {heads} heads. Pass heads= to divide it."
        )
    images = {CLS, PATCH, REGISTER} & set(token_types)
    output = replay.calls[0].output
    return {
        "heads": heads,
        "mlp": settings.mlp,
        "mlp_ratio": settings.mlp_ratio,
        "layer_scale": settings.layer_scale,
        "causal": not images and all(is_causal(replay, number) for number in range(1, replay.n_blocks + 1)),
        "returns": "Tensor" if output is HERE else type(output).__name__,
        "others": len(output) - 1 if isinstance(output, tuple | list) else 0,
    }
