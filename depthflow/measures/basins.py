"""Basins: which final directions the samples come to, and at which depth each is committed to its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from depthflow.errors import ParameterError, TrajectoryError, raise_faults, whole_number_fault
from depthflow.kernels import sphere
from depthflow.measures._clusters import choose_number, cluster, silhouette
from depthflow.measures._directions import choose, reduce_tokens
from depthflow.measures._estimator import CHUNK
from depthflow.measures._mixture import Units
from depthflow.measures._threads import threads
from depthflow.measures._ufunc import label, prepare
from depthflow.measures.agreement import against_labels, drawn, label_codes
from depthflow.schema import check, labels

if TYPE_CHECKING:
    import xarray as xr

    from depthflow.measures._directions import Paths
    from depthflow.measures._threads import Threads
    from depthflow.trajectories import Tokens

METHODS = ("kmeans", "vmf")
LARGEST_SEED = 2**32 - 1


def basins(
    traj: xr.DataArray,
    n_basins: int | None = None,
    *,
    tokens: Tokens = "cls",
    depth: int = -1,
    method: str = "kmeans",
    max_basins: int = 20,
    n_init: int = 4,
    max_pairwise: int = 5000,
    seed: int = 0,
) -> xr.Dataset:
    """Return the clusters of the samples' final directions, and when each sample is committed to its cluster.

    The unit vectors u at the given depth are clustered; at each depth a sample's nearest center is that of the smallest
    angle. It is called a basin of attraction only once return has been tested (``perturb`` and ``basin_stability``).

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory with the dim ``sample`` (at least two) and at least two features. The coord ``label`` (sample) is
        compared with the clusters where it is there, and never takes part in the clustering.
    n_basins : int, optional
        Number of clusters. By default that of the least Bayesian information criterion among von Mises–Fisher mixtures
        of 1 … ``max_basins`` components, though of no more than half as many components as samples.
    tokens : str, sequence or None
        A token type, types or indices; several tokens count by the mean of their directions. Where a trajectory has no
        ``"cls"``, its patches stand in for it; where it has none of those either, the recorded ``"mean"``, else all
        tokens but padding.
    depth : int
        The depth to cluster: its label, or if negative its place from the end.
    method : {"kmeans", "vmf"}
        :class:`SphericalKMeans` or :class:`VonMisesFisherMixture`.
    max_basins : int
        Largest number tried where ``n_basins`` is not given.
    n_init : int
        Starts of the clustering.
    max_pairwise : int
        Largest number of samples of which all pairs are taken for ``within_angle`` and ``between_angle``; of more, that
        many drawn at random are.
    seed : int
        Seed. The same one gives the same answer at any number of threads and chunking.

    Returns
    -------
    xarray.Dataset
        Clusters are numbered from 0 in order of falling occupancy, equal ones by their first sample.

        - ``basin`` (sample): the cluster; with ``"vmf"``, the most probable one. A coord, as xarray has it, since the
          clusters' dim has the same name.
        - ``direction`` (sample, feature): the unit vectors that were clustered.
        - ``center`` (basin, feature): unit vectors.
        - ``concentration`` (basin): von Mises–Fisher κ ≥ 0 of the cluster's directions.
        - ``occupancy`` (basin): share of the samples, in 0 … 1.
        - ``silhouette`` (sample): in −1 … 1, by the cosine distance 1 − cos; 0 for a sample alone in its cluster, NaN
          where there is one cluster only.
        - ``basin_at_depth`` (sample, depth): the cluster whose center is nearest.
        - ``margin`` (sample, depth): rad, at least 0; angle to the second-nearest minus angle to the nearest center;
          NaN where there is one cluster only.
        - ``commitment_depth`` (sample): the first depth from which the nearest center never changes again.
        - ``bic`` (n_basins): the criterion, where ``n_basins`` was not given.
        - with labels, ``purity`` in 0 … 1, ``nmi`` in 0 … 1 and ``ari`` up to 1 (depth): agreement of
          ``basin_at_depth`` with the labels.
        - with labels, ``within_angle`` and ``between_angle`` (depth): rad, mean angle over the pairs of samples of the
          same, of different labels; NaN where there is no such pair.

        Its attrs say which tokens and which depth were used, and of how many samples all pairs were taken.

    Raises
    ------
    TrajectoryError
        If ``traj`` is no trajectory or has too few samples or features, a state has norm zero or is not finite (says
        where), tokens' directions cancel, or a label is NaN.
    ParameterError
        For every argument that is out of its range, or if fewer clusters than asked for hold samples.

    Notes
    -----
    A dask-backed trajectory is read once, chunk by chunk; what is kept is one direction for each sample and depth.
    Time beyond that is O(n·D·k) an iteration of the clustering (for each number tried), O(n·L·D·k) for the nearest
    centers, O(n·D·k) for the silhouette, which is exact for any n as Σ_j (1 − cos) is linear in the directions, and
    with labels O(m²·L·D) for the angles of m = min(n, ``max_pairwise``) samples.

    With ``"vmf"`` the most probable cluster need not be that of the nearest center, as concentrations differ.

    References
    ----------
    P. J. Rousseeuw, Silhouettes, J. Comput. Appl. Math. 20 (1987), doi:10.1016/0377-0427(87)90125-7. The estimators
    name the sources of the clusterings.

    Examples
    --------
    >>> import numpy as np, depthflow
    >>> ends = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.0, 2.0]])
    >>> starts = np.array([[1.0, 0.2], [1.0, 1.1], [0.3, 1.0], [1.0, 0.1], [0.0, 1.0]])
    >>> traj = depthflow.trajectory([starts, ends], dims=("sample", "feature"))
    >>> result = depthflow.basins(traj, 2)
    >>> result.basin.values
    array([1, 1, 0, 0, 0])
    >>> result.commitment_depth.values
    array([0, 1, 0, 1, 0])
    """
    at = _check(traj, n_basins, depth, method, max_basins, n_init, max_pairwise, seed)
    choice = choose(traj, tokens, "basins")
    prepared, lacking = prepare(traj, "basins", tokens=choice.tokens)
    depths = labels(prepared, "depth")
    paths = reduce_tokens(prepared, "basins")
    end = Units(np.ascontiguousarray(paths.states[:, at]), paths.norm[:, at].copy())
    curve = None
    if n_basins is None:
        n_basins, curve = choose_number(end, max_basins, n_init, seed)
    clusters = cluster(end, n_basins, method, n_init, seed)
    with threads() as run:
        nearest, margin = _nearest(paths, clusters.centers, run)
        if method == "kmeans":
            clusters = clusters._replace(label=nearest[:, at].copy())
        variables: dict[str, Any] = {
            "basin": ("sample", clusters.label),
            "direction": (("sample", "feature"), end.part(slice(None))),
            "center": (("basin", "feature"), clusters.centers),
            "concentration": ("basin", clusters.concentration),
            "occupancy": ("basin", np.bincount(clusters.label, minlength=n_basins) / len(clusters.label)),
            "silhouette": ("sample", silhouette(end, clusters.label, n_basins, run)),
            "basin_at_depth": (("sample", "depth"), nearest),
            "margin": (("sample", "depth"), margin),
            "commitment_depth": ("sample", _commitment(nearest, depths)),
        }
        attrs: dict[str, Any] = {
            "tokens": choice.said,
            "n_tokens": prepared.sizes["token"],
            "clustered_depth": int(depths[at]),
            "method": method,
            "seed": int(seed),
        }
        classes = label_codes(prepared)
        if classes is not None:
            pairwise = drawn(len(classes), max_pairwise, seed)
            variables |= against_labels(paths, nearest, classes, pairwise, run)
            attrs["pairwise_samples"] = len(pairwise)
    if curve is not None:
        variables |= {"bic": ("n_basins", curve), "n_basins": ("n_basins", np.arange(1, len(curve) + 1))}
    return label(variables, prepared, lacking, attrs)


def _check(
    traj: xr.DataArray,
    n_basins: int | None,
    depth: int,
    method: str,
    max_basins: int,
    n_init: int,
    max_pairwise: int,
    seed: int,
) -> int:
    """Raise for every fault of the arguments; return the position of ``depth``."""
    traj = check(traj, "basins")
    faults = []
    if traj.sizes.get("sample", 0) < 2:
        came = f"{traj.sizes['sample']}" if "sample" in traj.dims else f"the dims {tuple(map(str, traj.dims))}"
        faults.append(f"needs at least two samples, on the dim 'sample', as it clusters them; got {came}.")
    if traj.sizes["feature"] < 2:
        faults.append("needs at least two features, as directions in one dimension are mere signs; got 1.")
    raise_faults(TrajectoryError, "basins", faults)
    if n_basins is not None:
        faults += whole_number_fault("n_basins", n_basins)
        if not faults and n_basins > traj.sizes["sample"]:
            faults.append(f"needs n_basins up to the number of samples, {traj.sizes['sample']}; got {n_basins}.")
    faults += whole_number_fault("max_basins", max_basins)
    faults += whole_number_fault("n_init", n_init)
    faults += whole_number_fault("max_pairwise", max_pairwise, 2)
    faults += whole_number_fault("seed", seed, 0, LARGEST_SEED)
    if method not in METHODS:
        faults.append(f"knows the methods {METHODS}; got {method!r}.")
    depths = labels(traj, "depth")
    least = -len(depths)
    whole = not whole_number_fault("depth", depth, least)
    place = np.flatnonzero(depths == depth) if whole and depth >= 0 else np.array([depth] if whole else [], dtype=int)
    if not len(place):
        faults.append(f"needs depth as one of {depths.tolist()}, or from the end, {least} to -1; got {depth!r}.")
    raise_faults(ParameterError, "basins", faults)
    return int(place[0])


def _nearest(paths: Paths, centers: np.ndarray, run: Threads) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest center and the margin of each sample at each depth."""
    samples, depths, features = paths.states.shape
    nearest, margin = np.empty((samples, depths), dtype=np.int64), np.empty((samples, depths))

    def find(part: slice) -> None:
        rows = np.ascontiguousarray(paths.states[part]).reshape(-1, features)
        norm = np.ascontiguousarray(paths.norm[part]).reshape(-1)
        sphere.two_nearest(rows, norm, centers, nearest[part].reshape(-1), margin[part].reshape(-1))

    run.map(find, samples, max(1, CHUNK // depths))
    return nearest, margin


def _commitment(nearest: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Return the depth that follows the last change of the nearest center, or the first depth if there is none."""
    changed = nearest[:, 1:] != nearest[:, :-1]
    last = changed.shape[1] - np.argmax(changed[:, ::-1], axis=1)
    committed: np.ndarray = depths[np.where(changed.any(axis=1), last, 0)]
    return committed
