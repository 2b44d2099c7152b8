"""What blocks do to small deviations from a path, from states alone: restricted Jacobians and their exponents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError, TrajectoryError, raise_faults, whole_number_fault
from depthflow.measures._chunks import require_finite
from depthflow.measures._ufunc import Where, as_states, prepare, samplewise
from depthflow.schema import DIMS, describe, labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAME = "finite_jacobian"
DRAW = "draw"
OUTPUTS = {
    "singular_value": ("block", "token", "mode"),
    "rank": ("block", "token"),
    "exponent": ("block", "token", "mode"),
}
SOURCE = 'Pass `depthflow.perturb(..., states=True)["state"]`, or a sequence of trajectories.'


def finite_jacobian(
    reference: xr.DataArray,
    perturbed: xr.DataArray | Sequence[xr.DataArray],
    *,
    n_modes: int | None = None,
    rcond: float = 1e-6,
) -> xr.Dataset:
    r"""Return what each block does to small changes of a state, from a reference path and perturbed ones.

    With the deviations :math:`E_\ell = (x'_{\ell,1} - x_\ell, \dots, x'_{\ell,R} - x_\ell)` of R perturbed paths, the
    map of block ℓ is known on their span: :math:`E_\ell = M_\ell E_{\ell-1}`. Its gains are the singular values

    .. math::

        \sigma_i(M_\ell Q_{\ell-1}), \qquad E_{\ell-1} P = Q_{\ell-1} R_{\ell-1},

    with Q the orthonormal basis of a QR decomposition with pivoting P; and with the columns in the order that P had at
    the first depth :math:`\ell_0` with a deviation, the accumulated exponents are

    .. math::

        \lambda_i(\ell) = \frac{1}{\ell - \ell_0} \ln \frac{|R_{\ell,ii}|}{|R_{\ell_0,ii}|}.

    Parameters
    ----------
    reference : xarray.DataArray
        Trajectory (sample, depth, token, feature) with consecutive depths; ``sample`` and ``token`` may lack.
    perturbed : xarray.DataArray, or sequence of xarray.DataArray
        The perturbed paths: the reference's dims and ``draw``, in any order, as the variable ``state`` of ``perturb``
        with ``states=True``; or one trajectory a draw. Dims, sizes, dtype and labels must be the reference's.
    n_modes : int
        How many singular values and exponents to return, at most min(draws, features), which is the default.
    rcond : float
        Deviations, relative to the largest of the same sample, token and depth, below which a direction is dropped; in
        [0, 1). Directions that the rounding of the states could have made are always dropped.

    Returns
    -------
    xarray.Dataset
        In float64, less the dims that ``reference`` lacks, and lazy where an input is dask-backed:

        - ``singular_value`` (sample, block, token, mode): σ, 1 (state unit per state unit), ≥ 0, largest first,
          ``mode`` counted from 1; NaN beyond ``rank``; 0 where the image cannot be told from rounding;
        - ``rank`` (sample, block, token): how many directions the deviations before the block span, in
          [0, min(draws, features)]; 0 where there is no deviation: before the push, or at a token that it has not
          reached;
        - ``exponent`` (sample, block, token, mode): λ up to this block, 1/block. NaN up to the block at whose output
          the path first deviates. NaN also from the block at which the mode can no longer be told from the span of
          those before it, and so are the modes after it, whose R is a distance to a span that is no longer known.

        ``attrs`` keep ``rcond`` and the number of draws.

    Raises
    ------
    TrajectoryError
        If ``reference`` is no trajectory or skips depths; if ``perturbed`` does not match it in dims, sizes, dtype or
        labels (says where they first differ); if a state is not finite (says where).
    ParameterError
        If ``rcond`` or ``n_modes`` is out of range; more modes need more draws.

    See Also
    --------
    perturb : Makes perturbed paths.

    Notes
    -----
    *What it is the derivative of.* Deviations are finite: σ is that of the Jacobian up to terms of their own size
    relative to the length over which the block bends. And they are those of one token along the perturbed flow, so what
    reaches it through the other tokens counts; a Jacobian of the token alone holds the others still.

    *Exponents.* Benettin et al. re-orthogonalise the deviations after every step, to keep them from falling onto one
    direction, and sum the logarithms of the triangular factors' diagonals. Since
    :math:`E_\ell = M_\ell Q_{\ell-1} R_{\ell-1}`, that product of factors is the factor of :math:`E_\ell` itself, and
    the sum is the one above. What re-orthogonalising would save is lost here, as the states hold no more digits: a mode
    of which the states tell nothing is NaN. The modes keep the order of the first factor and are not sorted; the sum of
    the first k is the growth rate of the volume that the first k deviations span. Over so few blocks they are
    finite-depth exponents, from which nothing asymptotic follows.

    *Accuracy.* A direction's relative error is about :math:`\varepsilon \|x\| / |R_{ii}|`, with ε the spacing of the
    states' numbers: 1e-7 for float32, so that after a push of 1e-2 ‖x‖ it is some 1e-5. Directions up to
    :math:`|R_{ii}| = \varepsilon \sqrt{R} (\|x\| + \|x'\|)` are dropped as rounding. States that are less exact than
    their dtype, as after arithmetic in half precision, need a larger ``rcond``. Where the draws outnumber ``rank``,
    those that pivoting chose stand for all.

    *Cost.* Time grows as samples × depths × tokens × draws × (draws × features + 10 draws²), dealt out to all cores
    sample by sample and token by token; memory beside the states is the result and one path's deviations a core.
    Dask-backed states are worked through in their chunks along ``sample``.

    References
    ----------
    Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15 (1980), doi:10.1007/BF02128236. One-sided Jacobi SVD: Drmač &
    Veselić 2008, doi:10.1137/050639193.

    Examples
    --------
    A block that doubles the first coordinate and halves the second:

    >>> import numpy as np, depthflow
    >>> gains = np.array([2.0, 0.5]) ** np.arange(4)[:, None]
    >>> reference = depthflow.trajectory(gains * [3.0, 5.0])
    >>> perturbed = [depthflow.trajectory(gains * start) for start in ([3.25, 5.0], [3.0, 5.125])]
    >>> result = depthflow.finite_jacobian(reference, perturbed)
    >>> result.singular_value.sel(block=1).values.round(12).tolist()
    [2.0, 0.5]
    >>> result.exponent.sel(block=3).values.round(6).tolist()
    [0.693147, -0.693147]
    """
    from depthflow.kernels import tangent

    raise_faults(ParameterError, NAME, _argument_faults(n_modes, rcond))
    states, lacking = prepare(reference, NAME, consecutive=True)
    paths = _paths(reference, perturbed, lacking)
    draws = labels(paths, DRAW)
    kept = _modes(n_modes, len(draws), paths.sizes["feature"])
    eps = max(float(np.finfo(dtype).eps) for dtype in (states.dtype, as_states(np.empty(0, states.dtype)).dtype))
    if paths.chunks is not None:
        paths = paths.chunk({dim: -1 for dim in paths.dims if dim != "sample"})
        if states.chunks is None:
            states = states.chunk(sample=paths.variable.chunksizes["sample"])

    def kernel(block: np.ndarray, where: Where, pushed: np.ndarray) -> tuple[np.ndarray, ...]:
        pushed = as_states(pushed)
        require_finite(block, where, NAME)
        for at, draw in enumerate(draws):
            require_finite(pushed[:, at], where, f"{NAME}, in draw {draw},")
        return tangent.deviation_maps(block, pushed, n_modes=kept, rcond=float(rcond), eps=eps)

    result = samplewise(states, lacking, kernel, OUTPUTS, sizes={"mode": kept}, beside=[paths])
    result = result.assign_coords(mode=np.arange(1, kept + 1))
    return describe(result, NAME).assign_attrs(rcond=float(rcond), draws=len(draws))


def _argument_faults(n_modes: object, rcond: object) -> list[str]:
    faults = []
    if not isinstance(rcond, int | float | np.floating) or not 0 <= rcond < 1:
        faults.append(f"rcond is a share in [0, 1); got {rcond!r}.")
    if n_modes is not None:
        faults += whole_number_fault("n_modes", n_modes)
    return faults


def _modes(n_modes: int | None, draws: int, features: int) -> int:
    """Return the number of modes to give, at most as many as there can be."""
    most = min(draws, features)
    if n_modes is None or n_modes <= most:
        return most if n_modes is None else int(n_modes)
    remedy = f"Record {n_modes} draws" if n_modes <= features else "There are no more than features"
    raise ParameterError(
        f"{NAME} was asked for n_modes={n_modes}, but {draws} draws of {features} features have {most}. {remedy}, or "
        "ask for fewer."
    )


def _paths(reference: xr.DataArray, perturbed: object, lacking: list[str]) -> xr.DataArray:
    """Return the perturbed paths (sample, draw, depth, token, feature); one that does not match is refused."""
    if isinstance(perturbed, xr.DataArray):
        raise_faults(TrajectoryError, NAME, _mismatches(reference, perturbed, {DRAW, *reference.dims}))
        return perturbed.expand_dims(lacking).transpose("sample", DRAW, *DIMS[1:])
    if not isinstance(perturbed, list | tuple) or not all(isinstance(path, xr.DataArray) for path in perturbed):
        raise TrajectoryError(
            f"{NAME} needs perturbed states, an xarray.DataArray with the dim 'draw'; got {_kind(perturbed)}. {SOURCE}"
        )
    if not perturbed:
        raise TrajectoryError(f"{NAME} needs at least one perturbed path; got an empty sequence.")
    faults = []
    for draw, path in enumerate(perturbed):
        faults += [f"draw {draw} {fault}" for fault in _mismatches(reference, path, set(reference.dims))]
    raise_faults(TrajectoryError, NAME, faults)
    bare = [xr.DataArray(path.variable).expand_dims([*lacking, DRAW]) for path in perturbed]
    return xr.concat([path.transpose("sample", DRAW, *DIMS[1:]) for path in bare], DRAW)


def _kind(perturbed: object) -> str:
    if isinstance(perturbed, list | tuple):
        strange = next(path for path in perturbed if not isinstance(path, xr.DataArray))
        return f"a sequence that holds {type(strange).__name__}"
    return type(perturbed).__name__


def _mismatches(reference: xr.DataArray, perturbed: xr.DataArray, dims: Iterable[object]) -> list[str]:
    """Return what keeps the perturbed states from being compared with the reference, number by number."""
    wanted, got = sorted(map(str, dims)), sorted(map(str, perturbed.dims))
    if wanted != got:
        needs = tuple(dim for dim in (DRAW, *DIMS) if dim in wanted)
        remedy = SOURCE if DRAW in wanted and DRAW not in got else "Select or rename until they are the same."
        return [f"needs perturbed states with the dims {needs}; got {tuple(map(str, perturbed.dims))}. {remedy}"]
    faults = [
        f"needs as many perturbed states along {dim!r} as in the reference; got {perturbed.sizes[dim]} against {size}."
        for dim, size in reference.sizes.items()
        if perturbed.sizes[dim] != size
    ]
    if perturbed.sizes.get(DRAW) == 0:
        faults.append("needs at least one perturbed path; dim 'draw' is empty.")
    if perturbed.dtype != reference.dtype:
        faults.append(
            f"needs perturbed states in the reference's dtype, {reference.dtype}; got {perturbed.dtype}. Record both "
            "alike: states that are rounded apart deviate by that alone."
        )
    return faults or [fault for name in (*DIMS, "token_type") for fault in _differing(reference, perturbed, name)]


def _differing(reference: xr.DataArray, perturbed: xr.DataArray, name: str) -> list[str]:
    """Return where the coord ``name`` of both, if they have it, first differs."""
    pair = [array.coords.variables.get(name) for array in (reference, perturbed)]
    if pair[0] is None or pair[1] is None:
        return []
    ours, theirs = (np.ravel(coord.values).tolist() for coord in pair)
    if ours == theirs:
        return []
    at = next((place for place, (own, other) in enumerate(zip(ours, theirs, strict=False)) if own != other), 0)
    return [
        f"needs perturbed states of the reference's own {name}; they first differ at position {at}: {theirs[at]!r} "
        f"against {ours[at]!r}. Select the same states from both."
    ]
