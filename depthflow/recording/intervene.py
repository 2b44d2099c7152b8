"""Put one block of a model in another's place, and see what becomes of its output."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from depthflow.errors import ParameterError, RecordError, raise_faults, whole_number_fault
from depthflow.recording.angles import angle_between
from depthflow.recording.logits import Classifier
from depthflow.recording.mode import undisturbed
from depthflow.recording.pairs import compared, phase_array, require_blocks
from depthflow.recording.session import session
from depthflow.resample import CONFIDENCE
from depthflow.schema import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike

    from depthflow.models.generic import Blocks
    from depthflow.recording.replay import Replay
    from depthflow.recording.tokens import Kept
    from depthflow.trajectories import Tokens

NAME = "swap_blocks"


def swap_blocks(
    model: nn.Module,
    inputs: Any,
    *,
    labels: ArrayLike | None = None,
    phases: Any = None,
    tokens: Tokens = "cls",
    head: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    blocks: Blocks = None,
    n_boot: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    r"""Return what becomes of a model's output when one of its blocks runs in another's place.

    With :math:`f_\ell` for block ℓ, the final state :math:`x_L = f_L \circ \dots \circ f_i \circ \dots \circ f_1 (x_0)`
    becomes :math:`x_L^{(i \leftarrow j)} = f_L \circ \dots \circ f_{i+1} \circ f_j \circ f_{i-1} \circ \dots (x_0)`:
    block i is replaced by block j, all others stay where they are. Block j is called with the arguments that the model
    gave it in its own place, on the state of depth i − 1. The effect on a sample is the angle between the two final
    states, rms over the chosen tokens. If blocks of one phase of depth do the same work, swaps within a phase change
    less than swaps between phases.

    Parameters
    ----------
    model, inputs, batch_size, device, blocks, progress
        As of :func:`record`; ``batch_size`` bounds the samples of one call of a block. The model may be in any
        precision.
    labels : array-like of int, optional
        The class of each sample, 0 … classes − 1 in the order of the model's logits. Labels that come with the inputs
        serve as well, if they are integers and the model classifies.
    phases : xarray.Dataset, xarray.DataArray or sequence, optional
        What :func:`phases` returns, its variable ``phase``, or one integer or name a block.
    tokens : str, int, or sequence of either
        Which tokens' final states are compared: a type, types or positions. Where a model has no ``"cls"``, its patches
        stand in for it, and without those all tokens but padding.
    head : callable, optional
        From what the model returns to logits, a tensor (sample, class). By default a tensor that is returned is taken
        as the logits, else the attribute ``logits``.
    n_boot : int
        Number of resamples of the samples for the intervals; 0 for none.
    seed : int
        Seed of the resamples.

    Returns
    -------
    xarray.Dataset
        - ``effect`` (block, block_other): rad, in 0 … π; mean over samples of the angle between the final states with
          block ``block_other`` in the place of ``block`` and without. 0 on the diagonal.
        - ``accuracy`` (block, block_other): share of the samples classified rightly with the swap, and
          ``accuracy_unswapped``, by the model as it is; where there are labels and logits.
        - with ``phases``: ``within_effect``, ``between_effect``: rad; mean of ``effect`` over the pairs of two blocks
          in one phase, and in two phases. ``difference``: between minus within.
        - with ``phases``: ``matched_difference``: rad; the same among pairs equally far apart in depth, as blocks of
          one phase lie closer. At each distance :math:`d = \lvert i - j \rvert` with :math:`w_d` pairs within and
          :math:`b_d` between, mean between minus mean within, averaged with the weights
          :math:`w_d b_d / (w_d + b_d)`, which make it the least-squares coefficient of "between" beside a constant for
          each distance.
        - with ``phases`` and ``n_boot``: ``difference_low``, ``difference_high``, ``matched_difference_low`` and
          ``matched_difference_high``: rad; the 95 % percentile interval over resampled samples.

        What has no pair is NaN: ``within_effect`` if each block is a phase of its own, ``between_effect`` if there is
        one phase, ``matched_difference`` if no distance has pairs of both kinds. Coords ``block``, ``block_other``,
        ``module`` (block) and, where given, ``phase`` (block).

    Raises
    ------
    ParameterError
        If an argument is out of its range or does not fit the model; if labels or a head are given and the model's
        output holds no class logits (features are not taken for logits), or a label is none of its classes; or if
        ``n_boot`` finds one sample.
    RecordError
        If the blocks cannot be called again as the model calls them (says why), the head reads more than their
        states, or a final state has no direction after a swap (says which).
    UnsupportedModelError
        As :func:`record`.

    Notes
    -----
    For L blocks a batch takes :math:`L^2 (L + 1) / 2` calls of a block, and with logits :math:`L^2` passes through
    the rest of the model. The device holds the states of one batch at up to 3 (L + 1) depths, and the result is made of
    each sample's effects, 8 · samples · L² bytes.

    A path with a swap is compared with one whose blocks are called again in the same way, so that equal blocks have an
    effect of exactly 0. The interval is over samples alone: it says how sure the difference is for these blocks, not
    for other models or segmentations.

    References
    ----------
    Swaps within and between phases: Jacobs et al., arXiv:2512.19941.

    Examples
    --------
    >>> import depthflow
    >>> model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("test")
    >>> images, labels, depth = data.images[:4], data.labels[:4], [1] * 3 + [2] * 4 + [3] * 5
    >>> ds = depthflow.swap_blocks(model, images, labels=labels, phases=depth, progress=False)
    >>> dict(ds.effect.sizes), float(ds.effect.sel(block=5, block_other=5))
    ({'block': 12, 'block_other': 12}, 0.0)
    >>> bool(ds.between_effect > ds.within_effect), float(ds.accuracy_unswapped)
    (True, 1.0)
    """
    _check(head, n_boot, seed)
    phase = None if phases is None else phase_array(phases, NAME)
    effects: list[np.ndarray] = []
    hits: list[np.ndarray] = []
    hits_unswapped: list[np.ndarray] = []
    with (
        undisturbed(head) if isinstance(head, nn.Module) else nullcontext(),
        session(
            model,
            inputs,
            NAME,
            tokens=tokens,
            labels=labels,
            batch_size=batch_size,
            device=device,
            blocks=blocks,
            progress=progress,
            stand_in=True,
        ) as run,
    ):
        classifier = Classifier(NAME, head, run.feed.labels)
        for replay in run:
            if phase is not None:
                require_blocks(phase, replay.n_blocks, NAME)
            targets = classifier.targets(replay, run.labels[-1] if run.labels else None)
            if targets is not None:
                hits_unswapped.append(classifier.right(replay.output, targets, "without a swap"))
            effect, right = _swapped(replay, run.chosen, run.count, classifier, targets)
            effects.append(effect)
            hits.append(right)
    each = np.concatenate(effects)
    if phase is not None and n_boot and len(each) < 2:
        raise ParameterError(f"{NAME} resamples samples and needs at least two; got 1. Give more, or pass n_boot=0.")
    pair = ("block", "block_other")
    variables: dict[str, Any] = {"effect": (pair, each.mean(axis=0))}
    if hits_unswapped:
        variables["accuracy"] = pair, np.concatenate(hits).mean(axis=0)
        variables["accuracy_unswapped"] = np.concatenate(hits_unswapped).mean()
    found = run.coords(run.chosen)
    coords = {"block": found["block"], "block_other": found["block"], "module": found["module"]}
    attrs = run.attributes() | {
        "tokens": ", ".join(dict.fromkeys(run.chosen.types())),
        "n_tokens": run.chosen.count,
        "samples": len(each),
    }
    if phase is not None:
        variables |= compared(each, phase, n_boot, seed)
        coords["phase"] = ("block", phase)
        if n_boot:
            attrs |= {"confidence": CONFIDENCE, "resamples": n_boot, "seed": seed}
    return describe(xr.Dataset(variables, coords, attrs), NAME)


def _check(head: object, n_boot: int, seed: int) -> None:
    faults = whole_number_fault("n_boot", n_boot, 0) + whole_number_fault("seed", seed, 0)
    if head is not None and not callable(head):
        faults.append(f"needs head as a callable from the model's output to logits; got {type(head).__name__}.")
    raise_faults(ParameterError, NAME, faults)


def _swapped(
    replay: Replay, chosen: Kept, position: int, classifier: Classifier, targets: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each sample's effect (sample, block, block_other), and whether it is then classified rightly.

    ``position`` is the number of the batch's first sample.
    """
    shape = replay.batch.size, replay.n_blocks, replay.n_blocks
    effect, right = np.empty(shape), np.zeros(shape, dtype=bool)
    own = list(replay.path(0, replay.states[0]))
    final = _directions(chosen.of(own[-1]), position, "without a swap")
    for block, other, path in _paths(replay, own):
        where = f"with block {other} in the place of block {block}"
        angle = angle_between(final, _directions(chosen.of(path[-1]), position, where))
        effect[:, block - 1, other - 1] = angle.square().mean(dim=1).sqrt().cpu().numpy()
        if targets is not None:
            output = replay.readout([*own[1:block], *path])
            right[:, block - 1, other - 1] = classifier.right(output, targets, where)
    return effect, right


def _paths(replay: Replay, own: list[Tensor]) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Give each block, the one put in its place, and the states from that depth on."""
    for block in range(1, replay.n_blocks + 1):
        for other in range(1, replay.n_blocks + 1):
            yield block, other, list(replay.path(block, replay.block(other, own[block - 1])))


def _directions(state: Tensor, position: int, where: str) -> Tensor:
    """Return a state's unit vectors (sample, token, feature) in double precision, or raise where it has none."""
    exact = (state.cpu() if state.device.type == "mps" else state).double()
    norm = exact.norm(dim=-1, keepdim=True)
    bad = torch.nonzero(~((norm > 0) & (norm < torch.inf)))
    if len(bad):
        problem = "is zero" if norm[tuple(bad[0])] == 0 else "is not finite"
        raise RecordError(
            f"{NAME} compares directions of final states, but {where} that of sample {position + int(bad[0][0])} "
            f"{problem}. In half precision large states overflow: give it `copy.deepcopy(model).float()`; else leave "
            "such samples out, or choose other tokens."
        )
    unit: Tensor = exact / norm
    return unit
