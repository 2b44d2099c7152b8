"""How far the paths of pushed states are from the path that was not pushed, gathered over all samples."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from depthflow.errors import RecordError
from depthflow.recording.angles import angle_between
from depthflow.recording.memory import require
from depthflow.recording.pushes import pushed
from depthflow.recording.tokens import choose
from depthflow.schema import leading_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from depthflow.models.base import TokenLayout
    from depthflow.recording.pushes import Directions
    from depthflow.recording.replay import Replay
    from depthflow.recording.session import Session

LEAST_MEAN = 1e-13
"""Length of a mean of unit vectors below which rounding leaves it no direction."""

DIMS = {
    "angle": ("sample", "draw", "depth", "token"),
    "gain": ("sample", "draw", "depth"),
    "carried_gain": ("sample", "draw", "depth"),
    "final_direction": ("sample", "draw", "feature"),
    "carried_direction": ("sample", "draw", "feature"),
    "reference_direction": ("sample", "feature"),
    "state": ("sample", "draw", "depth", "token", "feature"),
    "reference": ("sample", "depth", "token", "feature"),
}
"""What is gathered sample by sample."""

STATES = ("state", "reference")
"""Of these, what is in the model's own precision, and gathered only where it is asked for."""

KEEP_LESS = "Lower n_draws, leave states=False, or give fewer samples at a time."
"""What to do where the results do not fit into memory."""


def unit_states(states: Tensor, samples: range, depth: int) -> Tensor:
    """Return the unit vectors of states (path, sample, token, feature), in float64.

    Raises
    ------
    RecordError
        If a state is zero or not finite; names the first.
    """
    exact = states.double()
    norm = exact.norm(dim=-1, keepdim=True)
    sound = (norm > 0) & torch.isfinite(norm)
    if not bool(sound.all()):
        path, sample, token, _ = torch.nonzero(~sound)[0].tolist()
        value = float(norm[path, sample, token])
        problem = "a zero-norm state, which has no direction" if value == 0 else f"a state of norm {value}"
        raise RecordError(
            f"perturb found {problem}, first at sample {samples[sample]}, depth {depth}, token {token}, "
            f"{'of a pushed path' if path else 'of the path that is not pushed'}. Remove such samples, or push at "
            "another depth or by another angle."
        )
    unit: Tensor = exact / norm
    return unit


def directions(states: Tensor) -> Tensor:
    """Return the unit vectors along the last axis, NaN where there is none."""
    unit: Tensor = states / states.norm(dim=-1, keepdim=True)
    return unit


def _root_mean_square(angles: Tensor) -> Tensor:
    """Return that of the last axis, the tokens'."""
    return angles.square().mean(dim=-1).sqrt()


def readout(layout: TokenLayout) -> tuple[str, np.ndarray]:
    """Return the name and positions of the tokens whose mean direction is the sample's, as :func:`basins` has it."""
    found = leading_tokens(layout.types)
    return found if isinstance(found, str) else "all tokens", choose(found, layout).index


def mean_direction(units: Tensor, samples: range) -> Tensor:
    """Return the direction of the mean of unit vectors (path, sample, token, feature) over the tokens.

    Raises
    ------
    RecordError
        If they cancel.
    """
    mean = units.mean(dim=2)
    norm = mean.norm(dim=-1, keepdim=True)
    if not bool((norm > LEAST_MEAN).all()):
        _, sample, _ = torch.nonzero(~(norm > LEAST_MEAN))[0].tolist()
        raise RecordError(
            f"perturb found tokens whose final directions cancel, so that their mean has none, first at sample "
            f"{samples[sample]}. Remove such samples."
        )
    direction: Tensor = mean / norm
    return direction


class Gathered:
    """Arrays with ``sample`` first, as long as the inputs are known to be, else doubled whenever they are full."""

    def __init__(self, expected: int | None) -> None:
        self._expected = expected or 0
        self._arrays: dict[str, np.ndarray] = {}

    def rooms(self, samples: range, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, np.ndarray]:
        """Return of each array, of a shape beside ``sample``, the part that is of ``samples``, zeros at first."""
        length = max((len(array) for array in self._arrays.values()), default=0)
        if samples.stop > length:
            longer = max(self._expected, samples.stop, 2 * length)
            # All at once: memory that was given out and not yet written to still counts as free.
            need = sum(longer * math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
            require(need, f"perturb's result of {longer} samples ({', '.join(shapes)})", KEEP_LESS)
            for name, (shape, dtype) in shapes.items():
                grown = np.zeros((longer, *shape), dtype)
                if length:
                    grown[:length] = self._arrays[name]
                self._arrays[name] = grown
        return {name: self._arrays[name][samples.start : samples.stop] for name in shapes}

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def take(self, name: str, count: int) -> np.ndarray:
        """Return the array of ``count`` samples and let go of it."""
        return self._arrays.pop(name)[:count]


def follow(
    run: Session,
    replay: Replay,
    way: Directions,
    gathered: Gathered,
    depth: int,
    angle: float,
    group: int,
    keep_states: bool,
) -> None:
    """Push the states of a batch, ``group`` draws at a time or fewer, and gather what becomes of them."""
    start = replay.states[depth]
    count, tokens, features = start.shape
    samples = range(run.count, run.count + count)
    index = torch.as_tensor(run.chosen.index, device=start.device)
    read = torch.as_tensor(readout(run.chosen.layout)[1], device=start.device)
    sizes = {"draw": way.n_draws, "depth": run.n_blocks + 1, "token": tokens, "feature": features}
    own = np.dtype(str(start.dtype).removeprefix("torch."))
    shapes = {
        name: (tuple(sizes[dim] for dim in dims[1:]), own if name in STATES else np.dtype(np.float64))
        for name, dims in DIMS.items()
        if keep_states or name not in STATES
    }
    room = gathered.rooms(samples, shapes)
    for at, state in enumerate(replay.states[:depth] if keep_states else []):
        room["reference"][:, at] = state.cpu().numpy()
        room["state"][:, :, at] = room["reference"][:, None, at]
    draws = way.draws(samples, (len(index), features), run.labels[-1].tolist() if run.labels else [])
    group = math.ceil(way.n_draws / math.ceil(way.n_draws / group))  # groups of one size, as far as can be
    for first in range(0, way.n_draws, group):
        towards = torch.as_tensor(np.stack(list(islice(draws, group))), device=start.device)
        drawn = slice(first, first + len(towards))
        both = start.repeat(1 + len(towards), 1, 1, 1)
        both[1:, :, index] = pushed(start[:, index], towards, angle, samples, first, run.chosen.index)
        push, push_read = (both[1:, :, some].double() - start[:, some].double() for some in (index, read))
        for at, flat in enumerate(replay.path(depth, both.flatten(0, 1)), start=depth):
            state = flat.reshape(both.shape)
            units = unit_states(state, samples, at)
            apart = angle_between(units[1:], units[:1]).transpose(0, 1)
            room["angle"][:, drawn, at] = apart.cpu().numpy()
            room["gain"][:, drawn, at] = _root_mean_square(apart[..., index]).cpu().numpy() / angle
            carried = directions(state[0][:, index].double() + push)
            lost = angle_between(carried, units[:1, :, index]).transpose(0, 1)
            room["carried_gain"][:, drawn, at] = _root_mean_square(lost).cpu().numpy() / angle
            if keep_states:
                room["state"][:, drawn, at] = state[1:].transpose(0, 1).cpu().numpy()
                if first == 0:
                    room["reference"][:, at] = state[0].cpu().numpy()
        end = mean_direction(units[:, :, read], samples)
        room["final_direction"][:, drawn] = end[1:].transpose(0, 1).cpu().numpy()
        carried = directions(directions(state[0][:, read].double() + push_read).mean(dim=2))
        room["carried_direction"][:, drawn] = carried.transpose(0, 1).cpu().numpy()
        if first == 0:
            room["reference_direction"][:] = end[0].cpu().numpy()


def variables(gathered: Gathered, count: int, depth: int) -> dict[str, Any]:
    """Return the variables of ``count`` samples."""
    found = {name: (dims, gathered.take(name, count)) for name, dims in DIMS.items() if name in gathered}
    gain = found["gain"][1]
    found["recovery"] = (("sample",), 1 - gain[:, :, -1].mean(axis=1))
    size = np.sqrt((gain**2).mean(axis=(0, 1)))
    rate = np.full(len(size) - 1, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate[depth:] = np.log(size[depth + 1 :] / size[depth:-1])
    found["growth_rate"] = (("block",), rate)
    return {
        name: xr.Variable(dims, values).transpose("draw", ..., missing_dims="ignore")
        for name, (dims, values) in found.items()
    }
