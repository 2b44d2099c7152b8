"""Whether directions settle along depth, how fast they turn, and how straight their paths are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError, raise_faults
from depthflow.measures._ufunc import Where, prepare, samplewise
from depthflow.schema import labels
from depthflow.trajectories import Tokens, token_indices

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MEASURE = "convergence"
PER_DEPTH, PER_BLOCK, PER_PATH = ("depth", "token"), ("block", "token"), ("token",)
OUTPUTS = {
    "norm": PER_DEPTH,
    "alignment": PER_DEPTH,
    "angle": PER_DEPTH,
    "speed": PER_BLOCK,
    "turning": PER_BLOCK,
    "update_norm": PER_BLOCK,
    "radial_fraction": PER_BLOCK,
    "path_length": PER_PATH,
    "straightness": PER_PATH,
    "settling_depth": PER_PATH,
}


def convergence(
    traj: xr.DataArray,
    *,
    reference: str | int | ArrayLike | xr.DataArray = "final",
    tolerance: float = 0.1,
    tokens: Tokens = None,
    allow_nan: bool = False,
) -> xr.Dataset:
    r"""Return how each token's direction approaches a reference direction, and the geometry of its path.

    With the direction :math:`u_\ell = x_\ell / \|x_\ell\|` of the state at depth ℓ and the update
    :math:`\Delta_\ell = x_\ell - x_{\ell-1}` of block ℓ,

    .. math::

        \gamma_\ell = \langle u_\ell, u_\mathrm{ref} \rangle, \qquad
        s_\ell = \angle(x_{\ell-1}, x_\ell), \qquad
        \kappa_\ell = \angle(\Delta_{\ell-1}, \Delta_\ell).

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory with consecutive depths: dims ``(sample, depth, token, feature)``, of which ``sample`` and ``token``
        may lack.
    reference : "final", int, array-like, or xarray.DataArray
        What states are compared with: each path's own state at the last depth; its own state at the depth of this
        label (in the trajectory's coord ``depth``); or a given direction, of any positive norm. A plain array is one
        direction (feature,) for all. A DataArray has the dim ``feature`` and may have ``sample`` and ``token``, as
        for a direction for each class: ``directions.sel(label=traj.label)``. Along these it must match ``traj`` as it
        is given, before ``tokens`` chooses.
    tolerance : float
        Angle (rad) to the reference within which a path counts as settled; positive.
    tokens : str, int, or sequence of either
        A token type, types, or indices; all by default.
    allow_nan : bool
        Whether states without a direction (zero, or not finite) are let through; what depends on them is NaN.

    Returns
    -------
    xarray.Dataset
        In float64, less the dims that ``traj`` lacks, and lazy if it is:

        - ``norm`` (sample, depth, token): ‖x_ℓ‖, state units;
        - ``alignment`` (sample, depth, token): γ, in [−1, 1];
        - ``angle`` (sample, depth, token): ∠(x_ℓ, x_ref), rad, in [0, π];
        - ``speed`` (sample, block, token): s, rad/block, in [0, π];
        - ``turning`` (sample, block, token): κ, rad, in [0, π]; NaN at the first block, which has none before it, and
          where either update is zero;
        - ``update_norm`` (sample, block, token): ‖Δ_ℓ‖, state units;
        - ``radial_fraction`` (sample, block, token): ⟨Δ_ℓ, u_{ℓ−1}⟩/‖Δ_ℓ‖, in [−1, 1]; ±1 is pure rescaling; NaN
          where the update is zero;
        - ``path_length`` (sample, token): Σ_ℓ s_ℓ, rad;
        - ``straightness`` (sample, token): ∠(x_0, x_L)/Σ_ℓ s_ℓ from the first to the last depth given, in [0, 1]; NaN
          where the direction does not turn (path_length of at most 1e-15 rad a block, which is rounding);
        - ``settling_depth`` (sample, token): the label of the first depth from which ``angle`` stays within
          ``tolerance`` for good; NaN if it does not.

        ``attrs`` keep ``reference`` ("final", the depth, or "given") and ``tolerance``.

    Raises
    ------
    TrajectoryError
        If ``traj`` is no trajectory or skips depths, or a state has no direction (says where the first is).
    ParameterError
        If the reference's depth is not there, its width or other sizes do not fit, or it has no direction; if the
        tolerance is not positive; if a token is not there.

    Notes
    -----
    Angles are right to a relative 1e-5 from 1e-4 rad up, and far better in general: inner products are accumulated in
    float64, and near 0 and π, where an arccosine would lose digits, an angle is 2·atan2(‖â − b̂‖, ‖â + b̂‖). Identical
    states are at angle exactly 0. Updates are exact differences wherever they are small beside their states.

    Time is linear in the size of the states, which are read once; memory beside them is the result, seven float64
    numbers for each state. Dask-backed states are worked through in their chunks along ``sample``.

    References
    ----------
    Alignment and angular speed: Jacobs et al., Block-Recurrent Dynamics in Vision Transformers, arXiv:2512.19941.
    Turning: Pandey & Singh 2026, Trajectory Geometry of Transformer Representations Across Layers, arXiv:2606.09287.
    Chord formula: Kahan 2006, How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?, §12.

    Examples
    --------
    A direction that turns by 0.1 rad a block, in a plane:

    >>> import numpy as np, depthflow
    >>> turn = 0.1 * np.arange(5)
    >>> traj = depthflow.trajectory(np.stack([np.cos(turn), np.sin(turn)], axis=1))
    >>> result = depthflow.convergence(traj, tolerance=0.25)
    >>> result.angle.values.round(6).tolist()
    [0.4, 0.3, 0.2, 0.1, 0.0]
    >>> result.speed.values.round(6).tolist()
    [0.1, 0.1, 0.1, 0.1]
    >>> float(result.straightness.round(6)), float(result.settling_depth)
    (1.0, 2.0)
    """
    from depthflow.kernels import angular

    states, lacking = prepare(traj, MEASURE, tokens=tokens, consecutive=True)
    depths = labels(states, "depth")
    faults = _tolerance_faults(tolerance)
    position, directions = _resolve(reference, traj, depths, faults)
    raise_faults(ParameterError, MEASURE, faults)
    if directions is not None and "token" in directions.dims:
        directions = directions.isel(token=token_indices(traj, tokens, MEASURE))
    same, beside = (None, []) if directions is None else _rows(directions)
    settling = np.append(depths.astype(np.float64), np.nan)

    def kernel(block: np.ndarray, where: Where, *each: np.ndarray) -> tuple[np.ndarray, ...]:
        given = each[0] if each else same
        result = angular.paths(block, position if given is None else given, tolerance=tolerance)
        where.require_directions(result.norm, MEASURE, allow_nan=allow_nan)
        return (*result[:-1], settling[result.settled])

    result = samplewise(states, lacking, kernel, OUTPUTS, beside=beside)
    said = "given" if directions is not None else reference if isinstance(reference, str) else int(depths[position])
    result.attrs |= {"reference": said, "tolerance": float(tolerance)}
    return result


def _tolerance_faults(tolerance: object) -> list[str]:
    if isinstance(tolerance, int | float | np.floating) and 0.0 < tolerance < math.inf:
        return []
    return [f"needs a tolerance that is a positive angle in rad; got {tolerance!r}."]


def _resolve(
    reference: object, traj: xr.DataArray, depths: np.ndarray, faults: list[str]
) -> tuple[int, xr.DataArray | None]:
    """Return the reference as a position along depth, or as directions; what is wrong with it is added to faults."""
    if isinstance(reference, str):
        if reference != "final":
            faults.append(f"knows the reference 'final', a depth, or a direction; got {reference!r}.")
        return len(depths) - 1, None
    if isinstance(reference, int | np.integer) and not isinstance(reference, bool):
        found = np.flatnonzero(depths == int(reference))
        if not len(found):
            faults.append(
                f"was given the reference depth {int(reference)}, which is not among the trajectory's depths "
                f"{depths[0]} to {depths[-1]}. Choose one of these, or 'final'."
            )
            return len(depths) - 1, None
        return int(found[0]), None
    return -1, _directions(reference, traj, faults)


def _directions(reference: object, traj: xr.DataArray, faults: list[str]) -> xr.DataArray:
    """Return a given reference as a DataArray (sample or not, token or not, feature) in memory, in float64."""
    if not isinstance(reference, xr.DataArray):
        array = np.asarray(reference)
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            faults.append(
                "needs a reference that is 'final', a depth, one direction (feature,), or a DataArray with the dim "
                f"'feature' and optionally 'sample' and 'token'; got {type(reference).__name__} of shape {array.shape} "
                f"and dtype {array.dtype}."
            )
            array = np.ones(traj.sizes["feature"])
        reference = xr.DataArray(array, dims="feature")
    strange = [str(dim) for dim in reference.dims if dim not in ("sample", "token", "feature")]
    if strange or "feature" not in reference.dims:
        faults.append(
            "needs a reference with the dim 'feature' and optionally 'sample' and 'token'; got the dims "
            f"{tuple(map(str, reference.dims))}. Select or rename the others."
        )
        return reference
    faults.extend(_fit_faults(reference, traj))
    values = reference.astype(np.float64).compute()
    with np.errstate(over="ignore"):
        norm = np.sqrt((values.values**2).sum(axis=values.get_axis_num("feature")))
    if not np.all((norm > 0) & np.isfinite(norm)):
        faults.append("needs reference directions that are finite and not zero; got one without a direction.")
    return values


def _fit_faults(reference: xr.DataArray, traj: xr.DataArray) -> list[str]:
    faults = []
    for dim in map(str, reference.dims):
        if reference.sizes[dim] != traj.sizes.get(dim):
            faults.append(
                f"needs a reference that fits the trajectory along {dim!r}; got {reference.sizes[dim]}, the trajectory "
                f"has {traj.sizes.get(dim, 'no such dim')}."
            )
        elif dim in reference.indexes and dim in traj.indexes and not reference.indexes[dim].equals(traj.indexes[dim]):
            faults.append(f"needs a reference with the trajectory's own labels along {dim!r}; they differ.")
    return faults


def _rows(directions: xr.DataArray) -> tuple[np.ndarray | None, list[xr.DataArray]]:
    """Return the directions (sample or 1, token or 1, feature), either the same for all samples or one a sample."""
    missing = [dim for dim in ("sample", "token") if dim not in directions.dims]
    rows = xr.DataArray(directions.variable).expand_dims(missing).transpose("sample", "token", "feature")
    if "sample" in missing:
        return rows.values, []
    return None, [rows.rename(token="reference_token", feature="reference_feature")]
