"""How linear a span of depth is: one operator for all its blocks, its modes, and the error of what it predicts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from depthflow.measures._accumulate import accumulated
from depthflow.measures._dmd_arguments import NAME, ends, judged_horizons, judged_states, states_within
from depthflow.measures._linear_maps import Sums, corrected
from depthflow.measures._operator import described, fitted, token_kinds
from depthflow.measures._prediction import prediction_errors
from depthflow.measures._ufunc import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from depthflow.trajectories import Tokens


def dmd(
    traj: xr.DataArray,
    *,
    span: tuple[int, int] | None = None,
    rank: int | None = None,
    ridge: float = 0.0,
    tokens: Tokens = None,
    horizons: int | Sequence[int] | None = None,
    test: xr.DataArray | None = None,
) -> xr.Dataset:
    r"""Return the one linear operator that best does the work of every block of a span, its modes and its errors.

    Dynamic mode decomposition along depth: over the blocks ℓ of the span, all samples and the chosen tokens,

    .. math::
        K = \arg\min_K \sum \lVert K x_{\ell-1} - x_\ell \rVert^2 + \alpha \lVert K \rVert_F^2, \qquad
        \alpha = \mathrm{ridge} \cdot \frac{1}{D} \sum \lVert x_{\ell-1} \rVert^2 .

    The states are taken as they are: no mean is subtracted, so that K is linear, not affine. With ``rank`` K sees no
    more of its input than the leading ``rank`` directions of Σ x xᵀ (POD modes of the inputs; exact DMD). With
    :math:`K \varphi_i = \lambda_i \varphi_i`, :math:`\lVert \varphi_i \rVert = 1`, the left eigenvectors
    :math:`\psi_i^* \varphi_j = \delta_{ij}` and :math:`b_i = \psi_i^* x`, the prediction is
    :math:`K^p x = \sum_i \lambda_i^p b_i \varphi_i` for p ≥ 1.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory (sample, depth, token, feature); ``sample`` and ``token`` may be absent. Each of its samples' tokens
        is a path of its own; no pair joins two of them.
    span : (int, int)
        First and last depth, by label, consecutive between; all depths by default. The blocks are first + 1 … last.
    rank : int
        From 1 to the number of features D; all of them by default.
    ridge : float
        Weight of the penalty, as a share of the inputs' mean square over directions: it means the same at any scale of
        the states and any number of them. At least 0.
    tokens : str, int, or sequence of either
        Token types or indices; all by default.
    horizons : int or sequence of int
        Numbers of blocks p over which predictions are judged, from 1 to last − first; all of these by default.
    test : xarray.DataArray
        Other states, of the same features and with the span's depths, on which the errors are measured. By default they
        are measured on ``traj`` itself, which flatters maps with more parameters.

    Returns
    -------
    xarray.Dataset
        ``eigenvalue`` (mode), complex, no unit, by falling modulus, then rising ``frequency``, of a conjugate pair that
        of positive frequency first; modes count from 1 to ``rank`` or D; ``mode_vector`` (mode, feature), complex, of
        unit norm, its largest component real and positive; ``growth`` (mode) = ln|λ|, 1/block, −∞ for λ = 0;
        ``frequency`` (mode) = arg λ in (−π, π], rad/block; ``amplitude`` (mode) in state units: the root mean square
        of :math:`b_i` over the states at the span's first depth, NaN for a defective eigenvalue; ``operator``
        (feature_out, feature), no unit.

        ``error`` (horizon, token_type), no unit, ≥ 0, over all starts ℓ with ℓ and ℓ + p in the span, all samples and
        the tokens of the type:
        :math:`\sqrt{\sum \lVert K^p x_\ell - x_{\ell+p} \rVert^2 / \sum \lVert x_{\ell+p} \rVert^2}`. The same of
        ``error_identity``, which leaves :math:`x_\ell` as it is; ``error_endpoint``, the one map fitted for that p;
        ``error_per_step``, the product of the maps fitted for each block; both with the same ``rank`` and ``ridge``.
        ``skill`` = 1 − (error/error_identity)², at most 1, negative where K is worse than doing nothing; NaN where
        nothing moves.

        In the attrs: ``span``, ``rank``, ``ridge``, ``n_pairs``, ``held_out`` (1 with ``test``), ``condition``, the
        estimated condition number of the inputs, and ``unresolved_blocks`` and ``unresolved_horizons``.

    Raises
    ------
    TrajectoryError
        If ``traj`` or ``test`` is no trajectory, they have different features or lack a depth of the span, a state is
        not finite (says where), or squares of states overflow.
    ParameterError
        If an argument is out of range, or the states do not determine K: fewer independent states than D, or than
        ``rank`` (says how many there are).

    Notes
    -----
    No pseudo-inverse takes the place of an operator that the states do not determine. A baseline that they do not
    determine is NaN instead: a block's own map sees only the states at one depth (those of the class token at depth 0
    are all the same), and one such block leaves no product of all blocks. The attrs ``unresolved_blocks`` and
    ``unresolved_horizons`` name them; ``ridge``, a later first depth or more samples mend it.

    The states are read twice, part by part (dask's chunks, one at a time; on a cluster each worker its own): for sums
    of products in float64, and for the errors, which come from the states themselves. Where the condition number of the
    inputs exceeds 100, a reading between corrects K. Beside one part, memory is about 3·L·D² float64 values for L
    blocks: 0.6 GB at L = 24, D = 1024.
    Time is rows·D²·L² (four such products for all horizons), and D³ for the 2L + 1 maps and the modes.

    Amplitudes below 1e-8 of the initial states' size are rounding. Modes of eigenvalues that agree to rounding are
    known only together.

    References
    ----------
    Along depth: Aswani & Jabari, arXiv:2605.07556. DMD: Schmid 2010, doi:10.1017/S0022112010001217; exact DMD: Tu et
    al. 2014, doi:10.3934/jcds.2014.1.391.

    Examples
    --------
    Every block turns the states by 0.1 rad in a plane, and shrinks them to nine tenths:

    >>> import numpy as np, depthflow
    >>> block = 0.9 * np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
    >>> states = [np.random.default_rng(0).normal(size=(8, 2))]
    >>> for _ in range(5):
    ...     states.append(states[-1] @ block.T)
    >>> result = depthflow.dmd(depthflow.trajectory(states, dims=("sample", "feature")))
    >>> abs(result.eigenvalue).values.round(6).tolist(), result.frequency.values.round(6).tolist()
    ([0.9, 0.9], [0.1, -0.1])
    >>> bool(result.error.max() < 1e-12)
    True
    """
    prepared, _ = prepare(traj, NAME, tokens=tokens)
    first, last = ends(prepared, span)
    within = states_within(prepared, first, last, NAME)
    judged = within if test is None else judged_states(test, tokens, first, last, within.sizes["feature"])
    blocks, features = last - first, within.sizes["feature"]
    chosen = judged_horizons(horizons, rank, ridge, blocks, features)
    sums = accumulated(within, partial(Sums, blocks, features, chosen, NAME))
    fit = fitted(sums, chosen, rank, ridge, within.sizes["token"], partial(corrected, traj=within, measure=NAME))
    of_token, kinds = token_kinds(judged)
    errors = prediction_errors(judged, fit.maps, chosen, of_token, len(kinds), NAME)
    return described(fit, errors, kinds, first, ridge, held_out=test is not None)
