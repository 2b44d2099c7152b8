"""Push states at one depth by a given angle, let the remaining blocks run, and see how far the paths come apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from depthflow.errors import ParameterError, RecordError, raise_faults, whole_number_fault
from depthflow.recording.deviations import Gathered, follow, readout, variables
from depthflow.recording.pushes import OTHER_CLASS, RANDOM, Given, OtherClass, Random
from depthflow.recording.session import session
from depthflow.recording.tokens import ALL, choose
from depthflow.schema import describe

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor, nn

    from depthflow.models.base import TokenLayout
    from depthflow.models.generic import Blocks
    from depthflow.recording.pushes import Directions
    from depthflow.recording.replay import Replay
    from depthflow.recording.session import Session
    from depthflow.trajectories import Tokens


def perturb(
    model: nn.Module,
    inputs: Any,
    *,
    depth: int,
    angle: float = 0.01,
    tokens: Tokens = "cls",
    n_draws: int = 8,
    directions: Any = RANDOM,
    seed: int = 0,
    labels: ArrayLike | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    blocks: Blocks = None,
    states: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Return how far a model's states come apart after a push at one depth, and whether they come back.

    The state x of each chosen token at ``depth`` is replaced by x′ = ‖x‖ (cos ε u + sin ε d), with ε the ``angle``,
    u = x/‖x‖ and d a unit vector tangent at u, so that the norm is kept and the direction turns by ε exactly. All
    chosen tokens of a sample are pushed at once, each in a direction of its own; then the remaining blocks run as the
    model runs them. At each depth ℓ of each token

        angle = ∠(x′_ℓ, x_ℓ),   gain = √(mean over the pushed tokens of angle²) / ε.

    Parameters
    ----------
    model : torch.nn.Module
        As for :func:`record`, in float32 or float64; it is left exactly as it was found.
    inputs : torch.Tensor, numpy.ndarray, dict, or iterable of batches
        As for :func:`record`.
    depth : int
        Where to push: 0 is the input of the first block, L − 1 that of the last.
    angle : float
        ε in rad, in (0, π].
    tokens : str, sequence of str, int, or sequence of int
        Which tokens to push: ``"all"``, a type, types or positions.
    n_draws : int
        Pushes of each sample; of an array of directions, as many as it has draws, 1 if it has no such axis.
    directions : {"random", "other_class"} or array-like
        ``"random"``: isotropic in the tangent space. ``"other_class"``: towards the mean state at this depth of
        another class, each of a sample's draws towards another one as long as there are any. Or the directions
        themselves, as an array (feature,), (token, feature), (draw, token, feature) or (draw, sample, token, feature)
        over the chosen tokens, or a DataArray with some of these dims; what is not tangent of them is removed.
    seed : int
        Seed of the random directions and of the order of the classes. Each sample has a generator of its own, so the
        pushes do not depend on the batches, and the first of them not on ``n_draws``.
    labels : array-like, optional
        One class a sample, instead of those that come with the inputs.
    batch_size : int
        Paths, pushed or not, that go through a block in one call, at least two. An iterable's batches are taken as
        they come, and their draws in groups such that ``batch_size`` is kept where the batch itself leaves room.
    device, blocks
        As for :func:`record`.
    states : bool
        Whether to return the states too, such as :func:`finite_jacobian` takes.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        With the coords of a recording of all tokens, ``pushed`` (token), True for the tokens chosen, and with
        ``"other_class"`` ``target`` (draw, sample), the class that was pushed towards.

        - ``angle`` (draw, sample, depth, token): rad, in 0 … π, of every token; 0 at depths before the push.
        - ``gain`` (draw, sample, depth): at least 0; 0 before the push, 1 at its depth, and below 1 where the paths
          have come closer again.
        - ``carried_gain`` (draw, sample, depth): the null of ``gain``, what it would be if no later block answered to
          the push, so that x_ℓ + (x′ − x) stood in the place of x′_ℓ with the deviation x′ − x of the push. On states
          that grow it falls, so a return is shown only by a gain below it.
        - ``recovery`` (sample): 1 − the mean gain at the last depth over draws; 1 is full return, 0 none, and it is
          negative where the paths have come further apart.
        - ``growth_rate`` (block): 1/block, the logarithm of the ratio of the gains after and before the block, each
          the root mean square over draws and samples; NaN up to block ``depth``. Where the paths have become one, −∞
          and then NaN.
        - ``final_direction`` (draw, sample, feature), ``reference_direction`` (sample, feature): unit vectors at the
          last depth of the pushed paths and of the unpushed one, of the class token; where a model has none, of the
          mean direction of its patches, else of all tokens but padding. :func:`basin_stability` takes them.
        - ``carried_direction`` (draw, sample, feature): the null of ``final_direction``, from the same states as
          ``carried_gain``; NaN where they have no direction.
        - with ``states``, ``state`` (draw, sample, depth, token, feature) and ``reference`` (sample, depth, token,
          feature): the pushed and the unpushed paths, in state units and the model's precision.

        Its attrs name the model and say what was pushed, and of which tokens ``final_direction`` is.

    Raises
    ------
    ParameterError
        For every argument that is out of its range or does not fit the model: a depth or a token that is not there,
        directions of another shape or parallel to the state (says whose), labels that are missing or of one class
        for ``"other_class"``, an angle that the model's precision rounds away.
    RecordError
        If the model is in half precision, its blocks cannot be called again by themselves, tokens differ between
        batches, a state has norm zero or is not finite (says where), or memory would run out.
    UnsupportedModelError
        As for :func:`record`.

    Notes
    -----
    The time is that of one forward pass, and for each draw that of the L − ``depth`` remaining blocks, plus one such
    path for each group of draws: the unpushed path runs again beside the pushed ones, so that both are rounded alike.
    ``"other_class"`` goes through the inputs once more beforehand, for the class means. Beside the results, of which
    ``angle`` takes draw · sample · depth · token · 8 bytes, memory holds the states of one batch.

    Rounding in the blocks adds about 1e-6 rad to every angle of a float32 model, so that at the default angle gains
    are right to about 1e-4; for angles below 1e-3 rad use a float64 one (``copy.deepcopy(model).double()``).

    References
    ----------
    M. Jacobs et al., Block-Recurrent Dynamics in Vision Transformers, arXiv:2512.19941.

    Examples
    --------
    >>> import depthflow
    >>> model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("test")
    >>> result = depthflow.perturb(model, data.images[:4], depth=6, n_draws=2, progress=False)
    >>> dict(result.angle.sizes)
    {'draw': 2, 'sample': 4, 'depth': 13, 'token': 17}
    >>> result.gain.mean(("draw", "sample"))[5:7].values.round(4).tolist()
    [0.0, 1.0]
    """
    _check(depth, angle, n_draws, seed, batch_size)
    most = max(2, batch_size)
    options: dict[str, Any] = {"tokens": tokens, "labels": labels, "device": device, "blocks": blocks}
    options["progress"] = progress
    way: Directions
    if isinstance(directions, str) and directions == RANDOM:
        way = Random(n_draws, seed)
    elif isinstance(directions, str) and directions == OTHER_CLASS:
        classes, means = _class_means(model, inputs, depth, {**options, "batch_size": batch_size})
        way = OtherClass(classes, means, n_draws, seed)
    else:
        way = Given(directions)
    layout: TokenLayout | None = None
    with session(model, inputs, "perturb", **options, batch_size=max(1, most // (1 + way.n_draws))) as run:
        gathered = Gathered(run.feed.count)
        for replay in run:
            _require(run, replay, depth)
            layout = _require_followed(layout, run.chosen.layout)
            if isinstance(way, Given):
                way.require_fit(run.chosen.index, replay.states[depth].shape[2], run.feed.count)
            follow(run, replay, way, gathered, depth, angle, max(1, most // replay.batch.size - 1), states)
        if isinstance(way, Given):
            way.require_count(run.count)
        everything = choose(ALL, run.chosen.layout)
        coords, attrs = run.coords(everything), run.attributes()
    coords |= {
        "draw": np.arange(way.n_draws),
        "pushed": ("token", np.isin(np.arange(everything.count), run.chosen.index)),
    }
    if isinstance(way, OtherClass):
        coords["target"] = (("draw", "sample"), way.target)
    attrs |= {
        "pushed_depth": int(depth),
        "pushed_angle": float(angle),
        "pushed_tokens": str(tokens),
        "directions": way.name,
        "seed": int(seed),
        "final_direction_tokens": readout(everything.layout)[0],
    }
    return describe(xr.Dataset(variables(gathered, run.count, depth), coords, attrs), "perturb")


def _class_means(model: nn.Module, inputs: Any, depth: int, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted classes, and the mean state (class, token, feature) of each at ``depth``."""
    if isinstance(inputs, Iterator):
        raise ParameterError(
            "perturb: directions='other_class' goes through the inputs twice, first for the class means, but an "
            f"iterator ({type(inputs).__name__}) can be gone through once. Give a DataLoader or a list of batches."
        )
    sums: dict[Any, tuple[Tensor, int]] = {}
    with session(model, inputs, "perturb", **options) as run:
        for replay in run:
            _require(run, replay, depth)
            if not run.labels:
                raise ParameterError(
                    "perturb: directions='other_class' needs labels, and none came with the inputs. Pass labels=, one "
                    "class a sample."
                )
            unknown = np.flatnonzero(run.labels[-1] != run.labels[-1])
            if len(unknown):
                raise ParameterError(
                    "perturb: directions='other_class' needs a label for every sample; the first missing one is of "
                    f"sample {run.count + unknown[0]}."
                )
            states = run.chosen.of(replay.states[depth]).double()
            for label, state in zip(run.labels[-1].tolist(), states, strict=True):
                total, number = sums.get(label, (torch.zeros_like(state), 0))
                sums[label] = total + state, number + 1
    classes = np.array(sorted(sums), dtype=run.labels[-1].dtype)
    if len(classes) < 2:
        raise ParameterError(
            "perturb: directions='other_class' needs samples of at least two classes; all are of "
            f"{classes.tolist()[0]!r}."
        )
    return classes, np.stack([(sums[label][0] / sums[label][1]).cpu().numpy() for label in classes.tolist()])


def _check(depth: object, angle: object, n_draws: object, seed: object, batch_size: object) -> None:
    faults = [
        *whole_number_fault("depth", depth, 0),
        *whole_number_fault("n_draws", n_draws),
        *whole_number_fault("seed", seed, 0),
        *whole_number_fault("batch_size", batch_size),
    ]
    if (
        not isinstance(angle, int | float | np.integer | np.floating)
        or isinstance(angle, bool)
        or not 0 < angle <= math.pi
    ):
        faults.append(f"needs angle as a number in (0, π] rad; got {angle!r}.")
    raise_faults(ParameterError, "perturb", faults)


def _require(run: Session, replay: Replay, depth: int) -> None:
    """Raise unless the states can be pushed at ``depth``."""
    run.require_full_precision(replay)
    run.require_depth(depth, run.n_blocks - 1)
    if replay.states[depth].shape[2] < 2:
        raise ParameterError("perturb: needs states of at least two features, as one has no direction to be turned in.")


def _require_followed(first: TokenLayout | None, layout: TokenLayout) -> TokenLayout:
    """Return ``layout`` unless its tokens, all of which are followed, are not one and the same in all samples."""
    if layout.ragged or (first is not None and layout != first):
        problem = (
            f"token {min(layout.ragged)} is padding in some samples of a batch and not in others"
            if layout.ragged
            else f"a batch has other tokens than the first: {layout} against {first}"
        )
        raise RecordError(
            f"perturb follows all tokens, but {problem}. Give samples of one length or image size for each call."
        )
    return layout
