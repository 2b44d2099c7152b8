"""Contiguous phases of depth: runs of blocks whose states are alike."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError, TrajectoryError
from depthflow.measures._accumulate import accumulated
from depthflow.measures._phase_arguments import NAME, given_similarity, most_phases, require_plain
from depthflow.measures.segmentation import (
    dissimilarity,
    number_of_phases,
    p_value,
    resampled,
    segmentation,
    shuffled,
)
from depthflow.measures.similarity import (
    Cosines,
    between_samples,
    compared,
    layer_coords,
    one_state_a_sample,
    resampled_between_samples,
)
from depthflow.schema import REQUIRED_DIMS, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from depthflow.trajectories import Tokens


def phases(
    data: Any,
    n_phases: int | None = None,
    *,
    method: str = "optimal",
    min_size: int = 1,
    threshold: float = 0.1,
    max_phases: int | None = None,
    metric: str = "cosine",
    tokens: Tokens = None,
    n_boot: int = 0,
    n_null: int = 0,
    seed: int = 0,
) -> xr.Dataset:
    r"""Return the contiguous phases of depth that leave the least dissimilarity within.

    With the similarity S of blocks and :math:`W = 1 - S`, a segmentation into k phases maximises the weight of its cut,
    the sum of :math:`W_{\ell m}` over pairs :math:`\ell < m` of blocks in different phases.

    Parameters
    ----------
    data : xarray.DataArray or array-like
        A trajectory, whose :func:`similarity` is taken (depth 0 left out); or a similarity (block, block), symmetric,
        with ones on the diagonal, which is not read. Of a DataArray the first dim's coord labels the blocks; an array's
        blocks are numbered from 1.
    n_phases : int
        How many. By default as many as bisection makes until its heaviest cut falls to ``threshold`` × the total weight
        of all pairs, for either ``method``, and at most ``max_phases``.
    method : {"optimal", "bisection"}
        The best of all segmentations into k phases; or nested in k: next is split that phase whose best cut in two
        weighs most.
    min_size : int
        Least number of blocks a phase.
    threshold : float
        Share of the total weight, in [0, 1).
    max_phases : int
        Up to how many phases the curve of cut weights goes; by default 10, or as many as there is room for.
    metric, tokens
        Passed to :func:`similarity`.
    n_boot : int
        Number of resamples of the trajectory's samples.
    n_null : int
        Number of shuffles of the order of blocks.
    seed : int
        Seed of the resamples and the shuffles.

    Returns
    -------
    xarray.Dataset
        - ``phase`` (block): the block's phase, counted from 1; a coord, as ``phase`` is a dim too.
        - ``boundary`` (phase): the last block of each phase.
        - ``cut_weight``, ``gain`` (n_phases): weight of the cut for each k, and how much of it the last phase added
          (0 for one phase); NaN where bisection has no room for a further cut.
        - ``contrast``: mean similarity of pairs within phases minus that of pairs between; NaN where either has no pair
          (one phase, or every block its own).
        - ``similarity`` (block, block_other): what was cut.
        - with ``n_boot``: ``boundary_probability`` (block), the share of resamples in which a phase ends at the block,
          and ``contrast_low``, ``contrast_high``, the 95 % percentile interval.
        - with ``n_null``: ``null_contrast`` (null) of shuffled blocks, segmented anew, and ``p_value``, (1 + the number
          of those ≥ ``contrast``)/(1 + ``n_null``).

        The number of phases in the resamples and the null is that of the result.

    Raises
    ------
    ParameterError
        If a parameter does not fit, or a given similarity is not square, symmetric and finite, or is a distance.
    TrajectoryError
        What :func:`similarity` raises; or if ``n_boot`` finds fewer than two samples.

    Notes
    -----
    Dynamic programming takes O(block² · max_phases): microseconds for 12 blocks, milliseconds for 1000. Ties go to the
    smallest boundary. Dissimilarities below 1e-12 count as zero. For cosine, resamples reweight each sample's own
    similarity, in 8 · samples · block² bytes; for CKA they reweight pairs of samples, a sample with itself left out;
    for Procrustes each takes the metric anew. A resample holds at least two samples.

    A shuffled null is beaten by any similarity that decays with depth's distance: it tests for order, not for sharp
    boundaries.

    References
    ----------
    Maximum cuts of depth and the bisection: Jacobs et al., arXiv:2512.19941. Dynamic programming: Bellman 1961,
    doi:10.1145/366573.366611.

    Examples
    --------
    >>> import numpy as np, depthflow
    >>> alike = np.kron(np.eye(2), np.ones((3, 3)))[:5, :5]
    >>> found = depthflow.phases(alike, n_null=99)
    >>> found.phase.values.tolist(), found.boundary.values.tolist(), found.contrast.item()
    ([1, 1, 1, 2, 2], [3, 5], 1.0)
    """
    is_trajectory = isinstance(data, xr.DataArray) and (data.ndim != 2 or set(REQUIRED_DIMS) <= set(data.dims))
    if is_trajectory:
        prepared = compared(data, metric, tokens, False, NAME)
        blocks, coords = prepared.sizes["depth"], layer_coords(prepared)
    else:
        require_plain(metric, tokens, n_boot)
        similarity, coords = given_similarity(data)
        blocks = len(similarity)
    most = most_phases(blocks, n_phases, method, min_size, threshold, max_phases, n_boot, n_null)
    nested = method == "bisection"
    draws = None
    if is_trajectory:
        similarity, draws = _measured(prepared, metric, n_boot, seed)
    weight = dissimilarity(similarity)
    chosen = number_of_phases(weight, threshold, most, min_size) if n_phases is None else n_phases
    found = segmentation(weight, chosen, most, min_size, nested)
    if found.reached < chosen:
        raise ParameterError(
            f"{NAME} was asked for {chosen} phases, but bisection finds room for {found.reached} of at least "
            f"{min_size} blocks. Use method='optimal', fewer phases, or a smaller min_size."
        )
    sizes = np.diff(found.starts, append=blocks)
    variables: dict[str, tuple[Any, Any]] = {
        "phase": ("block", np.repeat(np.arange(1, chosen + 1), sizes)),
        "boundary": ("phase", coords["block"][found.starts + sizes - 1]),
        "cut_weight": ("n_phases", found.cut_weight),
        "gain": ("n_phases", np.diff(found.cut_weight, prepend=0.0)),
        "contrast": ((), found.contrast),
        "similarity": (("block", "block_other"), similarity),
    }
    if draws is not None:
        probability, (low, high) = resampled(draws, chosen, min_size, nested)
        variables["boundary_probability"] = ("block", probability)
        variables |= {"contrast_low": ((), low), "contrast_high": ((), high)}
    if n_null:
        null = shuffled(weight, chosen, min_size, nested, n_null, np.random.default_rng([seed, 1]))
        variables |= {"null_contrast": ("null", null), "p_value": ((), p_value(found.contrast, null))}
    settings = {"method": method, "min_size": min_size, "metric": metric if is_trajectory else "given"}
    if n_phases is None:
        settings["threshold"] = threshold
    return xr.Dataset(
        {name: xr.Variable(dims, value, _described(name)) for name, (dims, value) in variables.items()},
        coords={**coords, "n_phases": np.arange(1, most + 1)},
        attrs=settings,
    )


def _described(name: str) -> dict[str, str]:
    known = VARIABLES[name]
    return {"long_name": known.long_name, "units": known.units}


def _measured(
    prepared: xr.DataArray, metric: str, n_boot: int, seed: int
) -> tuple[np.ndarray, Iterable[np.ndarray] | None]:
    """Return the similarity of a prepared trajectory, and those of its resamples where there are to be any."""
    samples, depth = prepared.sizes["sample"], prepared["depth"].values
    if n_boot and samples < 2:
        raise TrajectoryError(f"{NAME} resamples samples with n_boot and needs at least two; got {samples}.")
    times = _times(samples, n_boot, seed)
    if metric != "cosine":
        states = one_state_a_sample(prepared, NAME)
        matrix = between_samples(states, metric, depth, NAME)
        return matrix, resampled_between_samples(states, metric, times) if n_boot else None
    cosines = accumulated(prepared, partial(Cosines, NAME, keep=n_boot > 0))
    if not n_boot:
        return cosines.mean, None
    each = cosines.each
    return cosines.mean, (np.tensordot(often / samples, each, 1) for often in times)


def _times(samples: int, n: int, seed: int) -> np.ndarray:
    """Return how often each of ``n`` resamples holds each sample; every resample holds two samples at least."""
    rng = np.random.default_rng([seed, 0])
    times = np.empty((n, samples), dtype=np.int64)
    for row in times:
        row[:] = 0
        while np.count_nonzero(row) < 2:
            row[:] = np.bincount(rng.integers(samples, size=samples), minlength=samples)
    return times
