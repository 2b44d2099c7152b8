"""Intervals by resampling samples, and null trajectories that keep the norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError, TrajectoryError
from depthflow.lazy import whole_chunks
from depthflow.schema import VARIABLES, check

Measure = Callable[..., xr.Dataset | xr.DataArray]

CONFIDENCE = 0.95
PERCENTILES = (2.5, 97.5)
PART_BYTES = 32 * 2**20
"""Of a lazy result, what is in memory at a time."""


def bootstrap(measure: Measure, traj: xr.DataArray, *, n: int = 200, seed: int = 0, **kwargs: Any) -> xr.Dataset:
    """Return a measure's estimates with percentile intervals from resampled samples (never tokens).

    The estimate of a variable that has the dim ``sample`` is its mean over samples, NaN left out; any other variable
    (a similarity, a pooled spectrum) is its own estimate. Samples are drawn with replacement ``n`` times, the measure
    is taken of each draw, and the interval runs from the 2.5th to the 97.5th percentile (Efron & Tibshirani 1993,
    doi:10.1201/9780429246593).

    Parameters
    ----------
    measure : callable
        Takes a trajectory and ``kwargs``, returns a Dataset or DataArray; any of depthflow's measures, or your own.
    traj : xarray.DataArray
        Trajectory with at least two samples.
    n : int
        Number of resamples.
    seed : int
        Seed of the draws.
    **kwargs
        Passed to ``measure``.

    Returns
    -------
    xarray.Dataset
        Each numeric variable ``v`` (less the dim ``sample``) with ``v_low`` and ``v_high`` of the same dims and units.
        Left out are labels such as ``basin``, whose mean says nothing, and what is told of each basin, as every
        resample numbers its clusters anew.

    Raises
    ------
    TrajectoryError
        If the trajectory has fewer than two samples.
    ParameterError
        If ``n`` is below 2, or a variable's size changes from one resample to another (fix it by an argument of the
        measure, as with ``n_basins`` or ``n_phases``).

    Notes
    -----
    A measure that treats each sample by itself (its result says so in the attr ``samplewise``) is taken once, and its
    result is resampled; of a dask-backed trajectory part by part, so that memory does not grow with the samples but for
    8·n bytes each. Any other takes ``n + 1`` times its time, and the memory of one resampled trajectory.

    A sample that is drawn twice makes a pair of equal samples. Statistics of pairs (``ari``, ``nmi``, ``within_angle``,
    CKA) see agreement in that, and their intervals shift; :func:`phases` leaves such pairs out of its own resamples.

    Examples
    --------
    >>> import depthflow
    >>> traj = depthflow.synthetic.spherical_sink(rate=0.5)
    >>> interval = depthflow.bootstrap(depthflow.convergence, traj, n=50)
    >>> bool((interval.speed_low <= interval.speed).all() and (interval.speed <= interval.speed_high).all())
    True
    """
    samples = check(traj, "bootstrap").sizes.get("sample", 0)
    if samples < 2:
        raise TrajectoryError(f"bootstrap resamples samples and needs at least two; got {samples}.")
    if n < 2:
        raise ParameterError(f"bootstrap needs n of at least 2 resamples; got {n}.")
    result = measure(traj, **kwargs)
    estimate = _estimates(result)
    rng = np.random.default_rng(seed)
    chosen = [np.sort(rng.integers(samples, size=samples)) for _ in range(n)]
    if result.attrs.get("samplewise"):
        draws = _means_of_draws(result, estimate, chosen)
    else:
        draws = _repeated(lambda rows: _estimates(measure(traj.isel(sample=rows), **kwargs)), estimate, chosen)
    for name, values in draws.items():
        low, high = np.percentile(values, PERCENTILES, axis=0)
        for end, bound in (("low", low), ("high", high)):
            estimate[f"{name}_{end}"] = estimate[name].copy(data=bound)
            long_name = estimate[name].attrs.get("long_name", name)
            estimate[f"{name}_{end}"].attrs["long_name"] = f"{long_name}, {end} end of the interval"
    estimate.attrs |= {"confidence": CONFIDENCE, "resamples": n, "seed": seed}
    return estimate


def mean_interval(values: np.ndarray, *, n: int = 200, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of one value a sample, NaN left out, and its percentile interval over resampled samples."""
    rng = np.random.default_rng(seed)
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan, np.nan
    means = [known[rng.integers(len(known), size=len(known))].mean() for _ in range(n)]
    low, high = np.percentile(means, PERCENTILES)
    return float(known.mean()), float(low), float(high)


def shuffle_depth(traj: xr.DataArray, *, seed: int = 0) -> xr.DataArray:
    """Return the trajectory with its depths in random order: the null of every claim about order in depth.

    One permutation serves all samples and tokens; each state stays as it is, so the norms are kept and only their
    order is lost.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory.
    seed : int
        Seed of the permutation.

    Returns
    -------
    xarray.DataArray
        Same dims and coords; the permutation is in the attr ``shuffled_depth``.

    Examples
    --------
    >>> import depthflow
    >>> traj = depthflow.synthetic.rotation(n_depths=4)
    >>> sorted(depthflow.shuffle_depth(traj, seed=1).attrs["shuffled_depth"])
    [0, 1, 2, 3]
    """
    order = np.random.default_rng(seed).permutation(check(traj, "shuffle_depth").sizes["depth"])
    shuffled = traj.isel(depth=order)
    if "depth" in traj.coords:
        shuffled = shuffled.assign_coords(depth=traj["depth"])
    return shuffled.assign_attrs(shuffled_depth=order.tolist())


def random_directions(traj: xr.DataArray, *, seed: int = 0) -> xr.DataArray:
    """Return the trajectory with every state turned to an independent, uniformly random direction, its norm kept.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory, in memory or dask-backed; the answer does not depend on the chunks.
    seed : int
        Seed; each sample has a stream of its own, by its position.

    Returns
    -------
    xarray.DataArray
        Same dims, coords and dtype.

    References
    ----------
    Muller 1959, doi:10.1145/377939.377946 (normalised normal draws are uniform on the sphere).

    Examples
    --------
    >>> import depthflow
    >>> traj = depthflow.synthetic.rotation()
    >>> null = depthflow.random_directions(traj)
    >>> bool(abs((null**2).sum("feature") - (traj**2).sum("feature")).max() < 1e-12)
    True
    """
    check(traj, "random_directions")
    others = [dim for dim in traj.dims if dim not in ("sample", "feature")]
    position = xr.DataArray(np.arange(traj.sizes.get("sample", 1)), dims="sample")
    if "sample" not in traj.dims:
        position = position.isel(sample=0)
    if traj.chunks is not None:
        # The states alone: xarray would put labels into one chunk, at odds with those of the states.
        core_dims = [traj.get_axis_num(dim) for dim in [*others, "feature"]]
        traj = traj.copy(data=traj.data.rechunk(dict.fromkeys(core_dims, -1)))
        if "sample" in traj.dims:
            position = position.chunk(sample=traj.data.chunks[traj.get_axis_num("sample")])

    def turned(states: np.ndarray, samples: np.ndarray) -> np.ndarray:
        result = np.empty_like(states)
        for index in np.ndindex(samples.shape):
            rng = np.random.default_rng([seed, int(samples[index])])
            draw = rng.standard_normal(states[index].shape)
            scale = np.sqrt(_squares(states[index]) / _squares(draw))[..., np.newaxis]
            np.multiply(draw, scale, out=result[index], casting="same_kind")
        return result

    core = [*others, "feature"]
    result = xr.apply_ufunc(
        turned,
        traj,
        position,
        input_core_dims=[core, ()],
        output_core_dims=[core],
        dask="parallelized",
        output_dtypes=[traj.dtype],
        keep_attrs="override",
    )
    named: xr.DataArray = result.transpose(*traj.dims).rename(traj.name)
    return named


def _squares(vectors: np.ndarray) -> np.ndarray:
    """Return the squared lengths along the last dim, in float64."""
    total: np.ndarray = np.einsum("...i,...i->...", vectors, vectors, dtype=np.float64)
    return total


def _means_of_draws(
    result: xr.Dataset | xr.DataArray, estimate: xr.Dataset, chosen: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return each variable's mean over every draw of samples, from the values of the samples.

    A lazy result is taken part by part, all variables at once, so that its states are read once.
    """
    dataset = (result.to_dataset() if isinstance(result, xr.DataArray) else result)[list(estimate)].reset_coords(
        drop=True
    )
    samples = dataset.sizes["sample"]
    weight = np.stack([np.bincount(rows, minlength=samples) for rows in chosen]).astype(np.float64)
    total = {name: np.zeros((len(chosen), variable.size)) for name, variable in estimate.items()}
    known = {name: np.zeros_like(sums) for name, sums in total.items()}
    first = dataset[next(iter(estimate))].variable
    for part in whole_chunks(first, PART_BYTES * samples // max(1, dataset.nbytes)):
        for name, variable in dataset.isel(sample=part).compute().items():
            values = variable.transpose("sample", ...).values.reshape(variable.sizes["sample"], -1).astype(np.float64)
            present = ~np.isnan(values)
            total[name] += weight[:, part] @ np.where(present, values, 0.0)
            known[name] += weight[:, part] @ present
    with np.errstate(invalid="ignore"):
        return {str(name): (total[name] / known[name]).reshape(len(chosen), *estimate[name].shape) for name in estimate}


def _repeated(
    measured: Callable[[np.ndarray], xr.Dataset], estimate: xr.Dataset, chosen: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return each variable as measured anew on every draw of samples."""
    draws: dict[str, list[np.ndarray]] = {str(name): [] for name in estimate}
    for rows in chosen:
        resampled = measured(rows)
        for name, values in draws.items():
            if resampled[name].shape != estimate[name].shape:
                raise ParameterError(
                    f"bootstrap: {name!r} changed its shape from {estimate[name].shape} to {resampled[name].shape} in "
                    "a resample. Fix its size by an argument of the measure, such as n_basins or n_phases."
                )
            values.append(resampled[name].values)
    return {name: np.stack(values) for name, values in draws.items()}


def _estimates(result: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Return the numeric variables that mean the same in every resample, averaged over samples."""
    dataset = result.to_dataset() if isinstance(result, xr.DataArray) else result
    kept = [
        name
        for name, variable in dataset.data_vars.items()
        if variable.dtype.kind in "fiu"
        and not (str(name) in VARIABLES and VARIABLES[str(name)].categorical)
        and "basin" not in variable.dims
    ]
    dataset = dataset[kept]
    if "sample" in dataset.dims:
        dataset = dataset.mean("sample", skipna=True, keep_attrs=True)
    return dataset.drop_vars([name for name, coord in dataset.coords.items() if "sample" in coord.dims]).compute()
