"""Whether tokens move together: how far their directions agree, at each depth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from depthflow.errors import ParameterError, TrajectoryError
from depthflow.measures._threads import threads
from depthflow.measures._ufunc import Where, prepare, samplewise
from depthflow.schema import check

if TYPE_CHECKING:
    import xarray as xr

    from depthflow.trajectories import Tokens

MEASURE = "coherence"
OUTPUTS = {
    "coherence": ("depth",),
    "update_coherence": ("block",),
    "angle_to_mean": ("depth", "token"),
    "clusters_energy": ("depth",),
}

CLOUDS = 8
"""Depths whose pairs of tokens one thread goes through at a time."""


def coherence(
    traj: xr.DataArray, *, tokens: Tokens = "patch", beta: float = 1.0, allow_nan: bool = False
) -> xr.Dataset:
    r"""Return how far the directions of a sample's tokens agree, at each depth and in each update.

    With :math:`u_t = x_t / \|x_t\|` the direction of token t at one depth,

    .. math::

        R = \Big\| \frac{1}{T} \sum_t u_t \Big\|, \qquad
        E_\beta = \frac{1}{T^2} \sum_{t, t'} e^{\beta (\langle u_t, u_{t'} \rangle - 1)}.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory with the dim ``token`` and consecutive depths: ``(sample, depth, token, feature)``, of which
        ``sample`` may lack.
    tokens : str, int, or sequence of either
        The tokens that take part: a type, types, or indices; the patches by default, None for all. One is enough, and
        its coherence is 1.
    beta : float
        Inverse temperature β of the interaction energy; finite. It is 0 for no interaction, when the energy is 1.
    allow_nan : bool
        Whether states without a direction (zero, or not finite) are let through; then all quantities of that sample
        and depth are NaN.

    Returns
    -------
    xarray.Dataset
        In float64, less the dim ``sample`` if ``traj`` lacks it, and lazy if it is:

        - ``coherence`` (sample, depth): the mean resultant length R of the tokens' directions, in [0, 1]; 1 for
          identical directions, and √(1/T) in root mean square for isotropic ones;
        - ``update_coherence`` (sample, block): the same of the directions of the tokens' updates; NaN where a token's
          update is exactly zero, as it has no direction;
        - ``angle_to_mean`` (sample, depth, token): ∠(x_t, Σ_t u_t), rad, in [0, π]; NaN where the mean direction is
          not defined (a coherence below 1e-12, which is rounding);
        - ``clusters_energy`` (sample, depth): E_β over all pairs, t = t' among them, in (0, 1] for β ≥ 0; it grows as
          tokens gather in clusters.

        ``attrs`` keep ``beta``.

    Raises
    ------
    TrajectoryError
        If ``traj`` is no trajectory, lacks ``token`` or skips depths, or a state has no direction (says where).
    ParameterError
        If a token or type is not there, or β is not finite.

    Notes
    -----
    All sums are in float64; angles are right to a relative 1e-5 from 1e-4 rad up. Time is linear in the size of the
    states, but for ``clusters_energy``: tokens² × feature for each sample and depth, by matrix products. Memory beside
    the states is the result and, in each thread, one depth's directions and their cosines. Dask-backed states are
    worked through in their chunks along ``sample``.

    References
    ----------
    Mean resultant length: Mardia & Jupp, Directional Statistics, 2000, doi:10.1002/9780470316979. Interaction energy:
    Geshkovski et al., A Mathematical Perspective on Transformers, arXiv:2312.10794.

    Examples
    --------
    Two tokens at a right angle, then in the same direction:

    >>> import numpy as np, depthflow
    >>> states = np.array([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [3.0, 3.0]]])
    >>> traj = depthflow.trajectory(states, dims=("depth", "token", "feature"), token_type="patch")
    >>> result = depthflow.coherence(traj)
    >>> result.coherence.values.round(6).tolist()
    [0.707107, 1.0]
    >>> result.clusters_energy.values.round(6).tolist()
    [0.68394, 1.0]
    """
    from depthflow.kernels import resultant

    if "token" not in check(traj, MEASURE).dims:
        raise TrajectoryError(
            f"{MEASURE} compares tokens, so it needs the dim 'token'; got {tuple(map(str, traj.dims))}. Record or keep "
            "more than one token."
        )
    if not isinstance(beta, int | float | np.number) or not math.isfinite(beta):
        raise ParameterError(f"{MEASURE} needs a finite number as beta; got {beta!r}.")
    strength = float(beta)
    states, lacking = prepare(traj, MEASURE, tokens=tokens, consecutive=True)

    def kernel(block: np.ndarray, where: Where) -> tuple[np.ndarray, ...]:
        norm, *lengths_and_angles = resultant.resultants(block)
        where.require_directions(norm, MEASURE, allow_nan=allow_nan)

        clouds, norms = block.reshape(-1, *block.shape[2:]), norm.reshape(-1, norm.shape[2])

        def energy(part: slice) -> np.ndarray:
            return resultant.interaction_energy(clouds[part], norms[part], strength)

        with threads() as pool:
            energies = pool.map(energy, len(clouds), size=CLOUDS)
        return (*lengths_and_angles, np.concatenate(energies).reshape(norm.shape[:2]))

    return samplewise(states, lacking, kernel, OUTPUTS).assign_attrs(beta=strength)
