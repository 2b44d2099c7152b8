"""Record a model's residual-stream states at every depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from depthflow.errors import ParameterError, is_whole_number, raise_faults, whole_number_fault
from depthflow.models.detect import adapt
from depthflow.recording.assemble import attributes, coords
from depthflow.recording.capture import Capture
from depthflow.recording.hooks import Tape
from depthflow.recording.inputs import Batch, Feed
from depthflow.recording.mode import call, undisturbed
from depthflow.recording.sinks import MemorySink
from depthflow.recording.storing import StoreSink, settings
from depthflow.recording.tokens import require_types
from depthflow.store import open_trajectory

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from numpy.typing import ArrayLike
    from torch import nn

    from depthflow.models.generic import Blocks
    from depthflow.recording.sinks import Sink
    from depthflow.trajectories import Tokens

DTYPES = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64}


def record(
    model: nn.Module,
    inputs: Any,
    *,
    labels: ArrayLike | None = None,
    tokens: Tokens = "all",
    depths: Sequence[int] | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    blocks: Blocks = None,
    store: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
) -> xr.DataArray:
    """Return the residual-stream states of a model, at every depth and token, as a trajectory.

    Depth 0 is the input of the first block, depth ℓ the output of block ℓ, all **before** the model's final norm,
    whatever the family. They are taken by hooks on the blocks while the model runs as it always does.

    Parameters
    ----------
    model : torch.nn.Module
        A transformer of timm, transformers, torchvision, or DINOv2's or DINOv3's own code, or any module with
        ``blocks=`` or an attribute ``blocks``. It is run in evaluation mode without gradients and left exactly as it
        was found, also after an error or Ctrl-C. A compiled model is run uncompiled.
    inputs : torch.Tensor, numpy.ndarray, dict, or iterable of batches
        What the model is called with. A tensor or array (sample, …); a dict of these, passed by name; or an iterable
        of batches, such as a DataLoader or a generator, each a tensor, ``(tensor, label)`` or a dict. A label beside
        a tensor, or a dict's entry ``label`` or ``labels`` with one value a sample, becomes the coord ``label`` and
        is not passed to the model. Floating-point inputs are cast to the model's precision.
    labels : array-like, optional
        One class a sample, instead of those that come with the inputs.
    tokens : str, sequence of str, int, or sequence of int
        ``"all"``; a token type or types; ``"cls+mean"`` for two tokens, the class token and the mean of the patches
        (type ``"mean"``); or positions along ``token``.
    depths : sequence of int, optional
        Depths to keep, at least two of 0…L; all by default. They are kept in increasing order.
    batch_size : int
        Samples a call of the model, for a tensor or dict; an iterable's batches are taken as they come.
    device : str or torch.device, optional
        Where to run. By default where the model is; otherwise the model is moved there and back.
    dtype : {"float32", "float16", "float64"}
        Precision of the states kept. Every other precision of the model is converted to it.
    blocks : str, torch.nn.Module, or sequence of torch.nn.Module, optional
        The blocks, whatever the model is: modules of it, or the dotted name of a list of them. States are kept in the
        order of the calls, so a block that is applied several times counts each time.
    store : str or Path, optional
        Write to this zarr store, chunk by chunk, instead of into memory, and return it opened.
    resume : bool
        Continue an unfinished store of the same model, settings and inputs (default); ``False`` refuses a path that
        exists. The inputs must come in the same order again.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.DataArray
        A trajectory, dims ``(sample, depth, token, feature)``, in state units. Coords ``depth``; ``token``, the
        position in the model; ``token_type``; ``row`` and ``col`` where the patches form a grid; ``label`` where
        known. Attributes name the model, its blocks (``modules``), the versions and, where known, the preprocessing.

    Raises
    ------
    UnsupportedModelError
        If the model's states are no trajectory: width or token count change with depth, or there are several
        residual streams. Says what to pass instead.
    ParameterError
        If an argument is out of range or does not fit the model.
    RecordError
        If the model fails on the inputs, a block does not run as expected, a state is not finite or exceeds float16,
        or memory would run out.
    StoreError
        If the store is of another model, settings or inputs, or exists and ``resume=False``.

    Notes
    -----
    Beside the result, memory holds one batch of states at most; what a recording in memory needs is checked against
    what is free before it is allocated. The time is the model's forward pass and one copy of what is kept.
    A state that another hook replaces is recorded as the model passes it on.

    Examples
    --------
    >>> import depthflow
    >>> model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("test")
    >>> traj = depthflow.record(model, data.images[:5], labels=data.labels[:5], progress=False)
    >>> dict(traj.sizes)
    {'sample': 5, 'depth': 13, 'token': 17, 'feature': 64}
    >>> traj.token_type.values[:2].tolist(), int(traj.row[1]), int(traj.col[1])
    (['cls', 'patch'], 0, 0)
    """
    chosen_depths = _check_options(depths, batch_size, dtype)
    adapter = adapt(model, blocks)
    if adapter.refusal is not None:
        raise adapter.refusal.error()
    require_types(tokens, adapter.layout())
    feed = Feed(inputs, batch_size, labels)
    batches = iter(feed)
    first = next(batches)
    sink: Sink
    if store is None:
        sink = MemorySink(feed.count)
    else:
        found = settings(adapter, first, feed, tokens=tokens, depths=chosen_depths, dtype=dtype)
        sink = StoreSink(store, feed.count, found, resume=resume)
        if sink.finished:
            return open_trajectory(store)
    capture = Capture(adapter, sink, tokens, chosen_depths, DTYPES[dtype])

    with (
        undisturbed(adapter.root, device) as home,
        Tape(adapter) as tape,
        tqdm(total=feed.count, desc="record", unit="sample", disable=not progress) as bar,
    ):

        def describe(samples: int, known: np.ndarray | None) -> tuple[dict[str, Any], dict[str, Any]]:
            return coords(capture.kept, capture.depths, samples, known), attributes(adapter, tape.modules, dtype)

        for batch in chain([first], batches):
            there = max(0, sink.done - capture.position)
            if there < batch.size:
                known = feed.labels_of(batch, capture.position)
                states = _states(tape, capture, batch, home)
                if there:
                    states, known = states[there:].clone(), None if known is None else known[there:]
                sink.commit(states, known, describe)
            capture.position += batch.size
            bar.update(batch.size)
    feed.check_labels(capture.position)
    return sink.finish(describe)


def _states(tape: Tape, capture: Capture, batch: Batch, home: torch.device | None) -> torch.Tensor:
    """Run the model on one batch and return its states (sample, depth, token, feature)."""
    first = tape.order is None
    for _ in range(2 if first else 1):
        capture.begin(batch.call, batch.size)
        with tape.forward(batch.size, capture.keep):
            call(tape.adapter.root, batch, home)
        # Weight-tied blocks show how often they run only when they run: then the first batch is run once more.
        if not first or not capture.replan(len(tape.modules)):
            break
    if first and 1 < batch.size == tape.tokens:
        # As many samples as tokens: one sample fewer shows which axis is which.
        with tape.forward(batch.size - 1, lambda depth, state: None):
            call(tape.adapter.root, batch.part(0, batch.size - 1), home)
    return capture.end(tape.modules)


def _check_options(depths: Sequence[int] | None, batch_size: int, dtype: str) -> list[int] | None:
    faults = []
    if dtype not in DTYPES:
        faults.append(f"needs dtype as one of {sorted(DTYPES)}; got {dtype!r}.")
    faults += whole_number_fault("batch_size", batch_size)
    chosen = None if depths is None else list(depths) if isinstance(depths, Sequence | range | np.ndarray) else [depths]
    whole = chosen is None or all(is_whole_number(depth) and depth >= 0 for depth in chosen)
    if not whole:
        faults.append(f"needs depths as whole numbers from 0, the input of the first block; got {depths!r}.")
    elif chosen is not None and len(set(chosen)) < max(2, len(chosen)):
        faults.append(f"needs at least two different depths, none twice; got {depths!r}.")
    raise_faults(ParameterError, "record", faults)
    return None if chosen is None else sorted(int(depth) for depth in chosen)
