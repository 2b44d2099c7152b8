"""Whether pushed paths end in the basin of the path that was not pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError
from depthflow.kernels import sphere
from depthflow.measures._estimator import CHUNK
from depthflow.measures._threads import threads
from depthflow.schema import TOKEN_TYPES, describe

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""

PUSHED, UNPUSHED, CARRIED, CENTER = "final_direction", "reference_direction", "carried_direction", "center"

PUSH = ("pushed_depth", "pushed_angle", "pushed_tokens", "directions")
"""Attributes that say what the stability is against."""


def basin_stability(perturbed: xr.Dataset, basins: xr.Dataset) -> xr.Dataset:
    """Return for each basin the share of pushed paths that end in the basin of the path that was not pushed.

    A path ends in the basin of the nearest center, by the angle to its final direction. With s_i the share of sample
    i's draws that end in the basin b of its unpushed path, and n_b the samples of b,

        basin_stability_b = (1/n_b) Σ_{i in b} s_i.

    A share near 1 may be due to gaps between basins that are wide beside the push. A cluster of endpoints may be called
    a basin of attraction, for the pushes that were made, where it exceeds ``carried_stability``: the same of paths on
    which no later block answered to the push.

    Parameters
    ----------
    perturbed : xarray.Dataset
        From :func:`perturb`.
    basins : xarray.Dataset
        From :func:`basins`, of the same model, final depth and tokens (its default ones), not necessarily of the same
        samples.

    Returns
    -------
    xarray.Dataset
        - ``basin_stability`` (basin): in 0 … 1; NaN for a basin in which no unpushed path ends.
        - ``low``, ``high`` (basin): Wilson's 95 % interval [1]_, with the number of samples, not that of draws, as the
          number of trials; NaN as above.
        - ``n_samples`` (basin): samples whose unpushed path ends in the basin.
        - ``stable_share`` (sample): s_i, in 0 … 1.
        - ``carried_stability`` (basin), ``carried_share`` (sample): the null of ``basin_stability`` and
          ``stable_share``, from the ``carried_direction`` of ``perturbed``; left out where it has none.
        - ``basin`` (sample): the basin of the unpushed path. A coord, as xarray has it, since the basins' dim has the
          same name.

    Raises
    ------
    ParameterError
        If either is not what its function returns, the numbers of features differ, or the basins are those of
        another depth or of other tokens than the final directions.

    Notes
    -----
    Draws of one sample are no independent trials: a sample near the border of its basin loses many of them, one in
    the middle none. Independent are the samples, and whatever the dependence between draws, a mean of n_b shares in
    0 … 1 with expectation p has at most the variance p(1 − p)/n_b. So the interval covers the stability in at least
    the 95 % of cases that Wilson's has for n_b trials, and more draws do not make it narrower. It is about new samples
    and pushes, with the centers as they are.

    O(draw · sample · feature · basin) time.

    References
    ----------
    .. [1] E. B. Wilson, Probable inference, the law of succession, and statistical inference, J. Am. Stat. Assoc. 22
       (1927), doi:10.1080/01621459.1927.10502953.

    P. J. Menck et al., How basin stability complements the linear-stability paradigm, Nature Physics 9 (2013),
    doi:10.1038/nphys2516.

    Examples
    --------
    >>> import numpy as np, xarray as xr, depthflow
    >>> basins = xr.Dataset({"center": (("basin", "feature"), np.eye(2))})
    >>> ends = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.3, 0.7], [0.1, 0.9]]])
    >>> perturbed = xr.Dataset({
    ...     "final_direction": (("draw", "sample", "feature"), ends),
    ...     "reference_direction": (("sample", "feature"), np.eye(2)),
    ... })
    >>> result = depthflow.basin_stability(perturbed, basins)
    >>> result.basin_stability.values, result.low.values.round(3)
    (array([0.5, 1. ]), array([0.055, 0.207]))
    """
    ends = _need(perturbed, PUSHED, ("draw", "sample", "feature"), "perturbed", "perturb")
    start = _need(perturbed, UNPUSHED, ("sample", "feature"), "perturbed", "perturb")
    center = _need(basins, CENTER, ("basin", "feature"), "basins", "basins")
    _require_alike(perturbed, basins)
    own = _nearest(start, center)
    count = np.bincount(own, minlength=len(center))

    def shares(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of draws that end in the sample's own basin, of each sample and on average of each basin."""
        share = (_nearest(ends, center) == own).mean(axis=0)
        total = np.bincount(own, share, minlength=len(center))
        return share, np.divide(total, count, out=np.full(len(center), np.nan), where=count > 0)

    share, mean = shares(ends)
    low, high = wilson(mean, count)
    coords: dict[Hashable, xr.Variable] = {
        name: coord
        for name, coord in perturbed.coords.variables.items()
        if set(coord.dims) <= {"sample"} and "sample" in coord.dims
    }
    found = {
        "basin_stability": ("basin", mean),
        "low": ("basin", low),
        "high": ("basin", high),
        "n_samples": ("basin", count),
        "stable_share": ("sample", share),
        "basin": ("sample", own),
    }
    if CARRIED in perturbed:
        carried = _need(perturbed, CARRIED, ("draw", "sample", "feature"), "perturbed", "perturb")
        found["carried_share"], found["carried_stability"] = zip(("sample", "basin"), shares(carried), strict=True)
    attrs = {"n_draws": len(ends), **{name: perturbed.attrs[name] for name in PUSH if name in perturbed.attrs}}
    return describe(xr.Dataset(found, coords, attrs))


def wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of Wilson's 95 % interval for a ``share`` of ``count`` trials, NaN where the share is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        square = Z**2 / count
        middle = (share + square / 2) / (1 + square)
        half = np.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def _nearest(directions: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Return the nearest center of each row (…, feature), of centers at the same angle the first, as `basins` does."""
    rows = np.ascontiguousarray(directions, dtype=np.float64).reshape(-1, directions.shape[-1])
    nearest, margin, norm = np.empty(len(rows), dtype=np.int64), np.empty(len(rows)), np.empty(len(rows))

    def find(part: slice) -> None:
        sphere.norms(rows[part], norm[part])
        sphere.two_nearest(rows[part], norm[part], center, nearest[part], margin[part])

    with threads() as run:
        run.map(find, len(rows), CHUNK)
    return nearest.reshape(directions.shape[:-1])


def _need(dataset: object, name: str, dims: Sequence[str], argument: str, maker: str) -> np.ndarray:
    """Return the values of a variable that ``maker`` returns, its ``dims`` in order."""
    if not isinstance(dataset, xr.Dataset) or name not in dataset or set(dataset[name].dims) != set(dims):
        came = (
            type(dataset).__name__
            if not isinstance(dataset, xr.Dataset)
            else f"{name!r} with the dims {tuple(map(str, dataset[name].dims))}"
            if name in dataset
            else f"a Dataset of {sorted(map(str, dataset.data_vars))}"
        )
        raise ParameterError(
            f"basin_stability needs as {argument!r} the Dataset that `depthflow.{maker}` returns, with {name!r} on "
            f"{tuple(dims)}; got {came}."
        )
    values: np.ndarray = dataset[name].transpose(*dims).values
    finite = np.isfinite(values).all(axis=-1) & (values != 0).any(axis=-1)
    if not values.size or not finite.all():
        raise ParameterError(f"basin_stability needs directions; {name!r} has empty, zero or not finite ones.")
    return np.ascontiguousarray(values, dtype=np.float64)


def _require_alike(perturbed: xr.Dataset, basins: xr.Dataset) -> None:
    """Raise unless both are of one number of features and, as far as they say it, of one depth and the same tokens."""
    features, others = perturbed.sizes["feature"], basins.sizes["feature"]
    if features != others:
        raise ParameterError(
            f"basin_stability: the final directions have {features} features and the centers {others}. Take both from "
            "the same model."
        )
    last = int(perturbed["depth"].values[-1]) if "depth" in perturbed.coords else None
    clustered = basins.attrs.get("clustered_depth", last)
    if last is not None and clustered != last:
        raise ParameterError(
            f"basin_stability: the basins are those of depth {clustered}, and the final directions of depth {last}. "
            "Take the basins of the last depth, `depthflow.basins(traj, depth=-1)`."
        )
    ours, theirs = perturbed.attrs.get("final_direction_tokens"), basins.attrs.get("tokens")
    # Positions, or a trajectory of one token, may well be the same tokens under another name.
    if ours is not None and theirs in (*TOKEN_TYPES, "all tokens") and theirs != ours:
        raise ParameterError(
            f"basin_stability: the basins are those of the tokens {theirs!r}, and the final directions of {ours!r}. "
            "Take the basins of a recording of the same tokens, with basins(tokens='cls'), the default."
        )
