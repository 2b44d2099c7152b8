"""How many directions a block's update uses: the singular values of the tokens' updates, and ranks from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthflow.errors import ParameterError, TrajectoryError, raise_faults
from depthflow.kernels import lowrank
from depthflow.measures._chunks import require_finite
from depthflow.measures._pooled_spectra import NAME, RANKS, difference, pooled_singular_values, pooled_variables
from depthflow.measures._threads import threads
from depthflow.measures._ufunc import Where, label, prepare, samplewise

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from depthflow.trajectories import Tokens

SLICE_BYTES = 2**20
"""Updates that one thread takes at a time: small matrices in batches, large ones singly."""

HELD = 500
"""NumPy's linear algebra holds the interpreter's lock, so that threads wait, up to this many rows a call in all."""


def update_spectra(
    traj: xr.DataArray,
    *,
    tokens: Tokens = None,
    center: bool = False,
    pool: bool = False,
    energy: float = 0.9,
    n_modes: int | None = None,
    exact: bool = False,
) -> xr.Dataset:
    r"""Return the singular values of each block's update matrix, and its effective dimensions.

    The update of one sample by one block is the matrix U (token, feature) with the rows
    :math:`\Delta_\ell = x_\ell - x_{\ell-1}` and the singular values :math:`\sigma_1 \ge \sigma_2 \ge \dots`; with
    :math:`p_i = \sigma_i / \sum_j \sigma_j`,

    .. math::
        \mathrm{stable} = \frac{\sum_i \sigma_i^2}{\sigma_1^2}, \quad
        \mathrm{effective} = \exp\Big(-\sum_i p_i \ln p_i\Big), \quad
        \mathrm{participation} = \frac{(\sum_i \sigma_i^2)^2}{\sum_i \sigma_i^4},

    and the energy rank is the least r with
    :math:`\sum_{i \le r} \sigma_i^2 \ge \mathrm{energy} \cdot \sum_i \sigma_i^2`.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory (sample, depth, token, feature) with consecutive depths; ``sample`` may be absent, and ``token`` too
        with ``pool=True``.
    tokens : str, int, or sequence of either
        Token types or indices that make up the rows; all by default.
    center : bool
        Subtract the mean of the rows. Without it a mean that the tokens share makes the stable rank about 1 whatever
        else happens. Kept in the result's attrs.
    pool : bool
        Stack the rows of all samples: one spectrum a block. Centering then subtracts the mean over all of them.
    energy : float
        Share of Σσ² that ``energy_rank`` is to hold, in (0, 1].
    n_modes : int
        How many singular values to return, at most min(rows, features), which is the default. The ranks always use the
        whole spectrum.
    exact : bool
        Use LAPACK's SVD always (of a triangular factor, where pooled).

    Returns
    -------
    xarray.Dataset
        ``singular_value`` (sample, block, mode), state unit, ≥ 0, largest first, ``mode`` counted from 1;
        ``stable_rank``, ``effective_rank``, ``participation_ratio`` and ``energy_rank`` (sample, block), in
        [1, min(rows, features)], NaN where an update is zero. Without ``sample`` where pooled.

    Raises
    ------
    TrajectoryError
        If ``traj`` is no trajectory, skips depths, lacks tokens, has one row where it is to be centered, or has a state
        that is not finite (says where).
    ParameterError
        If ``tokens``, ``energy`` or ``n_modes`` does not fit.

    Notes
    -----
    Updates are taken in float64. The smaller Gram matrix in float64 gives the spectrum, about half the time of an SVD;
    it squares the condition number, so LAPACK's SVD takes over, matrix by matrix, where a singular value lies below
    about 3e-5 of the largest. Either way every :math:`\sigma_i \ge 10^{-6} \sigma_1` has a relative error below 1e-5.
    Time grows as
    samples × blocks × rows × features × min(rows, features), dealt out to the BLAS's threads matrix by matrix.

    Pooled, memory is one chunk of samples and one (feature, feature) matrix a block, whatever the number of samples.
    Where the Gram matrix does not resolve the spectrum, the states are read a second time for a QR factorisation.

    Of dask-backed input the unpooled result is lazy; the pooled one is computed at once, chunk by chunk, on a cluster
    by each worker of its own chunks.

    References
    ----------
    Effective rank: Roy & Vetterli, EUSIPCO 2007. Stable rank: Rudelson & Vershynin 2007, doi:10.1145/1255443.1255449.

    Examples
    --------
    A block whose update has the singular values 4 and 3:

    >>> import numpy as np, depthflow
    >>> states = np.zeros((2, 3, 5))
    >>> states[1, 0, 0], states[1, 1, 1] = 4, 3
    >>> spectra = depthflow.update_spectra(depthflow.trajectory(states, dims=("depth", "token", "feature")))
    >>> spectra.singular_value.values.tolist()
    [[4.0, 3.0, 0.0]]
    >>> spectra.stable_rank.values.tolist()
    [1.5625]
    """
    prepared, lacking = settled(traj, tokens, pool, energy, n_modes)
    rows = prepared.sizes["token"] * (prepared.sizes["sample"] if pool else 1)
    kept = number_of_modes(rows, prepared.sizes["feature"], n_modes, center)
    if pool:
        values = pooled_singular_values(prepared, center, exact)
        return described(values, energy, kept, prepared, lacking, center, exact)
    result = _each(prepared, lacking, center, energy, kept, exact)
    return _with_settings(result, kept, center, False, energy, exact)


def settled(
    traj: object, tokens: Tokens, pool: bool, energy: float, n_modes: int | None
) -> tuple[xr.DataArray, list[str]]:
    """Return the prepared trajectory and the dims that it lacked, or raise for what is out of range or missing."""
    faults = []
    if not 0 < energy <= 1:
        faults.append(f"energy is a share in (0, 1]; got {energy!r}.")
    if n_modes is not None and (not isinstance(n_modes, int | np.integer) or n_modes < 1):
        faults.append(f"n_modes is a number of singular values, at least 1; got {n_modes!r}.")
    raise_faults(ParameterError, NAME, faults)
    prepared, lacking = prepare(traj, NAME, tokens=tokens, consecutive=True)
    if "token" in lacking and not pool:
        raise TrajectoryError(
            f"{NAME} takes the spectrum of one sample's tokens, but the trajectory has no dim 'token'. Pass pool=True "
            "for the spectrum of all samples' updates."
        )
    return prepared, lacking


def number_of_modes(rows: int, features: int, n_modes: int | None, center: bool) -> int:
    """Return how many singular values of a matrix of this size to give, or raise if there are too few."""
    if center and rows < 2:
        raise TrajectoryError(f"{NAME} with center=True needs at least two rows a matrix; got {rows}.")
    modes = min(rows, features)
    if n_modes is not None and n_modes > modes:
        raise ParameterError(
            f"{NAME} was asked for n_modes={n_modes}, but a matrix of {rows} rows and {features} features has {modes}. "
            "Ask for fewer, or leave n_modes out."
        )
    return modes if n_modes is None else int(n_modes)


def described(
    values: np.ndarray,
    energy: float,
    kept: int,
    traj: xr.DataArray,
    lacking: Sequence[str],
    center: bool,
    exact: bool,
) -> xr.Dataset:
    """Return the pooled result of a prepared trajectory's singular values (block, mode)."""
    result = label(pooled_variables(values, energy, kept), traj, lacking, {})
    return _with_settings(result, kept, center, True, energy, exact)


def _with_settings(result: xr.Dataset, kept: int, center: bool, pool: bool, energy: float, exact: bool) -> xr.Dataset:
    settings = {"center": int(center), "pool": int(pool), "energy": float(energy), "exact": int(exact)}
    return result.assign_coords(mode=np.arange(1, kept + 1)).assign_attrs(settings)


def _each(
    traj: xr.DataArray, lacking: Sequence[str], center: bool, energy: float, kept: int, exact: bool
) -> xr.Dataset:
    """Return one spectrum a sample and block."""

    def kernel(states: np.ndarray, where: Where) -> tuple[np.ndarray, ...]:
        require_finite(states, where, NAME)
        samples, depths, rows, features = states.shape
        values = np.zeros((samples, depths - 1, min(rows, features)))

        def fill(part: slice) -> None:
            for block in range(depths - 1):
                update = difference(states[part], block)
                found = lowrank.singular_values(lowrank.without_mean(update) if center else update, exact=exact)
                values[part, block, : found.shape[-1]] = found

        with threads() as workers:
            at_once = max(SLICE_BYTES // (rows * features * 8), HELD // min(rows, features) + 1)
            calls = max(1, samples // at_once)
            calls -= calls % workers.count if calls > workers.count else 0
            workers.map(fill, samples, -(-samples // calls))
        return (values[..., :kept], *lowrank.ranks(values, energy))

    outputs = {"singular_value": ("block", "mode")} | {name: ("block",) for name in RANKS}
    return samplewise(traj, lacking, kernel, outputs, sizes={"mode": kept})
