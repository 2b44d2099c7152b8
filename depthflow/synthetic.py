"""Trajectories whose answers are known in closed form: the ground truth of the tests and of the tutorials.

Every flow returns a trajectory with the dims (sample, depth, token, feature) in float64; the parameters that fix the
answer are kept in its attrs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from depthflow.errors import ParameterError, raise_faults
from depthflow.trajectories import trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr


def spherical_sink(
    *,
    n_samples: int = 32,
    n_depths: int = 13,
    n_tokens: int = 5,
    n_features: int = 16,
    n_sinks: int = 3,
    rate: float = 0.5,
    seed: int = 0,
) -> xr.DataArray:
    """Return states whose angle to a sink direction shrinks by a fixed factor at every block.

    Sample ``i`` belongs to sink ``i % n_sinks``; each token starts at an angle of at most 1 rad from its sink and
    moves towards it along the great circle: ∠(x_ℓ, sink) = (1 − rate)^ℓ ∠(x_0, sink). The sinks are orthogonal, so
    the basins are known, and every state keeps its norm.

    Parameters
    ----------
    n_samples, n_depths, n_tokens, n_features, n_sinks : int
        Sizes; ``n_features`` must exceed ``n_sinks``.
    rate : float
        Share of the angle that one block removes, in (0, 1).
    seed : int
        Seed of the starts and sinks.

    Returns
    -------
    xarray.DataArray
        Trajectory; ``label`` is the sample's sink.

    Raises
    ------
    ParameterError
        If ``rate`` is not in (0, 1), or there are too few features.

    Examples
    --------
    >>> import depthflow
    >>> traj = depthflow.synthetic.spherical_sink(rate=0.5)
    >>> traj.sizes["depth"], sorted(set(traj.label.values.tolist()))
    (13, [0, 1, 2])
    """
    faults = []
    if not 0 < rate < 1:
        faults.append(f"needs a rate in (0, 1); got {rate}.")
    if n_features <= n_sinks:
        faults.append(f"needs more features than sinks; got {n_features} and {n_sinks}.")
    raise_faults(ParameterError, "spherical_sink", faults)
    rng = np.random.default_rng(seed)
    sinks = np.linalg.qr(rng.normal(size=(n_features, n_sinks)))[0].T
    label = np.arange(n_samples) % n_sinks
    sink = sinks[label][:, None, :]
    away = rng.normal(size=(n_samples, n_tokens, n_features))
    away = _unit(away - (away * sink).sum(-1, keepdims=True) * sink)
    start = rng.uniform(0.2, 1.0, size=(n_samples, n_tokens, 1))
    norm = rng.uniform(0.5, 2.0, size=(n_samples, n_tokens, 1))
    angle = start[:, None] * (1 - rate) ** np.arange(n_depths)[None, :, None, None]
    states = norm[:, None] * (np.cos(angle) * sink[:, None] + np.sin(angle) * away[:, None])
    return _flow(states, "spherical_sink", label=label, rate=rate, n_sinks=n_sinks, seed=seed)


def rotation(
    *,
    angle: float = 0.1,
    n_samples: int = 8,
    n_depths: int = 13,
    n_tokens: int = 5,
    n_features: int = 16,
    growth: float = 1.0,
    seed: int = 0,
) -> xr.DataArray:
    """Return states that each turn by a fixed angle per block in a plane of their own, and grow by a factor.

    With ``growth=1``: speed and turning equal ``angle`` at every block. With ``angle=0`` the path only rescales.

    Parameters
    ----------
    angle : float
        Rotation per block, rad.
    n_samples, n_depths, n_tokens, n_features : int
        Sizes.
    growth : float
        Factor by which the norm grows per block; positive.
    seed : int
        Seed of the planes.

    Raises
    ------
    ParameterError
        If ``growth`` is not positive.
    """
    if not growth > 0:
        raise ParameterError(f"rotation needs a positive growth; got {growth}.")
    rng = np.random.default_rng(seed)
    first = _unit(rng.normal(size=(n_samples, n_tokens, n_features)))
    second = rng.normal(size=first.shape)
    second = _unit(second - (second * first).sum(-1, keepdims=True) * first)
    depth = np.arange(n_depths)[None, :, None, None]
    turned = np.cos(angle * depth) * first[:, None] + np.sin(angle * depth) * second[:, None]
    return _flow(turned * growth**depth, "rotation", angle=angle, growth=growth, seed=seed)


def phased_depth(
    *,
    lengths: Sequence[int] = (5, 4, 3),
    spread: float = 0.3,
    n_samples: int = 16,
    n_tokens: int = 5,
    n_features: int = 32,
    seed: int = 0,
) -> xr.DataArray:
    """Return states that dwell around one direction per phase, so that depth falls into known phases.

    All blocks of phase j have the states d_j + ``spread`` · noise, where the d_j are orthogonal directions: similarity
    is high within a phase and near zero between phases. Depth 0 lies around a direction of its own.

    Parameters
    ----------
    lengths : sequence of int
        Number of blocks of each phase, in order.
    spread : float
        Norm of the noise relative to the direction's.
    n_samples, n_tokens, n_features : int
        Sizes; more features than phases.
    seed : int
        Seed of directions and noise.

    Raises
    ------
    ParameterError
        If a length is below 1, or there are too few features.
    """
    faults = []
    if not lengths or min(lengths) < 1:
        faults.append(f"needs phases of at least one block each; got lengths {tuple(lengths)}.")
    if n_features <= len(lengths):
        faults.append(f"needs more features than phases; got {n_features} and {len(lengths)}.")
    raise_faults(ParameterError, "phased_depth", faults)
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(n_features, len(lengths) + 1)))[0].T
    phase = np.repeat(np.arange(len(lengths) + 1), [1, *lengths])
    noise = rng.normal(size=(n_samples, len(phase), n_tokens, n_features)) / np.sqrt(n_features)
    states = directions[phase][None, :, None, :] + spread * noise
    return _flow(states, "phased_depth", lengths=list(map(int, lengths)), spread=spread, seed=seed)


def low_rank_drift(
    *,
    rank: int = 3,
    n_samples: int = 8,
    n_depths: int = 13,
    n_tokens: int = 17,
    n_features: int = 24,
    seed: int = 0,
) -> xr.DataArray:
    """Return states whose updates, over the tokens of a sample, span exactly ``rank`` directions at every block.

    Parameters
    ----------
    rank : int
        Rank of each update matrix (token, feature); at most the smaller of the two sizes.
    n_samples, n_depths, n_tokens, n_features : int
        Sizes.
    seed : int
        Seed of the factors.

    Raises
    ------
    ParameterError
        If ``rank`` is out of range.
    """
    if not 1 <= rank <= min(n_tokens, n_features):
        raise ParameterError(f"low_rank_drift needs a rank in 1…{min(n_tokens, n_features)}; got {rank}.")
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(n_samples, n_depths - 1, n_tokens, rank))
    right = rng.normal(size=(n_samples, n_depths - 1, rank, n_features))
    start = rng.normal(size=(n_samples, 1, n_tokens, n_features)) * np.sqrt(n_features)
    states = np.concatenate([start, start + np.cumsum(left @ right, axis=1)], axis=1)
    return _flow(states, "low_rank_drift", rank=rank, seed=seed)


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _flow(states: np.ndarray, flow: str, *, label: np.ndarray | None = None, **attrs: Any) -> xr.DataArray:
    return trajectory(states, label=label, attrs={"flow": flow, **attrs})
