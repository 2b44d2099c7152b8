"""Read class logits from what a model returns, and compare them with labels."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from depthflow.errors import ParameterError, RecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from depthflow.recording.replay import Replay

SHARE_OF_LOGITS = 1e-4
"""How far, in norm, logits read from the model's own states may be from the model's own."""

REMEDY = (
    "Give the model with its classifier, or head=, a callable that makes logits (sample, class) of what the model "
    "returns; or leave labels out."
)


class Classifier:
    """A model's classification of its samples, where it classifies at all.

    Parameters
    ----------
    what : str
        The caller, which opens the messages.
    head : callable, optional
        From what the model returns to logits (sample, class).
    labels : numpy.ndarray, optional
        The labels that the caller was given; with them or a ``head``, a model that does not classify is an error.
    """

    def __init__(self, what: str, head: Callable[[Any], Any] | None, labels: np.ndarray | None) -> None:
        self._what, self._head, self._given = what, head, labels
        self._found: bool | None = None

    def targets(self, replay: Replay, labels: np.ndarray | None) -> Tensor | None:
        """Return the class of each sample of a batch; None where it has none or the model does not classify.

        Raises
        ------
        ParameterError
            If labels or a head were given and there are no logits or no labels; or a label is no class of the model.
        RecordError
            If the logits depend on more than the states of the blocks.
        """
        if labels is None:
            if self._head is not None:
                raise ParameterError(f"{self._what} was given head=, but no labels to compare with. Pass labels=.")
            return None
        if self._found is None:
            self._found = self._classifies(replay, labels)
        if not self._found:
            return None
        logits = self.logits(replay.output, replay.batch.size)
        self._require_classes(labels, logits.shape[1])
        return torch.as_tensor(labels.astype(np.int64), device=logits.device)

    def right(self, output: Any, targets: Tensor, where: str) -> np.ndarray:
        """Return which samples the model's ``output`` classifies as their ``targets``; ``where`` it is from."""
        logits = self.logits(output, len(targets))
        if torch.isnan(logits).any():
            raise RecordError(
                f"{self._what} found logits that are NaN, {where}. In half precision large states overflow: give it "
                "`copy.deepcopy(model).float()`; else mend the model's weights."
            )
        right: np.ndarray = (logits.argmax(dim=1) == targets).cpu().numpy()
        return right

    def _classifies(self, replay: Replay, labels: np.ndarray) -> bool:
        """Return whether there are logits, on the first batch; raise if there are none where there must be."""
        demanded = self._given is not None or self._head is not None
        if labels.dtype.kind not in "iu":
            if demanded:
                raise ParameterError(
                    f"{self._what} needs labels as integers, the number of the model's output for each class; got "
                    f"dtype {labels.dtype}. Map the names to numbers in the order of the model's classes."
                )
            return False
        fault = self.fault(replay)
        if fault is not None and demanded:
            raise ParameterError(f"{self._what} got labels without a head: {fault} {REMEDY}")
        if fault is None and self._given is not None:
            self._require_classes(self._given, self.logits(replay.output, replay.batch.size).shape[1])
        return fault is None

    def fault(self, replay: Replay) -> str | None:
        """Return why the model's output gives no logits, if it gives none."""
        logits, size = self._read(replay.output), replay.batch.size
        kind = type(replay.adapter.root).__name__
        if not _is_logits(logits, size):
            source = f"{kind} gives" if self._head is None else "head= gives"
            return f"{source} {_shape(logits)} for {size} samples."
        features = replay.states[-1].shape[-1]
        with _linear_after_blocks(replay, logits.shape[1]) as linear:
            again = self._read(replay.readout(replay.states[1:]))
        if self._head is None and isinstance(replay.output, Tensor) and _is_features(replay, logits, features, linear):
            return f"{kind} gives {_shape(logits)}, which reads as features, for no layer makes classes of its states."
        if not _is_logits(again, size) or (again - logits).norm() > SHARE_OF_LOGITS * logits.norm():
            raise RecordError(
                f"{self._what} reads logits from the states of the blocks, but {kind} returns others when its blocks "
                "return the states that they had: it reads more than these. Leave labels out, or pass blocks=[…] with "
                "modules that return all that the head reads."
            )
        return None

    def _read(self, output: Any) -> Any:
        if self._head is not None:
            return self._head(output)
        return output if isinstance(output, Tensor) else getattr(output, "logits", None)

    def logits(self, output: Any, size: int) -> Tensor:
        """Return the logits (sample, class) in what the model returned for ``size`` samples, or raise."""
        logits = self._read(output)
        if not isinstance(logits, Tensor) or not _is_logits(logits, size):
            raise RecordError(f"{self._what} got {_shape(logits)} in place of logits ({size}, class) in a later call.")
        return logits

    def _require_classes(self, labels: np.ndarray, classes: int) -> None:
        strange = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(strange):
            raise ParameterError(
                f"{self._what} needs labels from 0 to {classes - 1}, one for each of the model's {classes} classes; "
                f"got {labels[strange[0]]} ({len(strange)} such). Give the numbers of the model's own classes, or "
                "inputs without labels."
            )


def _is_logits(value: Any, size: int) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and len(value) == size and value.is_floating_point()


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return "no logits" if value is None else f"a {type(value).__name__}"


def _is_features(replay: Replay, logits: Tensor, features: int, linear: list[None]) -> bool:
    """Return whether an output of the right shape is the pooled states rather than logits."""
    part = replay.adapter.part
    headless = getattr(part, "num_classes", None) == 0 or isinstance(getattr(part, "head", None), nn.Identity)
    if logits.shape[1] == features:
        return headless or not linear
    return getattr(part, "num_classes", None) == 0 and part is replay.adapter.root


@contextmanager
def _linear_after_blocks(replay: Replay, width: int) -> Iterator[list[None]]:
    """Give a list with an entry for each linear layer of ``width`` outputs that ran after the last block."""
    ran: list[None] = []

    def forget(*_: Any) -> None:
        ran.clear()

    def note(*_: Any) -> None:
        ran.append(None)

    blocks = {id(made.module) for made in replay.calls}
    with ExitStack() as stack:
        for module in replay.adapter.root.modules():
            if id(module) in blocks:
                stack.enter_context(module.register_forward_hook(forget))
            elif isinstance(module, nn.Linear) and module.out_features == width:
                stack.enter_context(module.register_forward_hook(note))
        yield ran
