"""The arguments of ``dmd``: which depths, which horizons, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthflow.errors import ParameterError, TrajectoryError, is_whole_number, raise_faults
from depthflow.measures._ufunc import prepare
from depthflow.schema import check_consecutive, labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from depthflow.trajectories import Tokens

NAME = "dmd"


def ends(traj: xr.DataArray, span: tuple[int, int] | None) -> tuple[int, int]:
    """Return the first and the last depth of the span."""
    depth = labels(traj, "depth")
    if span is None:
        return int(depth[0]), int(depth[-1])
    if not isinstance(span, tuple | list) or len(span) != 2 or not all(map(is_whole_number, span)):
        raise ParameterError(f"{NAME}: span is (first, last), two depths; got {span!r}.")
    first, last = map(int, span)
    faults = [
        f"span={first, last} names depth {end}, which is not among {depth.tolist()}."
        for end in span
        if end not in depth
    ]
    if first > last:
        faults.append(f"span={first, last} runs backwards; the first depth comes first, as in span={last, first}.")
    if first == last:
        faults.append(f"span={first, last} holds no block; the last depth lies at least one beyond the first.")
    raise_faults(ParameterError, NAME, faults)
    return first, last


def states_within(traj: xr.DataArray, first: int, last: int, what: str) -> xr.DataArray:
    """Return the states of the span."""
    depth = labels(traj, "depth")
    # Depths increase, so the span is a slice: a view, which saves a copy of the states.
    within = traj.isel(depth=slice(*np.searchsorted(depth, [first, last + 1]).tolist()))
    check_consecutive(within, what)
    return within


def judged_states(test: object, tokens: Tokens, first: int, last: int, features: int) -> xr.DataArray:
    """Return the span's states of the trajectory on which predictions are judged."""
    what = f"{NAME} with test"
    prepared, _ = prepare(test, what, tokens=tokens)
    faults = []
    if prepared.sizes["feature"] != features:
        faults.append(f"test has {prepared.sizes['feature']} features, and the operator {features}.")
    depth = labels(prepared, "depth")
    if first not in depth or last not in depth:
        faults.append(f"the span runs from depth {first} to {last}; test has the depths {depth.tolist()}.")
    raise_faults(TrajectoryError, what, faults)
    return states_within(prepared, first, last, what)


def judged_horizons(
    horizons: int | Sequence[int] | None, rank: int | None, ridge: float, blocks: int, features: int
) -> list[int]:
    """Return the horizons in order, or raise for every argument out of range."""
    faults = []
    if rank is not None and not (is_whole_number(rank) and 1 <= rank <= features):
        faults.append(f"rank is a number of modes from 1 to the {features} features; got {rank!r}.")
    if not 0 <= ridge < np.inf:
        faults.append(f"ridge is a share of the inputs' mean square, at least 0; got {ridge!r}.")
    given = np.atleast_1d(range(1, blocks + 1) if horizons is None else horizons).tolist()
    odd = [horizon for horizon in given if not isinstance(horizon, int) or not 1 <= horizon <= blocks]
    if odd or not given:
        got = repr(odd[0]) if odd else "none"
        faults.append(f"horizons are numbers of blocks from 1 to the span's {blocks}; got {got}.")
    elif len(set(given)) < len(given):
        faults.append(f"horizons are distinct; got {given}.")
    raise_faults(ParameterError, NAME, faults)
    return sorted(given)
