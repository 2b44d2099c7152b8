"""Exact Jacobians of a model's blocks along the states that it passes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from depthflow.errors import ParameterError, is_whole_number, raise_faults, whole_number_fault
from depthflow.recording.linearize import Linearization, differentiable, require_differentiable, sparing_inputs
from depthflow.recording.session import session
from depthflow.recording.spectrum import DIMS, Draws, Found, by_products, formed
from depthflow.schema import describe

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import nn

    from depthflow.models.generic import Blocks
    from depthflow.recording.session import Session
    from depthflow.trajectories import Tokens

WHAT = "jacobian"
DENSE_UP_TO = 128
"""Dimension of a Jacobian that is cheaper whole than by products."""


def jacobian(
    model: nn.Module,
    inputs: Any,
    *,
    span: str | tuple[int, int] = "blocks",
    tokens: Tokens = "cls",
    directional: bool = True,
    n_modes: int = 8,
    dense: bool | None = None,
    rtol: float = 1e-3,
    n_probes: int = 8,
    max_iter: int = 100,
    vectors: bool = False,
    labels: ArrayLike | None = None,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    blocks: Blocks = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    r"""Return what spans of blocks do to a small change of a state: the singular values of their exact Jacobians.

    With :math:`J = \partial x_m / \partial x_\ell` along the model's own path, by autodiff. With ``directional`` (the
    default) all quantities but eigenvalues, ``nonnormality`` and ``symmetry`` are of the map of directions, in rad per
    rad,

    .. math::

        A = \frac{\|x_\ell\|}{\|x_m\|} (I - u_m u_m^T)\, J\, (I - u_\ell u_\ell^T), \qquad u = x / \|x\|,

    for several tokens token by token, so that a change is measured by the angles of all of them. Then
    :math:`\sigma_{max}(A) < 1` means that every small change of direction shrinks.

    Parameters
    ----------
    model, inputs, labels, device, blocks, progress
        As for :func:`depthflow.record`; the model in float32 or float64.
    span : "blocks", "cumulative" or (int, int)
        Every block; from depth 0 to every depth; or from one depth to a deeper one.
    tokens : str, sequence of str, int, or sequence of int
        Whose states change and are looked at, all others being held at the start and free on the way: a token type,
        positions, or ``"all"`` for the joint state of all tokens.
    directional : bool
        Whether of directions (A) or of states (J).
    n_modes : int
        Leading singular values to return, from 0.
    dense : bool, optional
        Whether to form J: then every quantity is exact, and eigenvalues come with it. By default it is formed up to a
        dimension of 128, and else worked with by products alone.
    rtol : float
        Relative error at which a singular value found by products counts as converged.
    n_probes : int
        Random vectors for ``rms_gain`` where J is not formed; at least 2.
    max_iter : int
        Products with A and with its transpose, at most, for the singular values.
    vectors : bool
        Whether to return the singular vectors: the directions that grow most, and into what.
    batch_size : int
        Samples at a time, for a tensor or dict.
    seed : int
        Seed of starts and probes; each sample has its own, by its position.

    Returns
    -------
    xarray.Dataset
        In float64. ``span`` is labelled by the depth at which it ends, with the coords ``start`` and ``stop``:

        - ``singular_value`` (sample, span, mode): the largest first, 1;
        - ``residual`` (sample, span, mode): a singular value lies within it of the one given; 0 where J is formed;
        - ``converged`` (sample, span): whether every residual is within ``rtol`` · σ, or σ next to zero;
        - ``exponent`` (sample, span, mode): ln σ / (m − ℓ), the finite-depth Lyapunov exponents, 1/block;
        - ``rms_gain`` (sample, span): ‖A‖_F/√dim, the root-mean-square growth over all directions, with its standard
          error ``rms_gain_error`` over probes, of ``n_probes`` − 1 degrees of freedom (Student), 0 where J is formed.
          dim is that of the domain: features of all chosen tokens, less one a token if directional;
        - only where J is formed, and always of J: ``eigenvalue`` (sample, span, eigenmode), complex, by descending
          modulus; ``nonnormality`` √(‖J‖_F² − Σ|λ|²)/‖J‖_F (Henrici), 0 for a normal matrix; ``symmetry``
          ‖(J + Jᵀ)/2‖_F²/‖J‖_F², 1 for a symmetric matrix, 0 for an antisymmetric one;
        - with ``vectors``, ``right`` and ``left`` (sample, span, mode, token, feature): unit singular vectors in and
          out.

    Raises
    ------
    ParameterError
        If a depth, token or number is out of range, or more modes are asked for than there are dimensions.
    RecordError
        If the model is in half precision, its blocks cannot be called again or differentiated, or memory would run
        out.
    UnsupportedModelError
        As :func:`depthflow.record`.

    Notes
    -----
    By products: Golub–Kahan–Lanczos with full re-orthogonalisation. It tells near values apart, but may give one that
    is there several times to rounding only once; formed, it is given each time. A product with A or Aᵀ costs about as
    much as the span's forward pass, and memory is the span's activations for one batch and ``2 · max_iter`` states.
    Formed: as many backward passes as dimensions, and dim² numbers a sample. The Jacobian of the joint state of
    ViT-B would be 92 GB; by products it is not formed. ``rms_gain`` takes the leading singular values as they are, and
    Hutchinson's estimator, with probes of unit norm, for the rest.

    Fused attention is replaced by attention written out for the duration, which differs by rounding. About a dozen
    blocks support no claim on limits: the exponents are those of a finite depth, and A's eigenvalues are not given,
    as A maps one tangent space to another.

    References
    ----------
    Golub & Kahan 1965, doi:10.1137/0702016. Hutchinson 1990, doi:10.1080/03610919008812866. Henrici 1962,
    doi:10.1007/BF01386294. Jacobians along the residual stream: Fernando & Guitchounts 2026, arXiv:2605.14258.

    Examples
    --------
    >>> import depthflow
    >>> model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("test")
    >>> result = depthflow.jacobian(model, data.images[:2], progress=False)
    >>> dict(result.singular_value.sizes)
    {'sample': 2, 'span': 12, 'mode': 8}
    >>> bool((result.rms_gain.isel(span=-1) < 1).all())
    True
    """
    _check(span, n_modes, rtol, n_probes, max_iter, seed)
    batches: list[list[Found]] = []
    with (
        session(
            model,
            inputs,
            WHAT,
            tokens=tokens,
            labels=labels,
            batch_size=batch_size,
            device=device,
            blocks=blocks,
            progress=progress,
        ) as run,
        differentiable(run.adapter),
    ):
        for replay in run:
            run.require_full_precision(replay)
            spans = _spans(span, run.n_blocks)
            for depth in spans[-1]:
                run.require_depth(depth, run.n_blocks)
            index = torch.as_tensor(run.chosen.index, device=replay.states[0].device)
            samples = range(run.count, run.count + replay.batch.size)
            if not batches:
                with sparing_inputs(replay):
                    require_differentiable(replay, spans[0][0], spans[-1][1])
            batches.append([])
            for start, stop in spans:
                linear = Linearization(replay, start, stop, index, directional=directional)
                _require_modes(n_modes, linear.dim)
                with sparing_inputs(replay):
                    if linear.dim <= DENSE_UP_TO if dense is None else dense:
                        found = formed(linear, n_modes, vectors=vectors)
                    else:
                        draws = Draws(linear, seed, samples)
                        found = by_products(linear, draws, n_modes, rtol, max_iter, n_probes, vectors=vectors)
                with np.errstate(divide="ignore"):  # a map that loses a direction has an exponent of −∞
                    found["exponent"] = np.log(found["singular_value"]) / (stop - start)
                batches[-1].append(found)
        settings = {
            "directional": directional,
            "rtol": rtol,
            "seed": seed,
            "dense": "eigenvalue" in batches[0][0],
        }
        return _assembled(batches, spans, run).assign_attrs(settings)


def _assembled(batches: list[list[Found]], spans: Sequence[tuple[int, int]], run: Session) -> xr.Dataset:
    """Return all samples and spans as one labelled Dataset."""
    variables = {
        name: (
            ("sample", "span", *DIMS[name]),
            np.concatenate([np.stack([found[name] for found in row], axis=1) for row in batches]),
        )
        for name in batches[0][0]
    }
    known = run.coords(run.chosen)
    used = {dim for dims, _ in variables.values() for dim in dims}
    coords = {name: value for name, value in known.items() if (value[0] if isinstance(value, tuple) else name) in used}
    modes = variables["singular_value"][1].shape[2]
    coords |= {
        "mode": np.arange(1, modes + 1),
        "span": [stop for _, stop in spans],
        "start": ("span", [start for start, _ in spans]),
        "stop": ("span", [stop for _, stop in spans]),
    }
    return describe(xr.Dataset(variables, coords, run.attributes()), WHAT)


def _spans(span: str | tuple[int, int], n_blocks: int) -> list[tuple[int, int]]:
    """Return the first and last depth of each span."""
    if span == "blocks":
        return [(block - 1, block) for block in range(1, n_blocks + 1)]
    if span == "cumulative":
        return [(0, depth) for depth in range(1, n_blocks + 1)]
    return [(int(span[0]), int(span[1]))]


def _check(span: object, n_modes: int, rtol: float, n_probes: int, max_iter: int, seed: int) -> None:
    faults = []
    if isinstance(span, str) or not isinstance(span, Sequence) or len(span) != 2 or not all(map(is_whole_number, span)):
        if span not in ("blocks", "cumulative"):
            faults.append(f"needs span as 'blocks', 'cumulative' or two depths such as (0, 12); got {span!r}.")
    elif not span[0] < span[1]:
        faults.append(f"needs a span that runs forwards, from a depth to a deeper one; got {span!r}.")
    faults += whole_number_fault("n_modes", n_modes, 0)
    if not isinstance(rtol, int | float | np.number) or not 0 < rtol < 1:
        faults.append(f"needs rtol between 0 and 1; got {rtol!r}.")
    faults += whole_number_fault("n_probes", n_probes, 2) + whole_number_fault("max_iter", max_iter)
    faults += whole_number_fault("seed", seed, 0)
    raise_faults(ParameterError, WHAT, faults)


def _require_modes(n_modes: int, dim: int) -> None:
    if n_modes > dim:
        raise ParameterError(
            f"{WHAT} was asked for {n_modes} modes, but these tokens' map has {dim} dimensions. Lower n_modes or "
            "choose more tokens."
        )
