"""Measure a model's states while it runs, without keeping them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from depthflow.errors import ParameterError, raise_faults
from depthflow.measures._streamed_dmd import dmd_stream
from depthflow.measures._streams import phases_stream, pooled_spectra_stream, similarity_stream
from depthflow.measures._summary import Summary
from depthflow.measures.coherence import coherence
from depthflow.measures.convergence import convergence
from depthflow.measures.dmd import dmd
from depthflow.measures.phases import phases
from depthflow.measures.similarity import similarity
from depthflow.measures.spectra import update_spectra
from depthflow.recording.feed import Feed
from depthflow.recording.forward import check_options, recordable, run
from depthflow.recording.memory import require
from depthflow.recording.sinks import Columns, Describe, Sink
from depthflow.schema import DIMS, STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike
    from torch import Tensor, nn

    from depthflow.measures._streams import Stream
    from depthflow.models.generic import Blocks
    from depthflow.trajectories import Tokens

NAME = "stream"

MEASURES: Mapping[str, Callable[..., Any]] = {
    "convergence": convergence,
    "coherence": coherence,
    "update_spectra": update_spectra,
    "similarity": similarity,
    "phases": phases,
    "dmd": dmd,
}
"""What can be taken in one pass."""

POOLED: Mapping[str, Callable[..., Stream]] = {
    "similarity": similarity_stream,
    "phases": phases_stream,
    "dmd": dmd_stream,
}

Results = dict[str, xr.Dataset | xr.DataArray]


def stream(
    model: nn.Module,
    inputs: Any,
    measures: str | Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    *,
    labels: ArrayLike | None = None,
    tokens: Tokens = "all",
    batch_size: int = 32,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    blocks: Blocks = None,
    quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
    progress: bool = True,
) -> Results:
    r"""Return measures of a model's states, taken while it runs, in memory that does not grow with the samples.

    The states are those of :func:`record`. Each batch of them is measured, and forgotten.

    Parameters
    ----------
    model, inputs, labels, tokens, batch_size, device, dtype, blocks, progress
        As for :func:`record`.
    measures : str, sequence of str, or mapping of str to mapping
        Names, or names with their keyword arguments, of

        - ``"convergence"``, ``"coherence"``, ``"update_spectra"``: of each sample, as means and quantiles;
        - ``"update_spectra"`` with ``{"pool": True}``, ``"similarity"``, ``"phases"`` (both by cosine) and ``"dmd"``:
          over all samples at once.

        By default all, each with its own defaults; one that the states do not allow (such as ``"coherence"`` where
        there are no patches) is then left out with a warning.
    quantiles : sequence of float
        Shares in [0, 1].

    Returns
    -------
    dict of str to xarray.Dataset or xarray.DataArray
        By name what the measure returns of the recorded states; but for the measures of each sample, for every
        variable ``v``:

        - ``v``, its mean over samples, with its dims less ``sample``; NaN is left out, as by xarray's ``mean``;
        - ``v_quantile`` (quantile, depth or block, mode, type), its quantiles over samples and, where it has the dim
          ``token``, over the tokens of a type; NaN counts as larger than every number, so that paths that never settle
          make the upper quantiles of ``settling_depth`` NaN.

        The attr ``samples`` says how many there were; ``quantile_rank_error`` of each ``v_quantile`` how far the rank
        of a quantile may be from the one asked for, as a share of all values: 0, and NumPy's linear quantile, while
        there are no more than 512 values; at most 0.009 beyond.

        Of ``dmd``, ``error_per_step`` is NaN, as it would need the states again.

    Raises
    ------
    ParameterError
        If a measure, or an argument of one, is unknown or cannot be honoured in one pass (says why, and what to do
        instead), before the model runs; if it does not fit the states, after the first batch, or, where only all states
        can tell (an operator of ``dmd`` that they do not determine), at the end.
    TrajectoryError
        What the measures raise.
    UnsupportedModelError, RecordError
        What :func:`record` raises.

    Notes
    -----
    Memory is one batch of states, what the measures need for one batch, and what they keep. Quantiles keep at most 4 kB
    a quantity, type and level, with one level more whenever the samples double: 32 MB for ten quantities at 13 depths
    with 3 types after 2·10⁸ values each. (``update_spectra`` has a quantity for each mode: ``n_modes`` keeps them few.)
    Pooled spectra keep at most two (feature, feature) float64 matrices a block, ``dmd`` about 3·L of them for each type
    of token and once more for all.

    Answers equal those of the recorded states: means and similarities to 1e-10 relative, pooled singular values to the
    1e-5 that :func:`update_spectra` promises (here always by QR factors). ``dmd`` is not corrected by a second reading:
    its operator is right to about the square of attrs["condition"] times 1e-16, relative; its errors e, from sums of
    products, to 1e-15/e.

    Each measure's own work is done between batches, on all cores of the CPU, while a GPU waits.

    References
    ----------
    Quantiles: Karnin, Lang & Liberty 2016, arXiv:1603.05346, with levels of equal size.

    Examples
    --------
    >>> import depthflow
    >>> model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("test")
    >>> found = depthflow.stream(model, data.images[:64], {"convergence": {"tokens": "cls"}, "phases": {}},
    ...                          progress=False)
    >>> dict(found["convergence"].angle_quantile.sizes)
    {'quantile': 5, 'depth': 13, 'type': 1}
    >>> found["phases"].similarity.shape
    (12, 12)
    """
    chosen = _chosen(measures, quantiles)
    check_options(NAME, None, batch_size, dtype)
    adapter = recordable(model, blocks, tokens)
    sink = StreamSink(chosen, lenient=measures is None)
    feed = Feed(inputs, batch_size, labels)
    return run(adapter, feed, sink, NAME, tokens=tokens, depths=None, dtype=dtype, device=device, progress=progress)


class StreamSink(Sink[Results]):
    """Hands each batch of states, labelled, to the ``streams``; ``lenient`` drops those that do not fit the states."""

    def __init__(self, streams: Mapping[str, Stream], *, lenient: bool = False) -> None:
        self.streams, self.lenient = dict(streams), lenient
        self._room: Tensor | None = None

    def open(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Note what a sample's states look like."""
        self._shape, self._dtype, self._room = shape, dtype, None

    def room(self, start: int, samples: int) -> Tensor:
        """Return the same memory for every batch, or larger one for a larger batch."""
        if self._room is None or len(self._room) < samples:
            self._room = None
            shape = (samples, *self._shape)
            require(
                int(np.prod(shape)) * self._dtype.itemsize,
                f"a batch of {' × '.join(map(str, shape))} states (sample × depth × token × feature)",
                "Take a smaller batch_size, or keep less: tokens='cls+mean'.",
            )
            self._room = torch.empty(shape, dtype=self._dtype, device="cpu")
        return self._room[:samples]

    def commit(self, start: int, room: Tensor, columns: Columns, describe: Describe) -> None:
        """Measure the states that ``room`` was filled with."""
        coords, attrs = describe(len(room), columns)
        coords["sample"] = np.arange(start, start + len(room))
        part = xr.DataArray(room.numpy(), coords, DIMS, STATE, attrs)
        self._each(lambda measure: measure.add(part), self.lenient and start == 0)

    def finish(self, describe: Describe) -> Results:
        """Return what every measure has found."""
        return self._each(lambda measure: measure.result(), self.lenient)

    def _each(self, step: Callable[[Stream], Any], lenient: bool) -> dict[str, Any]:
        """Return what ``step`` makes of each measure; if ``lenient``, one that does not fit is left out."""
        made = {}
        for name in list(self.streams):
            try:
                made[name] = step(self.streams[name])
            except ParameterError as error:
                if not lenient:
                    raise
                warnings.warn(f"{NAME} leaves out {name}: {error}", stacklevel=2)
                del self.streams[name]
        return made


def _chosen(measures: Any, quantiles: Sequence[float]) -> dict[str, Stream]:
    """Return the measures asked for, or raise every fault of what was asked."""
    named = _named(measures)
    shares = np.asarray(quantiles)
    faults = []
    if (
        shares.ndim != 1
        or not shares.size
        or shares.dtype.kind not in "fiu"
        or not ((shares >= 0) & (shares <= 1)).all()
    ):
        faults.append(f"needs quantiles as shares in [0, 1], at least one; got {quantiles!r}.")
    for name, arguments in named.items():
        faults += _faults(name, arguments)
    raise_faults(ParameterError, NAME, faults)
    return {name: _stream(name, arguments, shares.tolist()) for name, arguments in named.items()}


def _named(measures: Any) -> dict[str, Mapping[str, Any]]:
    if measures is None:
        return {name: {} for name in MEASURES}
    if isinstance(measures, str):
        return {measures: {}}
    if isinstance(measures, Mapping) and measures and all(isinstance(given, Mapping) for given in measures.values()):
        return dict(measures)
    if isinstance(measures, Sequence) and measures and all(isinstance(name, str) for name in measures):
        return {name: {} for name in measures}
    raise ParameterError(
        f"{NAME}: needs measures as names, or as a mapping of names to their keyword arguments, such as "
        f"{{'convergence': {{'tokens': 'cls'}}}}; got {measures!r}."
    )


def _stream(name: str, arguments: Mapping[str, Any], shares: list[float]) -> Stream:
    if name in POOLED:
        return POOLED[name](**arguments)
    if arguments.get("pool"):
        return pooled_spectra_stream(**arguments)
    return Summary(partial(MEASURES[name], **arguments), shares)


def _faults(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a measure and its arguments, as far as no states are needed to tell."""
    if name == "basins":
        return [f"cannot take basins in one pass, which clusters all samples. {_record('cls')}, and take it of these."]
    if name not in MEASURES:
        return [f"knows the measures {tuple(MEASURES)}; got {name!r}.{_perhaps(name, MEASURES)}"]
    known = list(inspect.signature(MEASURES[name]).parameters)[1:]
    faults = [
        f"knows the arguments {tuple(known)} of {name}; got {given!r}.{_perhaps(given, known)}"
        for given in arguments
        if given not in known
    ]
    return faults + [f"cannot take {name} in one pass {why}" for why in _impossible(name, arguments)]


def _impossible(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return why arguments cannot be honoured while states are not kept, and what to do instead."""
    found = []
    metric, reference = arguments.get("metric", "cosine"), arguments.get("reference")
    if metric in ("cka", "procrustes"):
        found.append(f"with metric={metric!r}, which compares samples with one another. {_record('cls+mean')}.")
    if name == "phases" and arguments.get("n_boot"):
        found.append(f"with n_boot, which resamples each sample's similarity. {_record('cls+mean')}, or leave it out.")
    if name == "dmd" and arguments.get("test") is not None:
        found.append(f"with test, as its errors come from sums of the states fitted. {_record('cls+mean')}.")
    if isinstance(reference, xr.DataArray) and "sample" in reference.dims:
        found.append("with a reference for each sample. Give one for all samples, or record the states.")
    return found


def _record(tokens: str) -> str:
    """Return how to keep what is needed of the states, and no more."""
    return f"Record with tokens={tokens!r} and store='states.zarr'"


def _perhaps(given: str, known: Iterable[str]) -> str:
    close = get_close_matches(given, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
