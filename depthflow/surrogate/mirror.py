"""Run a surrogate as the model that it is, its states taken by the hooks of a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from depthflow.errors import SurrogateError
from depthflow.models.detect import adapt
from depthflow.recording.hooks import Tape
from depthflow.recording.mode import call

if TYPE_CHECKING:
    from types import TracebackType

    from depthflow.recording.inputs import Batch
    from depthflow.surrogate.recurrent import RecurrentSurrogate


class Mirror:
    """While entered, gives a surrogate's states and what it returns.

    Parameters
    ----------
    surrogate : RecurrentSurrogate
        Run undisturbed.
    home : torch.device or None
        Where it is.
    """

    def __init__(self, surrogate: RecurrentSurrogate, home: torch.device | None) -> None:
        self.adapter, self._home = adapt(surrogate), home
        self._tape = Tape(self.adapter)

    def __enter__(self) -> Mirror:
        self._tape.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tape.__exit__(kind, error, trace)

    def run(self, batch: Batch, position: int) -> tuple[list[Tensor], Any]:
        """Return the states of depths 0 … L of a batch whose first sample is number ``position``, and the output.

        Raises
        ------
        SurrogateError
            If a state is not finite.
        """
        states: list[Tensor] = []
        with self._tape.forward(batch.size, lambda _, state: states.append(state.clone())):
            output = call(self.adapter.root, batch, self._home)
        for depth, state in enumerate(states):
            bad = torch.nonzero(~torch.isfinite(state))
            if len(bad):
                sample, token, _ = bad[0].tolist()
                raise SurrogateError(
                    f"the surrogate's states are not finite, first at depth {depth}, sample {position + sample}, token "
                    f"{token}: its weights, or these inputs, make it overflow. Fit it again with a lower learning_rate."
                )
        return states, output
