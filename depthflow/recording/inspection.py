"""Say what is known of a model before it is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from depthflow.errors import UnsupportedModelError
from depthflow.models.base import ModelInfo, Refusal
from depthflow.models.detect import adapt
from depthflow.recording.capture import settle
from depthflow.recording.feed import Feed
from depthflow.recording.hooks import Tape
from depthflow.recording.mode import call, undisturbed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from depthflow.models.base import Adapter, TokenLayout
    from depthflow.models.generic import Blocks


def inspect(model: nn.Module, inputs: Any = None, *, blocks: Blocks = None) -> ModelInfo:
    """Return what depthflow sees in a model: its blocks, its tokens, its final norm, or why it cannot be recorded.

    Parameters
    ----------
    model : torch.nn.Module
        As for :func:`depthflow.record`.
    inputs : optional
        As for :func:`depthflow.record`. With them the model is run on the first sample, which confirms what its
        structure says; a generator loses its first batch.
    blocks : optional
        As for :func:`depthflow.record`.

    Returns
    -------
    ModelInfo
        Prints as a table. A model that ``record`` refuses gives ``supported=False``, ``reason`` and ``remedy``.

    Raises
    ------
    ModelError, ParameterError, RecordError
        If ``model`` is no torch module, ``blocks`` are not in it, or it fails on ``inputs``.

    Examples
    --------
    >>> import depthflow
    >>> print(depthflow.inspect(depthflow.datasets.digits_vit()))
    model       VisionTransformer
    family      torch/VisionTransformer
    blocks      12: blocks.0 … blocks.11
    depths      0 … 12 (0 is the input of block 1)
    tokens      1 cls, 16 patch (4×4)
    features    known once inputs are given
    final norm  norm (not applied to recorded states)
    checked by  the model's structure alone
    """
    adapter = adapt(model, blocks)
    if adapter.refusal is not None:
        return _refused(adapter, adapter.refusal)
    if inputs is None:
        return _described(adapter, adapter.names, adapter.layout(), adapter.width(), observed=False)
    batch = next(iter(Feed(inputs, 1))).part(0, 1)
    sizes: list[int] = []

    def measure(depth: int, state: Tensor) -> None:
        if depth == 0:
            sizes.extend(state.shape[1:])

    try:
        with undisturbed(adapter.root) as home, Tape(adapter) as tape, tape.forward(1, measure):
            call(adapter.root, batch, home)
    except UnsupportedModelError as error:
        return _refused(adapter, Refusal(error.reason, error.remedy))
    layout = settle(adapter, adapter.layout(batch.call), sizes[0])
    return _described(adapter, tape.modules, layout, sizes[1], observed=True)


def _refused(adapter: Adapter, refusal: Refusal) -> ModelInfo:
    return ModelInfo(
        adapter.name(),
        adapter.family,
        tuple(adapter.names),
        supported=False,
        reason=refusal.reason,
        remedy=refusal.remedy,
    )


def _described(
    adapter: Adapter, names: Sequence[str], layout: TokenLayout | None, width: int | None, *, observed: bool
) -> ModelInfo:
    return ModelInfo(
        adapter.name(), adapter.family, tuple(names), layout, width, adapter.final_norm(), observed=observed
    )
