"""A span of blocks as a linear map near the states that a model passes through."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from depthflow.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from depthflow.models.base import Adapter
    from depthflow.recording.replay import Replay

STATE_ELEMENTS = 2**20
"""Numbers in the states that are differentiated at once where whole rows of a Jacobian are wanted: some 100 MB."""


STEP, UNSEEN = 1e-3, 0.01
"""Relative change of a state at which gradients are tested, and the share of the change that they may be off by."""


@contextmanager
def differentiable(adapter: Adapter) -> Iterator[None]:
    """Let the blocks be differentiated twice, with respect to their states alone; undo it whatever happens.

    Fused attention can be differentiated once only; attention written out differs from it by rounding.
    """
    parameters = [(parameter, parameter.requires_grad) for parameter in adapter.root.parameters()]
    if any(parameter.is_inference() for parameter, _ in parameters):
        raise RecordError(
            "no gradient passes through weights made in torch.inference_mode. Give `copy.deepcopy(model)`, made "
            "outside of it."
        )
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for parameter, _ in parameters:
            parameter.requires_grad_(False)
        with adapter.attention_written_out(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for parameter, required in parameters:
            parameter.requires_grad_(required)


def sparing_inputs(replay: Replay) -> AbstractContextManager[object]:
    """Return a context in which blocks that write over their input can be differentiated.

    They overwrite what their gradient needs, so that is copied when it is saved. PyTorch's own context for this,
    ``allow_mutation_on_saved_tensors``, takes fresh tensors for freed ones at the same address: its gradients are wrong
    now and then.
    """
    if not replay.in_place:
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved)


def require_differentiable(replay: Replay, start: int, stop: int) -> None:
    """Raise unless each block from depth ``start`` to ``stop`` changes by what autograd says, when its input does.

    Along one direction v, by the central difference d of its output: vᵀJᵀd must be dᵀd. The skip connection alone
    would leave a gradient where autograd does not see the rest.
    """
    for number in range(start + 1, stop + 1):
        state = replay.states[number - 1]
        tokens = torch.arange(state.shape[1], device=state.device)
        along = state.flip(2).flip(0)
        ahead, behind = (replay.block(number, state + step * along) for step in (STEP, -STEP))
        change = ((ahead - behind) / (2 * STEP)).flatten(1)
        linear = Linearization(replay, number - 1, number, tokens, directional=False)
        seen = (along.flatten(1) * linear.transposed(change)).sum(dim=1).double()
        size = change.double().norm(dim=1)
        rounding = torch.finfo(state.dtype).eps / STEP * replay.states[number].double().flatten(1).norm(dim=1)
        wrong = (seen - size**2).abs() > (UNSEEN * size + rounding) * size
        if bool(wrong.any()):
            off = float((seen / size**2 - 1).abs().nan_to_num().max())
            raise RecordError(
                f"jacobian: autograd does not see all that {replay.calls[number - 1].name!r} does: a small change of "
                f"its input changes its output by {off:.0%} other than the gradient says. Are parts of it detached, "
                "under no_grad, or quantised? Give the model as it was trained."
            )


class Tangent:
    """The directions of some tokens' states, and the change of a state that turns them by a radian."""

    def __init__(self, states: Tensor) -> None:
        self.norm = states.norm(dim=2, keepdim=True)
        self.unit = states / self.norm

    def to(self, dtype: torch.dtype) -> Tangent:
        """Return the same in another precision, its directions of unit norm in that."""
        return Tangent((self.norm * self.unit).to(dtype))

    def project(self, vectors: Tensor) -> Tensor:
        """Return (sample, token, feature) less the part along each token's own state."""
        along = (vectors * self.unit).sum(dim=2, keepdim=True)
        projected: Tensor = vectors - along * self.unit
        return projected


class Linearization:
    """The Jacobian of the chosen tokens' states at depth ``stop`` by theirs at ``start``, sample by sample.

    Vectors are flat: (sample, token · feature).

    Parameters
    ----------
    replay : Replay
        Of a model made differentiable.
    start, stop : int
        Depths.
    tokens : torch.Tensor
        Positions of the tokens.
    directional : bool
        Whether in radians of direction, in and out, instead of in states.
    """

    def __init__(self, replay: Replay, start: int, stop: int, tokens: Tensor, *, directional: bool) -> None:
        self.replay, self.start, self.stop, self.tokens = replay, start, stop, tokens
        before, after = (replay.states[depth][:, tokens] for depth in (start, stop))
        for depth, states in ((start, before), (stop, after)) if directional else ():
            self._require_directions(depth, states)
        self.shape = before.shape
        self.tangents = (Tangent(before), Tangent(after)) if directional else None
        self.dim = self.shape[1] * (self.shape[2] - directional)
        """Of the domain: a direction has one less than a state."""
        self._graph: tuple[Tensor, Tensor] | None = None
        self._backward: tuple[Tensor, Tensor] | None = None

    def _require_directions(self, depth: int, states: Tensor) -> None:
        """Raise unless every state has a direction."""
        none = torch.nonzero(states.norm(dim=2) == 0)
        if len(none):
            sample, place = none[0].tolist()
            raise RecordError(
                f"jacobian found a zero-norm state, which has no direction, first at depth {depth}, sample {sample} of "
                f"its batch, token {int(self.tokens[place])}. Remove such samples, or pass directional=False."
            )

    def product(self, vectors: Tensor) -> Tensor:
        """Return J v, by differentiating Jᵀu, which is linear in u, by u."""
        cotangent, pulled = self._again()
        return self._out_of(self._gradient(pulled, cotangent, self._into(vectors)))

    def transposed(self, vectors: Tensor) -> Tensor:
        """Return Jᵀ u."""
        state, image = self._alone()
        cotangent = vectors.reshape(self.shape)
        if self.tangents is not None:
            cotangent = self.tangents[1].project(cotangent) / self.tangents[1].norm
        pulled = self._gradient(image, state, cotangent)
        return self.domain(pulled.flatten(1) if self.tangents is None else (pulled * self.tangents[0].norm).flatten(1))

    def domain(self, vectors: Tensor) -> Tensor:
        """Return the part of (sample, token · feature) that the map can act on."""
        return vectors if self.tangents is None else self._tangent(vectors, self.tangents[0])

    def range(self, vectors: Tensor) -> Tensor:
        """Return the part of (sample, token · feature) that the map can give."""
        return vectors if self.tangents is None else self._tangent(vectors, self.tangents[1])

    def _tangent(self, vectors: Tensor, tangent: Tangent) -> Tensor:
        return tangent.project(vectors.reshape(self.shape)).flatten(1)

    def dense(self) -> Tensor:
        """Return J of the states (sample, token · feature, token · feature), whatever ``directional``."""
        samples, count, features = self.shape
        size = count * features
        copies = max(1, min(size, STATE_ELEMENTS // self.replay.states[0].numel()))
        state, image = self._once(copies)
        rows = []
        for first in range(0, size, copies):
            cotangent = torch.zeros(copies, samples, size, dtype=image.dtype, device=image.device)
            here = torch.arange(first, min(first + copies, size), device=image.device)
            cotangent[here - first, :, here] = 1
            pulled = self._gradient(image, state, cotangent.reshape(image.shape))
            rows.append(pulled.reshape(copies, samples, size)[: len(here)])
        return torch.cat(rows).transpose(0, 1)

    def of_directions(self, dense: Tensor) -> Tensor:
        """Return from a dense J the dense map of directions, in the precision of J."""
        if self.tangents is None:
            return dense
        before, after = (tangent.to(dense.dtype) for tangent in self.tangents)
        samples, count, features = self.shape
        rows: Tensor = dense.reshape(samples, count, features, -1)
        along = torch.einsum("stf,stfc->stc", after.unit, rows)
        rows = (rows - after.unit[..., None] * along[:, :, None]) / after.norm[..., None]
        columns: Tensor = rows.reshape(samples, -1, count, features)
        along = torch.einsum("srtf,stf->srt", columns, before.unit)
        columns = (columns - along[..., None] * before.unit[:, None]) * before.norm[:, None]
        return columns.reshape(samples, count * features, count * features)

    def _into(self, vectors: Tensor) -> Tensor:
        if self.tangents is None:
            return vectors.reshape(self.shape)
        turned: Tensor = self.tangents[0].project(vectors.reshape(self.shape)) * self.tangents[0].norm
        return turned

    def _out_of(self, image: Tensor) -> Tensor:
        if self.tangents is None:
            return image.flatten(1)
        turned: Tensor = self.tangents[1].project(image) / self.tangents[1].norm
        return turned.flatten(1)

    def _gradient(self, end: Tensor, start: Tensor, along: Tensor, *, create_graph: bool = False) -> Tensor:
        try:
            return torch.autograd.grad(end, start, along, retain_graph=True, create_graph=create_graph)[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RecordError(
                f"jacobian cannot differentiate blocks {self.start + 1} to {self.stop}: {str(error).splitlines()[0]} "
                "Where a block can be differentiated only once, pass dense=True."
            ) from error

    def _once(self, copies: int = 1) -> tuple[Tensor, Tensor]:
        """Return the chosen tokens' states at ``start``, and at ``stop`` as a function of these."""
        states = self.replay.states[self.start].repeat(copies, 1, 1)
        with torch.enable_grad():
            state = states[:, self.tokens].requires_grad_()
            whole = states.index_copy(1, self.tokens, state)
            image = self.replay.span(self.start, self.stop, whole)[:, self.tokens]
        if not image.requires_grad:
            raise RecordError(
                f"jacobian cannot differentiate blocks {self.start + 1} to {self.stop}: what they return does not "
                "follow their input by autograd. Are they run under no_grad, exported, or quantised?"
            )
        return state, image

    def _alone(self) -> tuple[Tensor, Tensor]:
        """Return state and image of the batch by itself, the same at every call."""
        if self._graph is None:
            self._graph = self._once()
        return self._graph

    def _again(self) -> tuple[Tensor, Tensor]:
        """Return a cotangent, and its pull-back as a function of it, the same at every call."""
        if self._backward is None:
            state, image = self._alone()
            with torch.enable_grad():
                cotangent = torch.zeros_like(image, requires_grad=True)
                pulled = self._gradient(image, state, cotangent, create_graph=True)
            self._backward = cotangent, pulled
        return self._backward
