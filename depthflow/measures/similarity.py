"""How alike the states at different depths are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError, TrajectoryError
from depthflow.kernels import similarity as kernels
from depthflow.kernels.cosine import cosine
from depthflow.measures._accumulate import accumulated
from depthflow.measures._chunks import require_finite
from depthflow.measures._threads import threads
from depthflow.measures._ufunc import Where, as_states, exclusively, prepare
from depthflow.schema import VARIABLES
from depthflow.trajectories import STRING, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "similarity"
METRICS = ("cosine", "cka", "procrustes")
LEAST_SAMPLES = {"cosine": 1, "cka": 4, "procrustes": 2}


def similarity(
    traj: xr.DataArray, *, metric: str = "cosine", tokens: Tokens = None, include_input: bool = False
) -> xr.DataArray:
    r"""Return how alike the states after each two blocks are.

    - ``"cosine"``: the mean over samples and tokens of :math:`\langle u_\ell, u_m \rangle`, with
      :math:`u = x / \lVert x \rVert`. It sees a common rotation of the states as change.
    - ``"cka"``: debiased linear centered kernel alignment over samples,
      :math:`\mathrm{HSIC}_1(\ell, m) / \sqrt{\mathrm{HSIC}_1(\ell, \ell)\,\mathrm{HSIC}_1(m, m)}`. It is blind to a
      rotation, a shift and a scaling of each depth's states; 0 in expectation for unrelated states.
    - ``"procrustes"``: :math:`1 - \tfrac{2}{\pi} \arccos(\lVert X_\ell^\top X_m \rVert_* / (\lVert X_\ell \rVert_F
      \lVert X_m \rVert_F))` of the centered states X (sample, feature): the angle that the best rotation leaves. Blind
      to the same, and its angle is a metric. Of unrelated states it is far above 0 unless there are many more samples
      than features, as the rotation is fitted: 0.54 for 64 samples of 64 independent normal features, 0.07 for 3,600.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory (sample, depth, token, feature); ``sample`` and ``token`` may be absent. Its depths need not be
        consecutive.
    metric : {"cosine", "cka", "procrustes"}
        The last two compare how samples lie to each other, with one state a sample: the mean of the chosen tokens.
    tokens : str, int, or sequence of either
        Token types or indices; all by default.
    include_input : bool
        Let depth 0, the input of the first block, take part.

    Returns
    -------
    xarray.DataArray
        Named ``similarity``, dims (block, block_other), no unit, exactly symmetric with a diagonal of ones; in [-1, 1]
        for cosine, at most about 1 for CKA (negative by chance only), in [0, 1] for Procrustes. Block ℓ stands for the
        state at depth ℓ.

    Raises
    ------
    TrajectoryError
        If ``traj`` is no trajectory, a state has no direction (cosine) or is not finite (says where), the states at a
        depth do not vary over samples, or there are fewer than four samples (CKA) or two (Procrustes).
    ParameterError
        If ``metric`` or ``tokens`` is unknown.

    Notes
    -----
    The result is computed at once. Cosine reads the states once, part by part (dask's chunks, one at a time; on a
    cluster each worker its own), in time samples × tokens × depths² × features. CKA costs the lesser of
    samples²·depths·features and samples·depths²·features², and holds one state a sample and depth, which grows with the
    samples, and beside it no more than a pair of depths. So does Procrustes, which takes a singular value decomposition
    a pair.

    References
    ----------
    Cosine between depths: Jacobs et al., arXiv:2512.19941. CKA: Kornblith et al. 2019, arXiv:1905.00414; debiased by
    Song et al. 2012 (JMLR 13) and Székely & Rizzo 2014, doi:10.1214/14-AOS1255. Procrustes: Williams et al. 2021,
    arXiv:2110.14739.

    Examples
    --------
    A direction that turns by 60° at the second of two blocks:

    >>> import numpy as np, depthflow
    >>> turned = [[1, 0], [2, 0], [0.5, 0.75**0.5]]
    >>> depthflow.similarity(depthflow.trajectory(np.array(turned), dims=("depth", "feature"))).round(3).values
    array([[1. , 0.5],
           [0.5, 1. ]])
    """
    prepared = compared(traj, metric, tokens, include_input, NAME)
    if metric == "cosine":
        matrix = accumulated(prepared, partial(Cosines, NAME)).mean
    else:
        matrix = between_samples(one_state_a_sample(prepared, NAME), metric, prepared["depth"].values, NAME)
    return labelled(matrix, prepared, metric)


def labelled(matrix: np.ndarray, traj: xr.DataArray, metric: str) -> xr.DataArray:
    """Return the similarity ``matrix`` of the depths of a prepared trajectory as the measure's result."""
    known = VARIABLES[NAME]
    attrs = {"long_name": known.long_name, "units": known.units, "metric": metric}
    if metric != "cosine":
        attrs["states"] = "mean of the chosen tokens, one a sample"
    return xr.DataArray(matrix, dims=("block", "block_other"), coords=layer_coords(traj), name=NAME, attrs=attrs)


def compared(traj: object, metric: str, tokens: Tokens, include_input: bool, measure: str) -> xr.DataArray:
    """Return the prepared trajectory of the states that take part, or raise for what ``metric`` cannot use."""
    if metric not in METRICS:
        raise ParameterError(f"{measure} knows the metrics {METRICS}; got {metric!r}.")
    prepared, _ = prepare(traj, measure, tokens=tokens)
    if prepared.sizes["sample"] < LEAST_SAMPLES[metric]:
        raise TrajectoryError(
            f"{measure} with metric={metric!r} compares samples and needs at least {LEAST_SAMPLES[metric]}; got "
            f"{prepared.sizes['sample']}. Record more, or use metric='cosine'."
        )
    return prepared if include_input else prepared.isel(depth=prepared["depth"].values > 0)


class Cosines:
    """The sum of the samples' cosine similarities (layer, layer), and each sample's own where they are to be kept."""

    def __init__(self, measure: str, *, keep: bool = False) -> None:
        self.measure, self.keep, self.count = measure, keep, 0
        self.total: Any = 0.0
        self._each: list[np.ndarray] = []

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples."""
        states = as_states(part.values)
        cosines = exclusively(cosine, states)
        if np.isnan(cosines).any():
            _raise_without_direction(states, Where.of(part), self.measure)
        self._join(cosines.sum(0), len(cosines), [cosines])

    def merge(self, later: Cosines) -> None:
        """Take in the samples of ``later``."""
        self._join(later.total, later.count, later._each)

    def _join(self, total: Any, count: int, each: list[np.ndarray]) -> None:
        self.total = self.total + total
        self.count += count
        if self.keep:
            self._each += each

    @property
    def mean(self) -> np.ndarray:
        """The mean over samples."""
        mean: np.ndarray = self.total / self.count
        return mean

    @property
    def each(self) -> np.ndarray:
        """Each sample's own (sample, layer, layer)."""
        return np.concatenate(self._each)


class TokenMeans:
    """Each sample's mean over its tokens (depth, feature), in the states' precision; of one token, its own states."""

    def __init__(self, measure: str) -> None:
        self.measure = measure
        self._each: list[np.ndarray] = []

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples."""
        states = as_states(part.values)
        require_finite(states, Where.of(part), self.measure)
        alone = states.shape[2] == 1
        self._each.append(states[:, :, 0] if alone else states.mean(2, dtype=np.float64).astype(states.dtype))

    def merge(self, later: TokenMeans) -> None:
        """Take in the samples of ``later``."""
        self._each += later._each

    @property
    def each(self) -> np.ndarray:
        """All samples' (sample, depth, feature)."""
        return np.concatenate(self._each)


def one_state_a_sample(traj: xr.DataArray, measure: str) -> np.ndarray:
    """Return the mean of the tokens (sample, depth, feature), in the states' precision; of one token, itself."""
    means = accumulated(traj, partial(TokenMeans, measure))
    if traj.sizes["token"] == 1 and traj.chunks is None:
        return as_states(traj.values[:, :, 0])  # a view, which saves a copy of the states
    return means.each


def between_samples(states: np.ndarray, metric: str, depth: np.ndarray, measure: str) -> np.ndarray:
    """Return CKA or Procrustes similarity of ``states`` (sample, depth, feature), or raise where it is undefined."""
    with threads() as workers:
        matrix = (kernels.cka if metric == "cka" else kernels.procrustes)(states, workers.each)
    undefined = np.flatnonzero(np.isnan(np.diag(matrix)))
    if len(undefined):
        raise TrajectoryError(
            f"{measure} with metric={metric!r} is undefined at depth {depth[undefined[0]]}, where the states do not "
            "vary from sample to sample, or all are equally far from each other. Leave that depth out, or record more "
            "samples."
        )
    return matrix


def resampled_between_samples(states: np.ndarray, metric: str, times: np.ndarray) -> Iterable[np.ndarray]:
    """Return the similarities of resamples that hold each sample so many ``times`` (resample, sample)."""
    with threads() as workers:
        if metric == "cka":
            return kernels.cka_resampled(states, times, workers.each)
        return [kernels.procrustes(np.repeat(states, often, axis=0), workers.each) for often in times]


def layer_coords(traj: xr.DataArray) -> dict[str, Any]:
    """Return the numbers and module names of the blocks whose outputs were compared."""
    block = traj["depth"].values
    coords: dict[str, Any] = {"block": block, "block_other": block}
    modules = traj.attrs.get("modules")
    if modules:
        names = [modules[number - 1] if number else "" for number in block]
        coords["module"] = ("block", np.array(names, dtype=STRING))
    return coords


def _raise_without_direction(states: np.ndarray, where: Where, measure: str) -> None:
    norm = np.linalg.norm(states.astype(np.float64), axis=-1)
    sample, depth, token = np.argwhere(~((norm > 0) & np.isfinite(norm)))[0]
    value = norm[sample, depth, token]
    problem = "a zero-norm state, which has no direction" if value == 0 else f"a state of norm {value}"
    raise TrajectoryError(
        f"{measure} found {problem}, first at sample {where.sample[sample]}, depth {where.depth[depth]}, token "
        f"{where.token[token]}. Remove such samples or tokens, or mend the model."
    )
