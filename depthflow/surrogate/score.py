"""Score a recurrent surrogate: how near it stays to its teacher, and what becomes of the answers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.data import DataLoader, Dataset

from depthflow.errors import ParameterError, SurrogateError, raise_faults, whole_number_fault
from depthflow.models.detect import adapt
from depthflow.models.fingerprint import fingerprint
from depthflow.models.placement import Weights
from depthflow.recording.feed import Feed
from depthflow.recording.mode import undisturbed
from depthflow.recording.session import Session
from depthflow.surrogate.baselines import Teacher
from depthflow.surrogate.mirror import Mirror
from depthflow.surrogate.nearness import ALL
from depthflow.surrogate.recurrent import RecurrentSurrogate
from depthflow.surrogate.scoring import NAME, Scoring, require_alike, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    import xarray as xr
    from numpy.typing import ArrayLike

    from depthflow.models.base import Adapter
    from depthflow.models.generic import Blocks


def score_surrogate(
    surrogate: RecurrentSurrogate,
    model: nn.Module,
    inputs: Any,
    *,
    labels: ArrayLike | None = None,
    train_inputs: Any = None,
    train_labels: ArrayLike | None = None,
    head: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
    blocks: Blocks = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Return how near a surrogate's states stay to its teacher's at every depth, and whether its answers do.

    Both models run on the same inputs, each as the model that it is, and their states :math:`\tilde x_\ell` and
    :math:`x_\ell` are compared. The block-recurrent hypothesis bounds what is measured as ``epsilon``. Beside every
    score stand those of four paths from the same depth 0 that had no training, or only a linear one.

    Parameters
    ----------
    surrogate : RecurrentSurrogate
        What :func:`fit_surrogate` returned, or one that was read again. Its ``scores`` are replaced by a summary of
        the result, for the model card.
    model : torch.nn.Module
        Its teacher.
    inputs : array, tensor, dict, dataset, or iterable of batches
        As of :func:`record`, or a ``torch.utils.data.Dataset``; best such as neither the model nor the surrogate was
        trained on. Without ``train_inputs`` they are gone through twice, and must come in the same order.
    labels : array-like, optional
        The class of each sample: for accuracies through the model's own head 0 … classes − 1, in the order of its
        logits. Labels that come with the inputs serve as well.
    train_inputs : optional
        What the linear baseline and the probes are fitted to; as ``inputs``.
    train_labels : array-like, optional
        The class of each sample of ``train_inputs``, by number or name, for probes; where ``labels`` are names too, or
        the model has no head, only these read them.
    head : callable, optional
        From what the model returns to logits, a tensor (sample, class). By default a tensor that is returned is taken
        as the logits, else the attribute ``logits``.
    batch_size : int
        Samples a call of the models, as of :func:`record`.
    blocks
        As of :func:`record`: those that the surrogate was fitted with.
    device : str or torch.device, optional
        Where to run both; by default where the model is. Both are moved there and back.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    xarray.Dataset
        On the dims ``depth``, labelled 1 … L (depth 0 is shared), and ``token_type``: ``"all"`` but padding, then each
        type.

        - ``r2`` (depth, token_type): :math:`1 - \sum \lVert \tilde x - x \rVert^2 / \sum \lVert x - \bar x \rVert^2`
          over samples and the type's tokens, where :math:`\bar x` is their mean, one vector a depth and type. At most
          1; 0 is what the mean alone would reach. NaN where the teacher's states do not vary by more than rounding.
        - ``cosine`` (depth, token_type): mean over samples and tokens of the cosine of :math:`\tilde x` and :math:`x`.
        - ``relative_error`` (depth, token_type): mean over samples of
          :math:`\lVert \tilde x - x \rVert_F / \lVert x \rVert_F`, tokens × features.
        - ``epsilon``: the largest ``relative_error`` of ``"all"`` over depths, and ``epsilon_depth``, where it is.
        - ``agreement``: share of the samples to which both models give the same class; where there are logits.
        - ``teacher_accuracy``, ``surrogate_accuracy``, ``recovery``, the second over the first, and ``recovery_low``,
          ``recovery_high``, its 95 % percentile interval over resampled samples; with labels.
        - ``teacher_probe_accuracy``, ``surrogate_probe_accuracy``, ``probe_recovery``: of logistic regressions on
          standardised features, one trained and judged on each model's own; with ``train_inputs`` and labels of both.
          Features are the mean of the leading tokens (class token, else patches, else all but padding) at depth L,
          through the final norm where it is known.
        - ``baseline_r2``, ``baseline_cosine``, ``baseline_relative_error`` (baseline, depth, token_type),
          ``baseline_epsilon``, and with labels ``baseline_accuracy`` and ``baseline_recovery`` (baseline): the same of
          ``"identity"``, depth 0 left as it is; ``"linear"``, one operator and constant a phase, by least squares over
          all its steps; ``"truncated"``, the teacher's first k blocks and then nothing, k the number of phases; and
          ``"repeated"``, the teacher's medoid block of each phase at all its depths.

        NaN where a state is zero and has no cosine or relative size. Coord ``phase`` (depth).

    Raises
    ------
    ParameterError
        If an argument is of another kind or out of its range, labels do not fit, there are fewer than two samples, or
        inputs that are needed twice can be gone through once or change.
    SurrogateError
        If the surrogate is of another model: of other blocks, width or weights; or its states are not finite.
    RecordError
        As :func:`record`.
    UnsupportedModelError
        As :func:`record`.

    Notes
    -----
    Time is about two forward passes of the model (the surrogate's is one), one more for the repeated baseline, and
    samples · tokens · L · D² for the linear one, in double precision; another pass of the model and as much to fit it.
    Every new shape of batch takes four passes more, to test that blocks can be called again. Memory holds one batch's
    states, 16 · k · D² bytes for the operators (twice that without ``train_inputs``), and with probes one vector a
    sample and model.

    Without ``train_inputs`` the linear baseline predicts every second sample by what the others taught, and the others
    by these. Its ridge, 1e-7 of the inputs' mean square over directions, is in the attrs.

    The r² of ``"all"`` counts differences between token types as variance, and flatters; read the types too. Where the
    teacher's blocks cannot be called again, ``"repeated"`` is NaN and the attr ``repeated`` says why.

    References
    ----------
    Jacobs et al., Block-Recurrent Dynamics in Vision Transformers, arXiv:2512.19941.

    Examples
    --------
    >>> import depthflow
    >>> model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("train")
    >>> settings = depthflow.SurrogateSettings(steps=(0, 12), batch_size=16)
    >>> surrogate = depthflow.fit_surrogate(model, data.images[:32], settings=settings, progress=False)
    >>> test = depthflow.datasets.digits("test")
    >>> ds = depthflow.score_surrogate(surrogate, model, test.images[:32], labels=test.labels[:32], progress=False)
    >>> dict(ds.r2.sizes), ds.token_type.values.tolist()
    ({'depth': 12, 'token_type': 3}, ['all', 'cls', 'patch'])
    >>> bool(ds.epsilon == ds.relative_error.sel(token_type="all").max()), float(ds.teacher_accuracy)
    (True, 1.0)
    """
    _check(surrogate, inputs, train_inputs, train_labels, head, batch_size)
    adapter = adapt(model, blocks)
    if adapter.refusal is not None:
        raise adapter.refusal.error()
    _require_its_teacher(surrogate, adapter)

    def feed(given: Any, classes: ArrayLike | None) -> Feed:
        return Feed(DataLoader(given, batch_size) if isinstance(given, Dataset) else given, batch_size, classes)

    held_out = train_inputs is not None
    tested = feed(inputs, labels)
    learnt = feed(train_inputs, train_labels) if held_out else feed(inputs, labels)
    with ExitStack() as stack:
        home = stack.enter_context(undisturbed(adapter.root, device))
        there = stack.enter_context(undisturbed(surrogate, _elsewhere(surrogate, device, home)))
        if isinstance(head, nn.Module):
            stack.enter_context(undisturbed(head, device))
        teacher, mirror = Teacher(adapter, home, NAME), Mirror(surrogate, there)
        stack.enter_context(teacher)
        stack.enter_context(mirror)
        scoring = Scoring(surrogate, teacher, mirror, held_out)
        scoring.learn(Session(NAME, adapter, learnt, teacher, ALL, progress))
        run = Session(NAME, adapter, tested, teacher, ALL, progress)
        scoring.judge(run, head)
    result = scoring.result(run.count, run.attributes())
    surrogate.scores = summary(result)
    return result


def _check(
    surrogate: object, inputs: Any, train_inputs: Any, train_labels: object, head: object, batch_size: int
) -> None:
    faults = whole_number_fault("batch_size", batch_size)
    if not isinstance(surrogate, RecurrentSurrogate):
        faults.append(
            f"needs surrogate as a RecurrentSurrogate, what fit_surrogate returns; got {type(surrogate).__name__}."
        )
    if head is not None and not callable(head):
        faults.append(f"needs head as a callable from the model's output to logits; got {type(head).__name__}.")
    if train_inputs is None and train_labels is not None:
        faults.append("was given train_labels= without train_inputs=, the samples that they belong to. Give both.")
    if train_inputs is None and hasattr(inputs, "__next__"):
        faults.append(
            "goes through inputs twice to fit the linear baseline, and these can be gone through once. Give an array, "
            "a dataset, a list of batches or a DataLoader, or train_inputs= to fit it to."
        )
    raise_faults(ParameterError, NAME, faults)


def _require_its_teacher(surrogate: RecurrentSurrogate, adapter: Adapter) -> None:
    """Raise before anything runs if the surrogate was fitted to another model, as far as that is known."""
    require_alike(surrogate, len(adapter.named_blocks))
    weights = surrogate.teacher.get("weights")
    if weights is not None and weights != fingerprint(Weights(adapter.root)):
        raise SurrogateError(
            f"the surrogate was fitted to other weights of {surrogate.teacher.get('model', 'its teacher')} than this "
            "model has (trained on since, converted to another precision, or wrapped?). Give the model that it was "
            "fitted to."
        )


def _elsewhere(
    surrogate: RecurrentSurrogate, device: str | torch.device | None, home: torch.device | None
) -> str | torch.device | None:
    """Return where the surrogate has to be moved to run beside the teacher, if anywhere."""
    here = next(surrogate.blocks.parameters()).device
    return device if device is not None else None if home is None or here == home else home
