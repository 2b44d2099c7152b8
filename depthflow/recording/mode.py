"""Run a model for reading only, and leave it exactly as it was found."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from depthflow.errors import DepthflowError, ParameterError, RecordError
from depthflow.models.placement import home, immovable, put_back, require_values, tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from depthflow.models.base import Call
    from depthflow.recording.inputs import Batch


PRECISIONS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What a model computes in; weights may be kept in less."""


@contextmanager
def undisturbed(model: nn.Module, device: str | torch.device | None = None) -> Iterator[torch.device | None]:
    """Run ``model`` in evaluation mode, without gradients, uncompiled, on ``device``; undo all of it, whatever happens.

    Yields the device that inputs belong on, None for a model without parameters.

    Raises
    ------
    ModelError
        If the model has weights without values.
    ParameterError
        If it cannot be moved to ``device``.
    """
    require_values(model)
    # Flags are set one by one: train() and eval() may be overridden to do more, such as merging weights.
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        stack.enter_context(put_back(model))
        here = home(model) if device is None else stack.enter_context(_moved(model, _device(device)))
        stack.enter_context(torch.inference_mode(False))  # the tensors made in it cannot enter a gradient later
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # else nothing can be compiled, and importing it takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.callback(_restore, modes)
        for module, _ in modes:
            module.training = False
        yield here


def prepared(model: nn.Module, batch: Batch, device: torch.device | None) -> Call:
    """Return what ``model`` is called with for ``batch``: on ``device``, in the model's precision.

    Raises
    ------
    RecordError
        If the batch continues a text by its cache, which the call would lengthen.
    """
    if batch.call.kwargs.get("past_key_values") is not None:
        raise RecordError(
            "the inputs hold past_key_values, keys and values of earlier tokens, to which the model would add: states "
            "are recorded of whole texts. Leave it out, and give all tokens as input_ids."
        )
    return batch.to(device, _precision(model))


def call(model: nn.Module, batch: Batch, device: torch.device | None) -> Any:
    """Return what ``model`` makes of ``batch``; an error of its own is raised again with what it was given.

    Raises
    ------
    RecordError
        From the model's error.
    """
    args, kwargs = prepared(model, batch, device)
    try:
        return model(*args, **kwargs)
    except DepthflowError:
        raise
    except torch.OutOfMemoryError as error:
        raise RecordError(
            f"the device ran out of memory on a batch of {batch.size} samples: {error}. Lower batch_size."
        ) from error
    except Exception as error:
        raise RecordError(
            f"{type(model).__name__} failed on a batch of shape {batch.shape()}: {type(error).__name__}: {error}"
        ) from error


def _precision(model: nn.Module) -> torch.dtype | None:
    """Return what inputs are cast to: the precision of the first matrix of weights, as norms may be kept in more."""
    matrices = (tensor for name, tensor in model.named_parameters() if name.endswith("weight") and tensor.ndim > 1)
    return next((tensor.dtype for tensor in chain(matrices, tensors(model)) if tensor.dtype in PRECISIONS), None)


def _restore(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"cannot use device={str(device)!r}: {str(error).splitlines()[0]}") from None
    if found.type == "meta":
        raise ParameterError("cannot use device='meta': what runs there has shapes and no values.")
    return found


@contextmanager
def _moved(model: nn.Module, device: torch.device) -> Iterator[torch.device]:
    reason = immovable(model)
    if reason is not None:
        raise ParameterError(f"cannot move a model {reason}. Leave device=None, and each part runs where it is.")
    homes = {tensor.device for tensor in tensors(model)}
    try:
        model.to(device)
        yield device
    finally:
        for origin in homes:
            model.to(origin)
