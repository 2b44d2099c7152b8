"""Fit a recurrent surrogate to a model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from depthflow.errors import ParameterError, SurrogateError, raise_faults, whole_number_fault
from depthflow.models.detect import adapt
from depthflow.models.fingerprint import fingerprint
from depthflow.models.placement import Weights, tensors
from depthflow.recording.assemble import provenance
from depthflow.recording.memory import require
from depthflow.recording.mode import undisturbed
from depthflow.recording.session import FULL_PRECISION
from depthflow.surrogate.checkpoint import Checkpoints
from depthflow.surrogate.lessons import seeded
from depthflow.surrogate.objective import TOGETHER
from depthflow.surrogate.partition import partition
from depthflow.surrogate.planning import plan
from depthflow.surrogate.processes import processes
from depthflow.surrogate.recurrent import RecurrentSurrogate
from depthflow.surrogate.samples import NAME, Samples, first, require_alike, split
from depthflow.surrogate.settings import SurrogateSettings
from depthflow.surrogate.survey import SAMPLES, survey
from depthflow.surrogate.training import Trainer, judged

if TYPE_CHECKING:
    from collections.abc import Callable

    from depthflow.models.base import Adapter
    from depthflow.models.generic import Blocks


def fit_surrogate(
    model: nn.Module,
    inputs: Any,
    *,
    n_phases: int = 2,
    phases: Any = None,
    contiguous: bool = True,
    validation: Any = 0.1,
    augment: Callable[[Any], Any] | None = None,
    settings: SurrogateSettings | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    blocks: Blocks = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> RecurrentSurrogate:
    r"""Fit k ≪ L blocks, each applied at all depths of its phase, to the states of a model's L blocks.

    The surrogate's path :math:`\tilde x_\ell = B_{j(\ell)}(\tilde x_{\ell-1}, \ell)`, :math:`\tilde x_0 = x_0`, is to
    stay near the model's :math:`x_\ell` at every depth. Stage 1 trains each block on its own phase, on a mean of the
    loss from the teacher's state at each depth (teacher forcing), which fades out, and the loss along the path from the
    phase's first state. Stage 2 trains all blocks together along the path from depth 0. The loss is the squared error
    at every depth, weighted by token type, over the variance of the teacher's states there.

    Parameters
    ----------
    model : torch.nn.Module
        The teacher: any model that :func:`record` takes, in float32 or float64. It is run in evaluation mode without
        gradients and left as it was found.
    inputs : array, tensor, dict, dataset, iterable of batches, or trajectory
        As of :func:`record`: the teacher runs on them as they are needed, and nothing is stored. A
        ``torch.utils.data.Dataset`` gives one sample an index: a tensor, ``(tensor, label)`` or a dict. Any other
        iterable is gone through many times, in its own order. Or a trajectory that :func:`record` or
        :func:`open_trajectory` gave, with all depths and tokens: its states are read in place of running the teacher,
        whose blocks must then take nothing beside the state.
    n_phases : int
        How many blocks the surrogate has, 1 … L, where ``phases`` does not say.
    phases : optional
        Which block stands for which of the model's: what :func:`phases` returns, one number or name a block, or
        ``"random"``. By default the optimal phases by the cosine similarity of the first 512 samples' states.
    contiguous : bool
        Whether each phase is a run of depth. With False, ``phases="random"`` draws scattered phases, and phases given
        may be scattered.
    validation : float or inputs, optional
        What the surrogate is judged by: the share of the samples held out for it, where ``inputs`` is an array, a dict,
        a dataset or a trajectory; or inputs of their own. The weights of the best validation of stage 2 are the result.
        With None, or a share of batches that come in their own order, the last weights are.
    augment : callable, optional
        From what the model is called with, a tensor or a dict, to a changed one, for every batch of training anew.
        Drawn by torch's random numbers it is repeatable. The teacher sees what the surrogate sees.
    settings : SurrogateSettings, optional
        Everything else.
    checkpoint : str or Path, optional
        Folder where the fit's state is kept.
    resume : bool
        Whether to go on from the checkpoint there, if it is one of the same fit; on the CPU the result is that of the
        uninterrupted fit, bit for bit.
    blocks
        As of :func:`record`.
    device : str or torch.device, optional
        Where to train; by default where the model is. The surrogate is left there. Under torchrun each process
        trains on its own device with its own part of each step, and all return the same surrogate.
    seed : int
        Of new weights, the order of the samples, the validation's draw, a random partition and augmentation.
    progress : bool
        Whether to show a bar with loss, R² and the time left.

    Returns
    -------
    RecurrentSurrogate
        In evaluation mode; its ``history`` holds the loss and R² (mean over depths) of every tenth step and of each
        validation.

    Raises
    ------
    ParameterError
        If an argument is out of its range or of another kind.
    SurrogateError
        If there are fewer blocks than phases, or the phases do not cover the blocks in order; the blocks cannot be
        copied or replaced (says why); recorded states lack depths or tokens, or are another model's; a checkpoint is of
        other settings (says which); or the fit diverges, after which the last good checkpoint is left.
    RecordError
        If a state is not finite, inputs do not fit the model, or memory will not do.
    UnsupportedModelError
        As :func:`record`.

    Warns
    -----
    UserWarning
        If the surrogate ends no nearer to the teacher than states that are left as they are at depth 0.

    Notes
    -----
    A step of stage 2 takes the teacher's forward pass, L blocks, and about three times that for the surrogate; stage 1
    up to twice as much. Training holds one batch's states at L + 1 depths and the activations of L blocks; an estimate
    is checked against the free memory first.

    References
    ----------
    Jacobs et al., Block-Recurrent Dynamics in Vision Transformers, arXiv:2512.19941.

    Examples
    --------
    >>> import depthflow
    >>> model, images = depthflow.datasets.digits_vit(), depthflow.datasets.digits("train").images[:64]
    >>> settings = depthflow.SurrogateSettings(steps=(2, 3), batch_size=16)
    >>> surrogate = depthflow.fit_surrogate(model, images, settings=settings, progress=False)
    >>> surrogate.phases.tolist()
    [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]
    >>> depthflow.record(surrogate, images[:2], progress=False).sizes["depth"]
    13
    """
    settings = settings or SurrogateSettings()
    _check(settings, n_phases, contiguous, augment, seed)
    group = processes(device)
    adapter = adapt(model, blocks)
    if adapter.refusal is not None:
        raise adapter.refusal.error()
    kept, held_out = split(inputs, validation, seed)
    samples = Samples(adapter, kept, held_out, augment, settings, seed, group.share)
    with undisturbed(adapter.root, group.device) as home:
        _require_full_precision(adapter)
        with samples.sources(home, spaced=True) as (lessons, _):
            seen, types = survey(lessons, settings.batch_size), list(lessons.token_types)
        with samples.sources(home) as (lessons, judges):
            owner = partition(seen.similarity, n_phases, phases, contiguous, seed, NAME)
            replay = lessons.replay(settings.batch_size)
            made = plan(replay, seen.similarity, owner, types, settings)
            count, in_place = lessons.count, replay.in_place
            require_alike(judges, types, settings.batch_size)
            told = {
                "samples": count,
                "validation samples": None if judges is None else judges.count,
                "first sample": fingerprint(first(replay)),
            }
            del replay  # and the states that it holds
        with seeded(seed):
            surrogate = RecurrentSurrogate(adapter.root, made)
        surrogate.settings = settings
        surrogate.teacher = provenance(adapter) | {
            "weights": fingerprint(Weights(adapter.root)),
            "recipe": samples.recipe(home),
            "samples": count,
            "seed": seed,
        }
        keep = None
        if checkpoint is not None:
            same = settings.to_json() | {
                "phases": list(owner),
                "teacher": surrogate.teacher["weights"],
                **told,
                "augmented": augment is not None,
                "processes": group.share.of,
                "seed": seed,
            }
            keep = Checkpoints(Path(checkpoint), same, writes=group.share.rank == 0)
        with samples.sources(home) as (lessons, judges):
            trainer = Trainer(surrogate, lessons, judges, seen, types, settings, group, in_place, keep, progress)
            _require_memory(trainer)
            trainer.run(resume)
            _warn_if_worse_than_identity(trainer)
    return surrogate


def _check(settings: object, n_phases: int, contiguous: object, augment: object, seed: int) -> None:
    faults = whole_number_fault("n_phases", n_phases) + whole_number_fault("seed", seed, 0)
    if not isinstance(settings, SurrogateSettings):
        faults.append(f"needs settings as SurrogateSettings; got {type(settings).__name__}.")
    if not isinstance(contiguous, bool):
        faults.append(f"needs contiguous as True or False; got {contiguous!r}.")
    if augment is not None and not callable(augment):
        faults.append(f"needs augment as a callable; got {type(augment).__name__}.")
    raise_faults(ParameterError, NAME, faults)


def _require_full_precision(adapter: Adapter) -> None:
    if any(tensor.is_meta for tensor in tensors(adapter.root)):
        raise SurrogateError(
            f"{NAME} copies the model's weights, some of which are offloaded. Load the model whole into memory."
        )
    reduced = {
        p.dtype for block in adapter.blocks for p in block.parameters() if p.is_floating_point()
    } - FULL_PRECISION
    if reduced:
        raise SurrogateError(
            f"{NAME} needs a model in float32 or float64, to which small steps of training can be added; got "
            f"{str(reduced.pop()).removeprefix('torch.')}. Give it `copy.deepcopy(model).float()`; the training itself "
            "may run in SurrogateSettings(precision='bfloat16')."
        )


def _require_memory(trainer: Trainer) -> None:
    """Raise unless a step's activations fit, judged by what one block keeps for its gradients."""
    stage = TOGETHER if trainer.settings.steps[1] else 1
    lesson = trainer.lessons.at(stage, 0)
    kept: dict[int, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    objective = trainer.objective(stage)
    with torch.enable_grad(), saved_tensors_hooks(weigh, lambda tensor: tensor):
        objective.after(1, lesson.states[0], lesson.arguments)
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.surrogate.parameters()}
    activations = sum(size for place, size in kept.items() if place not in weights)
    paths = 2 if trainer.settings.steps[0] and trainer.settings.forcing > 0 else 1
    optimizer = 3 * sum(parameter.nbytes for parameter in trainer.surrogate.blocks.parameters())
    needed = paths * activations * len(trainer.surrogate.steps) + optimizer
    require(needed, f"a step of {lesson.samples} samples", "Lower batch_size in SurrogateSettings.", trainer.device)


def _warn_if_worse_than_identity(trainer: Trainer) -> None:
    """Warn if the surrogate's path is no nearer to the teacher's than standing still."""
    objective = trainer.objective(TOGETHER)
    source = trainer.lessons if trainer.validation is None else trainer.validation
    found, still = (
        judged(objective, errors, source.through(trainer.settings.batch_size, SAMPLES))[0]
        for errors in (objective.errors, objective.errors_of_identity)
    )
    if not found < still:
        warnings.warn(
            f"{NAME}: the surrogate ends no nearer to the teacher (loss {found:.4g}) than states that are left as they "
            f"are (loss {still:.4g}). Train it for more steps, with a lower learning_rate, or give it more phases.",
            stacklevel=3,
        )
