"""Angles along paths of states: how a direction turns from depth to depth, and how far it is from a reference.

One pass over the states. Cosines come from inner products accumulated in float64; where that would lose digits (angles
near 0 or π, updates much smaller than their states) the few rows concerned are taken again, by a formula that does not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from depthflow.kernels._compile import kernel
from depthflow.kernels._prefetch import prefetch
from depthflow.kernels._rows import SMALL, angle_between, chord_angle, cosine, is_extreme, load, subtract, to_angles

TILE = 64
"""Tokens of one unit of parallel work: their paths stay in a core's own cache until the unit is done."""

AHEAD = 2
"""Tokens by which the reading of states runs ahead of the arithmetic."""

LEAST_UPDATE = 1e-4
"""Least ‖Δ‖²/‖x‖² at which Δ's inner products may come from those of the states, which costs four digits of sixteen."""

SMALL_TURN = 0.03
"""As ``SMALL``, for updates, whose cosines may have lost those four digits."""

LEAST_TURN = 1e-15
"""Mean angle per block (rad) up to which a path is straight within rounding, and its straightness has no meaning."""


class Paths(NamedTuple):
    """What :func:`paths` returns: float64 arrays, (sample, depth or block, token) and (sample, token)."""

    norm: np.ndarray
    alignment: np.ndarray
    angle: np.ndarray
    speed: np.ndarray
    turning: np.ndarray
    update_norm: np.ndarray
    radial_fraction: np.ndarray
    path_length: np.ndarray
    straightness: np.ndarray
    settled: np.ndarray


def paths(states: np.ndarray, reference: int | np.ndarray, *, tolerance: float = 0.1, updates: bool = True) -> Paths:
    """Return the angular quantities of every path of states.

    Parameters
    ----------
    states : numpy.ndarray
        (sample, depth, token, feature), C-contiguous, float32 or float64.
    reference : int or numpy.ndarray
        The position along depth whose state is each path's reference, or directions (1 or sample, 1 or token,
        feature).
    tolerance : float
        Angle (rad) within which a path has settled.
    updates : bool
        Whether to compute ``turning``, ``update_norm`` and ``radial_fraction``; else they have no blocks.

    Returns
    -------
    Paths
        In order: ``norm``, ``alignment``, ``angle`` (sample, depth, token); ``speed``, ``turning``, ``update_norm``,
        ``radial_fraction`` (sample, block, token); ``path_length``, ``straightness``, ``settled`` (sample, token).
        ``settled`` is the first position along depth from which the angle stays within tolerance, the number of
        depths if there is none. What depends on a state without a direction is NaN.

    Notes
    -----
    Time is linear in the size of ``states``, which are read once; memory beside the outputs is a few rows a thread.
    """
    if isinstance(reference, np.ndarray):
        directions, depth = np.ascontiguousarray(reference, dtype=np.float64), -1
    else:
        directions, depth = np.empty((1, 1, states.shape[-1])), reference
    return Paths(*_paths(states, directions, depth, tolerance, updates))


@kernel()
def _first_products(state: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return ⟨x, x⟩ and ⟨x, reference⟩, which are all that the first state of a path has."""
    xx, xr = 0.0, 0.0
    for i in range(state.size):
        x = np.float64(state[i])
        xx += x * x
        xr += x * reference[i]
    return xx, xr


@kernel()
def _products(
    earlier: np.ndarray, before: np.ndarray, state: np.ndarray, after: np.ndarray, reference: np.ndarray, updates: bool
) -> tuple[tuple[float, float, float, float], tuple[float, float, float, float]]:
    """Return, for two successive states x, the inner products of x with x, the reference, and the one and two before.

    Two at a time, so that each number is converted to float64 about half as often.
    """
    xx, xr, xy, xz = 0.0, 0.0, 0.0, 0.0
    ww, wr, wx, wy = 0.0, 0.0, 0.0, 0.0
    for i in range(state.size):
        y, x, w = np.float64(before[i]), np.float64(state[i]), np.float64(after[i])
        xx += x * x
        xr += x * reference[i]
        xy += x * y
        ww += w * w
        wr += w * reference[i]
        wx += w * x
        if updates:
            xz += x * np.float64(earlier[i])
            wy += w * y
    return (xx, xr, xy, xz), (ww, wr, wx, wy)


@kernel()
def _update_products(earlier: np.ndarray, before: np.ndarray, state: np.ndarray) -> tuple[float, float, float]:
    """Return ⟨Δ, Δ⟩, ⟨Δ, before⟩ and ⟨Δ, Δ'⟩ for Δ = state − before and Δ' = before − earlier, from differences."""
    square, radial, turn = 0.0, 0.0, 0.0
    for i in range(state.size):
        y = np.float64(before[i])
        update = np.float64(state[i]) - y
        square += update * update
        radial += update * y
        turn += update * (y - np.float64(earlier[i]))
    return square, radial, turn


@kernel()
def _roots(squares: np.ndarray, out: np.ndarray) -> None:
    for i in range(out.size):
        out[i] = math.sqrt(squares[i])


@kernel()
def _cosines(products: np.ndarray, norms: np.ndarray, others: np.ndarray, out: np.ndarray) -> None:
    for i in range(out.size):
        out[i] = cosine(products[i], norms[i], others[i])


@kernel()
def _walk(states: np.ndarray, t: int, reference: np.ndarray, updates: bool, products: np.ndarray) -> None:
    """Fill ``products`` (4, depth) with the inner products of token ``t``'s states (depth, token, feature)."""
    final = states.shape[0] - 1
    ahead = min(t + AHEAD, states.shape[1] - 1)
    prefetch(states[0, ahead])
    products[0, 0], products[1, 0] = _first_products(states[0, t], reference)
    for d in range(1, final + 1, 2):
        after = min(d + 1, final)
        prefetch(states[d, ahead])
        prefetch(states[after, ahead])
        here, there = _products(
            states[max(d - 2, 0), t], states[d - 1, t], states[d, t], states[after, t], reference, updates
        )
        products[0, d], products[1, d], products[2, d], products[3, d] = here
        if after > d:
            products[0, after], products[1, after], products[2, after], products[3, after] = there


@kernel()
def _updates_along(states: np.ndarray, first: int, d: int, products: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` (3, token) with ⟨Δ, Δ⟩, ⟨Δ, x⟩ and ⟨Δ, Δ'⟩ of the updates that end at depth ``d``."""
    before, back = d - 1, max(d - 2, 0)
    for i in range(out.shape[1]):
        xx, yy, xy = products[0, d, i], products[0, before, i], products[2, d, i]
        out[0, i] = xx - 2.0 * xy + yy
        out[1, i] = xy - yy
        out[2, i] = xy - products[3, d, i] - yy + products[2, before, i]
    for i in range(out.shape[1]):
        yy = products[0, before, i]
        update_before = yy - 2.0 * products[2, before, i] + products[0, back, i]
        if not (
            out[0, i] > LEAST_UPDATE * max(products[0, d, i], yy)
            and (d == 1 or update_before > LEAST_UPDATE * max(yy, products[0, back, i]))
        ):
            t = first + i
            out[0, i], out[1, i], out[2, i] = _update_products(states[back, t], states[before, t], states[d, t])


@kernel()
def _any_extreme(angles: np.ndarray, small: float) -> bool:
    found = False
    for i in range(angles.size):
        found |= is_extreme(angles[i], small)
    return found


@kernel()
def _sharpen(angles: np.ndarray, states: np.ndarray, others: np.ndarray) -> None:
    """Take the angles (token) between rows near 0 and π again, where the arccosine is not accurate."""
    if _any_extreme(angles, SMALL):
        for i in range(angles.size):
            if is_extreme(angles[i], SMALL):
                angles[i] = chord_angle(states[i], others[i % others.shape[0]])


@kernel()
def _sharpen_turning(angles: np.ndarray, earlier: np.ndarray, before: np.ndarray, states: np.ndarray) -> None:
    """Take the turning angles (token) near 0 and π again."""
    if _any_extreme(angles, SMALL_TURN):
        update, update_before = np.empty(states.shape[1]), np.empty(states.shape[1])
        for i in range(angles.size):
            if is_extreme(angles[i], SMALL_TURN):
                subtract(states[i], before[i], update)
                subtract(before[i], earlier[i], update_before)
                angles[i] = chord_angle(update, update_before)


@kernel()
def _sharpen_to_reference(angles: np.ndarray, states: np.ndarray, d: int, depth: int, given: np.ndarray) -> None:
    """As :func:`_sharpen`, for the angles at depth ``d`` to those at ``depth``, or to ``given`` if it is below 0."""
    if depth < 0:
        _sharpen(angles, states[d], given)
    elif d != depth:
        _sharpen(angles, states[d], states[depth])
    else:
        for i in range(angles.size):
            angles[i] = 0.0 if angles[i] < SMALL else angles[i]  # a state without a direction stays NaN


@kernel()
def _settle(angles: np.ndarray, tolerance: float, after: int, settled: np.ndarray) -> None:
    """Let the paths that are not within tolerance settle no earlier than at position ``after``."""
    for i in range(angles.size):
        settled[i] = settled[i] if angles[i] <= tolerance else after


@kernel()
def _angles_between(states: np.ndarray, others: np.ndarray, out: np.ndarray) -> None:
    for i in range(out.size):
        out[i] = angle_between(states[i], others[i])


@kernel()
def _straighten(ends: np.ndarray, path_length: np.ndarray, least: float, out: np.ndarray) -> None:
    for i in range(out.size):
        out[i] = min(ends[i] / path_length[i], 1.0) if path_length[i] > least else math.nan


@kernel(parallel=True)
def _paths(
    states: np.ndarray, directions: np.ndarray, depth: int, tolerance: float, updates: bool
) -> tuple[np.ndarray, ...]:
    samples, depths, tokens, features = states.shape
    blocks = depths - 1
    norm = np.empty((samples, depths, tokens))
    alignment = np.empty((samples, depths, tokens))
    angle = np.empty((samples, depths, tokens))
    speed = np.empty((samples, blocks, tokens))
    turning = np.empty((samples, blocks if updates else 0, tokens))
    update_norm = np.empty_like(turning)
    radial_fraction = np.empty_like(turning)
    path_length = np.empty((samples, tokens))
    straightness = np.empty((samples, tokens))
    settled = np.empty((samples, tokens), np.int64)
    tiles = (tokens + TILE - 1) // TILE
    for unit in prange(samples * tiles):
        s, first = unit // tiles, unit % tiles * TILE
        last = min(first + TILE, tokens)
        states_here, given = states[s], directions[s % directions.shape[0]]
        reference, length = np.empty(features), np.empty(last - first)
        products, of_updates = np.empty((4, depths, last - first)), np.empty((3, last - first))
        for t in range(first, last):
            if depth >= 0:
                length[t - first] = load(states_here[depth, t], reference)
            else:
                length[t - first] = load(given[t % given.shape[0]], reference)
            _walk(states_here, t, reference, updates, products[:, :, t - first])
        settled[s, first:last] = 0
        path_length[s, first:last] = 0.0
        for d in range(depths):
            here = angle[s, d, first:last]
            _roots(products[0, d], norm[s, d, first:last])
            _cosines(products[1, d], norm[s, d, first:last], length, alignment[s, d, first:last])
            here[:] = alignment[s, d, first:last]
            to_angles(here)
            _sharpen_to_reference(here, states_here[:, first:last], d, depth, given[first % given.shape[0] :])
            _settle(here, tolerance, d + 1, settled[s, first:last])
        for b in range(blocks):
            norm_before, turned = norm[s, b, first:last], speed[s, b, first:last]
            _cosines(products[2, b + 1], norm[s, b + 1, first:last], norm_before, turned)
            to_angles(turned)
            _sharpen(turned, states_here[b + 1, first:last], states_here[b, first:last])
            path_length[s, first:last] += turned
            if updates:
                norm_of_update, bent = update_norm[s, b, first:last], turning[s, b, first:last]
                _updates_along(states_here, first, b + 1, products, of_updates)
                _roots(of_updates[0], norm_of_update)
                _cosines(of_updates[1], norm_of_update, norm_before, radial_fraction[s, b, first:last])
                _cosines(of_updates[2], norm_of_update, update_norm[s, max(b - 1, 0), first:last], bent)
                to_angles(bent)
                earlier, before = states_here[max(b - 1, 0), first:last], states_here[b, first:last]
                _sharpen_turning(bent, earlier, before, states_here[b + 1, first:last])
        if updates:
            turning[s, 0, first:last] = math.nan
        ends = angle[s, 0, first:last].copy()
        if depth != blocks:
            _angles_between(states_here[0, first:last], states_here[blocks, first:last], ends)
        _straighten(ends, path_length[s, first:last], blocks * LEAST_TURN, straightness[s, first:last])
    return (
        norm, alignment, angle, speed, turning, update_norm, radial_fraction, path_length, straightness, settled
    )  # fmt: skip
