"""Take the states of a batch off the model's device and into a sink, and check them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from depthflow.errors import ParameterError, RecordError
from depthflow.recording.tokens import Kept, choose, require_same, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from depthflow.models.base import Adapter, Call, TokenLayout
    from depthflow.recording.sinks import Sink
    from depthflow.trajectories import Tokens

FLOAT16_MAX = 65504


class Capture:
    """Keeps the chosen tokens and depths of each batch in ``sink``, as ``dtype``."""

    def __init__(
        self, adapter: Adapter, sink: Sink[Any], tokens: Tokens, depths: Sequence[int] | None, dtype: torch.dtype
    ) -> None:
        self.adapter, self.sink, self.tokens, self.dtype = adapter, sink, tokens, dtype
        self._kept: Kept | None = None
        self.position = 0
        """Number of the batch's first sample."""
        self._given = depths
        self._first: Kept | None = None
        self._blocks = len(adapter.blocks)
        self._slots: dict[int, int] = {}
        self._shape: tuple[int, int, int] | None = None
        self._sums: list[Tensor] = []
        self._landed: list[tuple[int, torch.device]] = []
        self._staging: Tensor | None = None

    @property
    def kept(self) -> Kept:
        """The tokens kept, known from the first batch on."""
        if self._kept is None:
            raise RecordError("no state has been recorded yet.")
        return self._kept

    @property
    def depths(self) -> list[int]:
        """The depths kept, in order."""
        return list(range(self._blocks + 1)) if self._given is None else list(self._given)

    def replan(self, blocks: int) -> bool:
        """Take note that a pass calls ``blocks`` blocks; return whether the batch must run again to be kept whole."""
        beyond = [depth for depth in self.depths if depth > blocks]
        if beyond:
            raise ParameterError(
                f"record was asked for depth {beyond[0]}, but the model has {blocks} blocks: 0 to {blocks}."
            )
        missed = blocks != self._blocks and self._given is None
        self._blocks = blocks
        if missed:
            self._shape = None
        return missed

    def begin(self, call: Call, samples: int) -> None:
        """Expect the states of ``samples`` samples, for which the model is called with ``call``."""
        self._call, self._samples, self._sums, self._landed = call, samples, [], []

    def keep(self, depth: int, state: Tensor) -> None:
        """Copy what is kept of the state; it is not held on to, as the model may change it in place."""
        if depth == 0:
            self._prepare(state)
        slot = self._slots.get(depth)
        if slot is None:
            return
        kept = self.kept.of(state)
        self._sums.append(kept.sum(dtype=torch.float64 if kept.dtype == torch.float64 else torch.float32))
        if state.is_cuda:
            self._landing()[slot, : self._samples].copy_(kept, non_blocking=True)
            self._landed.append((slot, state.device))
        else:
            self._room[:, slot].copy_(kept)

    def end(self, modules: Sequence[str]) -> Tensor:
        """Return the batch's states (sample, depth, token, feature) once they have arrived and are finite."""
        for device in {device for _, device in self._landed}:
            torch.cuda.current_stream(device).synchronize()
        for slot, _ in self._landed:
            self._room[:, slot].copy_(self._landing()[slot, : self._samples])
        sound = all(math.isfinite(float(total)) for total in self._sums)
        if not sound or self.dtype == torch.float16:
            self._require_finite(modules)
        return self._room

    def _prepare(self, state: Tensor) -> None:
        """Settle which tokens are kept on the first batch, require the same of later ones, and get room."""
        layout = settle(self.adapter, self.adapter.layout(self._call), state.shape[1])
        kept = choose(self.tokens, layout)
        if self._first is not None:
            require_same(self._first, kept)
        shape = (len(self.depths), kept.count, state.shape[2])
        if self._shape is None:
            self._first = kept
            self._slots = {depth: slot for slot, depth in enumerate(self.depths)}
            self._shape = shape
            self.sink.open(shape, self.dtype)
        elif shape != self._shape:
            raise RecordError(f"a batch has states of {shape[2]} features; the first had {self._shape[2]}.")
        self._kept = kept
        self._room = self.sink.room(self.position, self._samples)

    def _landing(self) -> Tensor:
        """Return pinned memory (depth, sample, token, feature) to which copies need not be waited for."""
        depths, tokens, features = self._shape or (0, 0, 0)
        if self._staging is None or self._staging.shape[1] < self._samples:
            shape = depths, self._samples, tokens, features
            self._staging = torch.empty(shape, dtype=self.dtype, device="cpu", pin_memory=True)
        return self._staging

    def _require_finite(self, modules: Sequence[str]) -> None:
        states = self._room.numpy()
        bad = np.argwhere(~np.isfinite(states))
        if not len(bad):
            return
        sample, slot, token, _ = bad[0]
        depth = self.depths[slot]
        where = (
            f"sample {self.position + sample}, depth {depth} ({modules[depth - 1] if depth else 'input of block 1'}), "
            f"token {self.kept.token()[token]} ({self.kept.types()[token]})"
        )
        if self.dtype == torch.float16 and all(math.isfinite(float(total)) for total in self._sums):
            raise RecordError(
                f"a state exceeds {FLOAT16_MAX}, the largest float16, first at {where}. Record with dtype='float32'."
            )
        raise RecordError(
            f"a state is {states[tuple(bad[0])]}, first at {where}; {len(bad)} values of this batch are not finite. "
            "Check the input and the model's weights and precision."
        )


def settle(adapter: Adapter, layout: TokenLayout | None, count: int) -> TokenLayout:
    """Return the layout of ``count`` observed tokens: the derived one if it fits.

    Raises
    ------
    RecordError
        If a family's layout, which must hold, does not fit.
    """
    if layout is not None and len(layout.types) == count:
        return layout
    if layout is not None and adapter.layout_must_hold:
        name = adapter.names[0].rpartition(".")[0]
        raise RecordError(
            f"{adapter.family} passes on {count} tokens, but its structure says {len(layout.types)}: {layout}. Which "
            f"token is which is not known; pass blocks={name!r} to record them all as type 'token'."
        )
    return unknown(count)
