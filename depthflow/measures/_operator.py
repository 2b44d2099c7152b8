"""The one operator of a span of depth from sums of products, and the result that describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from depthflow.errors import ParameterError
from depthflow.measures._dmd_arguments import NAME
from depthflow.measures._linear_maps import (
    IMPRECISE,
    Inputs,
    Maps,
    Sums,
    baseline_maps,
    independent_directions,
    require_squares,
)
from depthflow.measures._modes import Modes, modes
from depthflow.schema import TOKEN_TYPES, describe, token_types
from depthflow.trajectories import STRING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Fit(NamedTuple):
    """The operator's ``modes``, the ``maps`` whose predictions are judged, and what they were fitted to.

    ``reciprocal`` is that of the inputs' condition number squared, ``pairs`` the number of pairs of states.
    """

    modes: Modes
    maps: Maps
    horizons: Sequence[int]
    reciprocal: float
    pairs: int


def fitted(
    sums: Sums,
    horizons: Sequence[int],
    rank: int | None,
    ridge: float,
    tokens: int,
    correct: Callable[[np.ndarray, Inputs], np.ndarray] | None = None,
) -> Fit:
    """Return the operator and the maps that ``sums`` determine, in whose memory the maps are kept.

    Parameters
    ----------
    tokens : int
        Number of tokens a sample, for messages.
    correct : callable
        From the operator and its inputs to a better one, where sums of products are not precise enough.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        gram = sums.gram.sum(0)
    require_squares(gram, NAME)
    inputs = Inputs(gram, rank, ridge)
    if not inputs.resolved:
        _refuse(min(independent_directions(gram, rank, ridge), (rank or len(gram)) - 1), rank, sums, tokens)
    operator = inputs.map_of(sums.step.sum(0))
    if correct is not None and inputs.reciprocal < IMPRECISE:
        operator = correct(operator, inputs)
    found = modes(operator, inputs.basis, sums.gram[0] / sums.rows)
    maps = baseline_maps(sums, operator, horizons, rank, ridge)
    return Fit(found, maps, horizons, inputs.reciprocal, sums.rows * len(sums.gram))


def token_kinds(traj: xr.DataArray) -> tuple[np.ndarray, list[str]]:
    """Return the kind of each token as a position among the kinds that there are, and these."""
    of_token = token_types(traj)
    kinds = [kind for kind in TOKEN_TYPES if kind in of_token]
    return np.array([kinds.index(kind) for kind in of_token]), kinds


def described(
    fit: Fit, errors: Mapping[str, np.ndarray], kinds: Sequence[str], first: int, ridge: float, *, held_out: bool
) -> xr.Dataset:
    """Return the result for a span from depth ``first`` and the errors (horizon, token_type) of its predictions."""
    eigenvalue, vector, amplitude = fit.modes
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log(np.abs(eigenvalue))
        skill = np.where(errors["error_identity"] > 0, 1 - (errors["error"] / errors["error_identity"]) ** 2, np.nan)
    result = xr.Dataset(
        {
            "eigenvalue": ("mode", eigenvalue),
            "growth": ("mode", growth),
            "frequency": ("mode", np.angle(eigenvalue)),
            "amplitude": ("mode", amplitude),
            "mode_vector": (("mode", "feature"), vector),
            "operator": (("feature_out", "feature"), fit.maps.operator),
            **{name: (("horizon", "token_type"), values) for name, values in errors.items()},
            "skill": (("horizon", "token_type"), skill),
        },
        {
            "mode": np.arange(1, len(eigenvalue) + 1),
            "horizon": list(fit.horizons),
            "token_type": np.array(kinds, dtype=STRING),
        },
        {
            "span": [first, first + len(fit.maps.step)],
            "rank": len(eigenvalue),
            "ridge": float(ridge),
            "n_pairs": fit.pairs,
            "held_out": int(held_out),
            "condition": fit.reciprocal**-0.5,
            "unresolved_blocks": [first + at + 1 for at, step in enumerate(fit.maps.step) if step is None],
            "unresolved_horizons": [horizon for horizon, far in fit.maps.far.items() if far is None],
        },
    )
    return describe(result, NAME)


def _refuse(independent: int, rank: int | None, sums: Sums, tokens: int) -> None:
    """Raise for states that do not determine the operator."""
    blocks, features = sums.gram.shape[:2]
    samples = sums.rows // tokens
    needed = f"all {features} features" if rank is None else f"rank={rank}"
    fewer = f", or ask for rank={independent} or less" if independent else ""
    raise ParameterError(
        f"{NAME}: the states do not determine the operator. The {sums.rows * blocks} pairs (samples {samples} × "
        f"tokens {tokens} × blocks {blocks}) have {independent} independent inputs; {needed} need as many. Record more "
        f"samples, pass a ridge (such as ridge=1e-6){fewer}."
    )
