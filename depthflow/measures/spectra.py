"""How many directions a block's update uses: the singular values of the tokens' updates, and ranks from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthflow.errors import ParameterError, TrajectoryError, raise_faults
from depthflow.kernels import lowrank
from depthflow.kernels.running import RunningFactor, RunningGram
from depthflow.measures._chunks import parts, require_finite
from depthflow.measures._threads import threads
from depthflow.measures._ufunc import Where, label, prepare, samplewise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

    from depthflow.trajectories import Tokens

NAME = "update_spectra"
SLICE_BYTES = 2**20
"""Updates that one thread takes at a time: small matrices in batches, large ones singly."""

HELD = 500
"""NumPy's linear algebra holds the interpreter's lock, so that threads wait, up to this many rows a call in all."""

RANKS = ("stable_rank", "effective_rank", "participation_ratio", "energy_rank")


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

    Of dask-backed input the unpooled result is lazy; the pooled one is computed at once, chunk by chunk.

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
    rows = prepared.sizes["token"] * (prepared.sizes["sample"] if pool else 1)
    if center and rows < 2:
        raise TrajectoryError(f"{NAME} with center=True needs at least two rows a matrix; got {rows}.")
    features = prepared.sizes["feature"]
    modes = min(rows, features)
    if n_modes is not None and n_modes > modes:
        raise ParameterError(
            f"{NAME} was asked for n_modes={n_modes}, but a matrix of {rows} rows and {features} features has {modes}. "
            "Ask for fewer, or leave n_modes out."
        )
    kept = modes if n_modes is None else int(n_modes)
    if pool:
        result = _pooled(prepared, lacking, center, energy, kept, exact)
    else:
        result = _each(prepared, lacking, center, energy, kept, exact)
    settings = {"center": int(center), "pool": int(pool), "energy": float(energy), "exact": int(exact)}
    return result.assign_coords(mode=np.arange(1, kept + 1)).assign_attrs(settings)


def _difference(states: np.ndarray, block: int) -> np.ndarray:
    """Return the updates (sample, token, feature) by the block at position ``block``, in float64.

    The difference of float32 states would round away singular values far below the largest.
    """
    update: np.ndarray = np.subtract(states[:, block + 1], states[:, block], dtype=np.float64)
    return update


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
                update = _difference(states[part], block)
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


def _pooled(
    traj: xr.DataArray, lacking: Sequence[str], center: bool, energy: float, kept: int, exact: bool
) -> xr.Dataset:
    """Return one spectrum a block, over all samples' tokens."""
    blocks, features = traj.sizes["depth"] - 1, traj.sizes["feature"]
    rows = traj.sizes["sample"] * traj.sizes["token"]
    values = np.zeros((blocks, min(rows, features)))
    unresolved = np.arange(blocks)
    if not exact and rows > features:
        grams = [RunningGram(features, center) for _ in range(blocks)]
        for block, update in _block_rows(traj, range(blocks)):
            grams[block].add(update)
        values, resolved = lowrank.singular_values_of_grams(np.stack([gram.matrix for gram in grams]))
        unresolved = np.flatnonzero(~resolved)
    factors = {int(block): RunningFactor(features, center) for block in unresolved}
    if factors:
        for block, update in _block_rows(traj, list(factors)):
            factors[block].add(update)
        for block, factor in factors.items():
            found = lowrank.singular_values(factor.matrix, exact=exact)[: values.shape[1]]
            values[block, : len(found)] = found
    named = dict(zip(RANKS, lowrank.ranks(values, energy), strict=True))
    variables = {name: ("block", rank) for name, rank in named.items()}
    return label({"singular_value": (("block", "mode"), values[:, :kept]), **variables}, traj, lacking, {})


def _block_rows(traj: xr.DataArray, blocks: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Give the rows of each block's update, part by part along ``sample``."""
    for states, where in parts(traj):
        require_finite(states, where, NAME)
        for block in blocks:
            yield block, _difference(states, block).reshape(-1, states.shape[-1])
