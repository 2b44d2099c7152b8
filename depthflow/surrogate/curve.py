"""How the error of a surrogate falls with the number of its blocks: the block-recurrent hypothesis, measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from tqdm.auto import tqdm

from depthflow.errors import ParameterError, SurrogateError, is_whole_number, raise_faults
from depthflow.models.detect import adapt
from depthflow.schema import describe
from depthflow.surrogate.fit import fit_surrogate
from depthflow.surrogate.partition import RANDOM
from depthflow.surrogate.score import score_surrogate

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import ArrayLike
    from torch import nn

    from depthflow.models.generic import Blocks
    from depthflow.surrogate.settings import SurrogateSettings

NAME = "recurrence_curve"
LEAST = {"n_phases": 1, "seeds": 0}


def recurrence_curve(
    model: nn.Module,
    inputs: Any,
    *,
    n_phases: Iterable[int] = range(1, 7),
    seeds: Iterable[int] = (0,),
    labels: ArrayLike | None = None,
    test_inputs: Any = None,
    test_labels: ArrayLike | None = None,
    phases: str | None = None,
    contiguous: bool = True,
    settings: SurrogateSettings | None = None,
    checkpoint: str | Path | None = None,
    validation: Any = 0.1,
    augment: Callable[[Any], Any] | None = None,
    blocks: Blocks = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Return the scores of surrogates of 1, 2, 3, … blocks: by how much each further block brings them nearer.

    For each number of phases k and each seed a surrogate is fitted by :func:`fit_surrogate` and scored by
    :func:`score_surrogate`. If a few blocks do the work of all, the error ``epsilon`` falls fast with k and then
    hardly any more, and lies below that of the baselines of as many blocks.

    Parameters
    ----------
    model, inputs, settings, validation, augment, blocks, device
        As of :func:`fit_surrogate`.
    n_phases : iterable of int
        Numbers of phases, 1 … L.
    seeds : iterable of int
        Of the fits: new weights, order of the samples, draws. Several show the spread.
    labels : array-like, optional
        The class of each sample of ``inputs``. With ``test_inputs`` they serve the linear probes; without, the
        accuracies.
    test_inputs : optional
        What the surrogates are scored on, as of :func:`score_surrogate`; by default ``inputs``, which flatters them.
        The attr ``scored_on`` says which.
    test_labels : array-like, optional
        The class of each sample of ``test_inputs``.
    phases : {None, "random"}
        The optimal phases for each k, or a random partition, drawn anew for each k and seed: a control.
    contiguous : bool
        Whether phases are runs of depth; False scatters random ones.
    checkpoint : str or Path, optional
        Folder with one folder a fit, such as ``k2-seed0``: the same call goes on after the last fit that was finished,
        and :func:`fit_surrogate` with that folder gives its surrogate at once.
    progress : bool
        Whether to show bars.

    Returns
    -------
    xarray.Dataset
        Every variable of :func:`score_surrogate` with the dims ``n_phases`` and ``seed`` before its own, the coord
        ``phase`` (n_phases, seed, depth), and ``seconds`` (n_phases, seed): of training, those before an
        interruption among them.

    Raises
    ------
    ParameterError
        If an argument is of another kind or out of its range.
    SurrogateError
        If there are more phases than blocks, before anything is fitted; as :func:`fit_surrogate` and
        :func:`score_surrogate`.
    RecordError, UnsupportedModelError
        As :func:`record`.

    Notes
    -----
    Time is that of all fits. For k = L each block stands for one of the model's; nothing is left to be shared, and
    ``epsilon`` says what the training itself leaves. The spread over seeds is that of the fit, not of the samples.

    References
    ----------
    Jacobs et al., Block-Recurrent Dynamics in Vision Transformers, arXiv:2512.19941; it defines ε and reports
    accuracies by k.

    Examples
    --------
    >>> import depthflow
    >>> model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("train")
    >>> settings = depthflow.SurrogateSettings(steps=(0, 12), batch_size=16)
    >>> ds = depthflow.recurrence_curve(model, data.images[:32], n_phases=[2, 6], settings=settings, progress=False)
    >>> dict(ds.r2.sizes)
    {'n_phases': 2, 'seed': 1, 'depth': 12, 'token_type': 3}
    >>> bool(ds.epsilon.sel(n_phases=6) < ds.epsilon.sel(n_phases=2)), ds.attrs["scored_on"]
    (True, 'inputs')
    """
    counts, drawn = _whole_numbers("n_phases", n_phases), _whole_numbers("seeds", seeds)
    _check(phases, contiguous, inputs, test_inputs, test_labels)
    blocks_in_all = len(adapt(model, blocks).named_blocks)
    if blocks_in_all and max(counts) > blocks_in_all:
        raise SurrogateError(
            f"{NAME} was asked for {max(counts)} phases of a model with {blocks_in_all} blocks. Ask for at most "
            f"{blocks_in_all}."
        )
    common: dict[str, Any] = {"blocks": blocks, "device": device, "progress": progress}
    options = common | {"settings": settings, "validation": validation, "augment": augment, "contiguous": contiguous}
    judged: dict[str, Any] = {"inputs": inputs, "labels": labels}
    if test_inputs is not None:
        judged = {"inputs": test_inputs, "labels": test_labels}
        if not isinstance(inputs, xr.DataArray):
            judged |= {"train_inputs": inputs, "train_labels": labels}
    rows = []
    with tqdm(total=len(counts) * len(drawn), desc=NAME, unit="fit", disable=not progress) as bar:
        for count in counts:
            row = []
            for seed in drawn:
                folder = None if checkpoint is None else Path(checkpoint) / f"k{count}-seed{seed}"
                surrogate = fit_surrogate(
                    model, inputs, n_phases=count, phases=phases, seed=seed, checkpoint=folder, **options
                )
                scores = score_surrogate(surrogate, model, **judged, **common)
                row.append(scores.assign(seconds=surrogate.history["seconds"][-1]).reset_coords("phase"))
                bar.update()
            rows.append(_along(row, "seed"))
    result = _along(rows, "n_phases").set_coords("phase").assign_coords(n_phases=counts, seed=drawn)
    result.attrs |= {
        "n_phases": counts,
        "scored_on": "inputs" if test_inputs is None else "test_inputs",
        "phases": "optimal" if phases is None else phases,
        "contiguous": int(contiguous),
    }
    return describe(result, NAME)


def _along(parts: list[xr.Dataset], dim: str) -> xr.Dataset:
    """Return results side by side along a new dim, under the attributes of the first."""
    return xr.concat(parts, dim, data_vars="all", coords="minimal", join="exact", combine_attrs="override")


def _whole_numbers(name: str, given: Any) -> list[int]:
    """Return the different whole numbers ``given``, in rising order."""
    found = list(given) if isinstance(given, Iterable) else []
    fit = all(is_whole_number(number) and number >= LEAST[name] for number in found)
    if not found or not fit or len(set(found)) < len(found):
        raise ParameterError(
            f"{NAME} needs {name} as different whole numbers from {LEAST[name]}, at least one; got {given!r}."
        )
    return sorted(map(int, found))


def _check(phases: object, contiguous: bool, inputs: Any, test_inputs: Any, test_labels: Any) -> None:
    faults = []
    if phases is not None and not (isinstance(phases, str) and phases == RANDOM):
        faults.append(
            f"finds the phases for each number of them, or draws them with phases={RANDOM!r}; got {phases!r}. For "
            "phases of your own use fit_surrogate and score_surrogate."
        )
    if phases is None and not contiguous:
        faults.append(f"finds phases that are runs of depth. With contiguous=False pass phases={RANDOM!r}.")
    if test_inputs is None and test_labels is not None:
        faults.append("was given test_labels= without test_inputs=, the samples that they belong to. Give both.")
    if test_inputs is None and isinstance(inputs, xr.DataArray):
        faults.append("was given recorded states, on which no surrogate can run. Give test_inputs= to score it on.")
    raise_faults(ParameterError, NAME, faults)
