"""Record a model's residual-stream states at every depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from depthflow.errors import ParameterError, is_whole_number, raise_faults, whole_number_fault
from depthflow.models.detect import adapt
from depthflow.recording.assemble import attributes, coords
from depthflow.recording.capture import Capture
from depthflow.recording.feed import Feed
from depthflow.recording.hooks import Tape
from depthflow.recording.mode import call, undisturbed
from depthflow.recording.sameness import settings
from depthflow.recording.share import own_device, share
from depthflow.recording.sinks import MemorySink
from depthflow.recording.storing import StoreSink
from depthflow.recording.tokens import require_types

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from numpy.typing import ArrayLike
    from torch import nn

    from depthflow.models.base import Adapter
    from depthflow.models.generic import Blocks
    from depthflow.recording.inputs import Batch
    from depthflow.recording.sinks import Columns, Result, Sink
    from depthflow.trajectories import Tokens

DTYPES = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64}


def record(
    model: nn.Module,
    inputs: Any,
    *,
    labels: ArrayLike | None = None,
    sample_ids: ArrayLike | None = None,
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
    sample_ids : array-like of str or int, optional
        One name a sample, all different, such as the images' file names; kept as the coord ``sample_id``.
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
        Write to this zarr store, chunk by chunk while the model runs on, instead of into memory, and return it opened.
        Where torchrun started several processes, each records a part of the samples into the one store and returns its
        part, on its own device if ``device="cuda"``; :func:`open_trajectory` gives the whole once all are through.
    resume : bool
        Continue an unfinished store of the same model, settings and inputs (default); ``False`` refuses a path that
        exists. The inputs must come in the same order again. What has been written is not computed again, and of a
        tensor, array, dict or DataLoader in order not read again.
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
        or memory would run out; if the inputs give other samples than they announce.
    StoreError
        If the store is of another model, settings or inputs (says what differs), or exists and ``resume=False``; if the
        disk is full or another error stops the writing: what was written before stays, and is continued from.

    Notes
    -----
    Beside the result, memory holds one batch of states at most; what a recording in memory needs is checked against
    what is free before it is allocated. The time is the model's forward pass and one copy of what is kept. With
    ``store``, memory holds two batches, of which one is written while the next is computed, or two chunks of about
    32 MB where these are larger; the process may be killed at any moment and loses the chunks in hand.
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
    chosen_depths = check_options("record", depths, batch_size, dtype)
    adapter = recordable(model, blocks, tokens)
    feed = Feed(inputs, batch_size, labels, sample_ids)
    sink: Sink[xr.DataArray] = MemorySink(feed.count)
    if store is not None:
        found = settings(adapter, feed, tokens=tokens, depths=chosen_depths, dtype=dtype)
        sink = StoreSink(store, feed, found, resume=resume, share=share())
        device = own_device(device)
    return run(
        adapter,
        feed,
        sink,
        "record",
        tokens=tokens,
        depths=chosen_depths,
        dtype=dtype,
        device=device,
        progress=progress,
    )


def recordable(model: nn.Module, blocks: Blocks, tokens: Tokens) -> Adapter:
    """Return the adapter of a model that can be recorded and has the ``tokens``.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be recorded.
    ParameterError
        If it never has tokens of these types.
    """
    adapter = adapt(model, blocks)
    if adapter.refusal is not None:
        raise adapter.refusal.error()
    require_types(tokens, adapter.layout())
    return adapter


def run(
    adapter: Adapter,
    feed: Feed,
    sink: Sink[Result],
    what: str,
    *,
    tokens: Tokens,
    depths: Sequence[int] | None,
    dtype: str,
    device: str | torch.device | None,
    progress: bool,
) -> Result:
    """Run the model on every batch that the sink wants, hand it the states, and return what it makes of them."""
    capture = Capture(adapter, sink, tokens, depths, DTYPES[dtype])
    with (
        undisturbed(adapter.root, device) as home,
        Tape(adapter) as tape,
        sink,
        tqdm(total=feed.count, desc=what, unit="sample", disable=not progress) as bar,
    ):

        def describe(samples: int, columns: Columns) -> tuple[dict[str, Any], dict[str, Any]]:
            return coords(capture.kept, capture.depths, samples, columns), attributes(adapter, tape.modules, dtype)

        def take(start: int, batch: Batch) -> None:
            capture.position = start
            columns = feed.columns(batch, start)
            sink.commit(start, _states(tape, capture, batch, home), columns, describe)
            bar.update(start + batch.size - bar.n)

        first = feed.first()
        if sink.wants(0, first.size):
            take(0, first)
        for start, batch in feed.rest(sink.wants):
            take(start, batch)
        feed.check_counts(feed.passed)
        bar.update(feed.passed - bar.n)
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


def check_options(what: str, depths: Sequence[int] | None, batch_size: int, dtype: str) -> list[int] | None:
    """Return the depths in order, or raise for every option that is out of its range."""
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
    raise_faults(ParameterError, what, faults)
    return None if chosen is None else sorted(int(depth) for depth in chosen)
