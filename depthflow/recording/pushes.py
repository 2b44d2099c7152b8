"""The directions in which states are pushed, and the push itself: by an exact angle, the norm kept."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from depthflow.arrays import as_numpy
from depthflow.errors import DepthflowError, ParameterError
from depthflow.recording.angles import angle_between

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RANDOM, OTHER_CLASS = "random", "other_class"
DIMS = ("draw", "sample", "token", "feature")

LEAST_TANGENT = 1e-6
"""Share of a direction that must be tangent: what is less may be the rounding of one that is parallel in float32."""

ROUNDED = 0.01
"""By how much of itself the angle of a push may be off once the state is rounded to the model's precision."""


class Directions(ABC):
    """Directions for each draw, not yet tangent to the states."""

    name: str
    n_draws: int

    @abstractmethod
    def draws(self, samples: range, shape: tuple[int, int], labels: Sequence[Any]) -> Iterator[np.ndarray]:
        """Give one array (sample, token, feature) a draw for the ``samples``, each of ``shape`` (token, feature)."""


class Random(Directions):
    """Isotropic directions from a generator for each sample, so that they do not depend on its batch."""

    name = RANDOM

    def __init__(self, n_draws: int, seed: int) -> None:
        self.n_draws, self._seed = n_draws, seed

    def draws(self, samples: range, shape: tuple[int, int], labels: Sequence[Any]) -> Iterator[np.ndarray]:
        """Give the next numbers of each sample's generator."""
        generators = [np.random.default_rng([self._seed, sample]) for sample in samples]
        for _ in range(self.n_draws):
            yield np.stack([generator.standard_normal(shape) for generator in generators])


class Given(Directions):
    """The caller's own, (draw, sample, token, feature) or less."""

    name = "given"

    def __init__(self, directions: Any) -> None:
        named = directions if isinstance(directions, xr.DataArray) else _named(directions)
        strange = [str(dim) for dim in named.dims if dim not in DIMS]
        if strange or "feature" not in named.dims:
            raise ParameterError(
                f"perturb: needs directions with the dim 'feature' and none but {DIMS}; got "
                f"{tuple(map(str, named.dims))}. Rename or select."
            )
        if named.dtype.kind not in "fiu" or named.size == 0 or not np.isfinite(named.values).all():
            unsound = ", some not finite" if named.dtype.kind == "f" and named.size else ""
            raise ParameterError(
                f"perturb: needs directions as finite real numbers; got {named.dtype}, shape {named.shape}{unsound}."
            )
        self._dims = tuple(str(dim) for dim in named.dims)
        self._token = named["token"].values if "token" in named.coords and "token" in named.dims else None
        lacking = [dim for dim in DIMS if dim not in named.dims]
        self._values = named.astype(np.float64).expand_dims(lacking).transpose(*DIMS).values
        self.n_draws = self._values.shape[0]

    def require_fit(self, token: np.ndarray, features: int, count: int | None) -> None:
        """Raise unless each dim that the directions have is as long as the states', and is of the same tokens."""
        have = dict(zip(DIMS, self._values.shape, strict=True))
        want = {"token": len(token), "feature": features} | ({} if count is None else {"sample": count})
        if any(have[dim] != size for dim, size in want.items() if dim in self._dims):
            last = f"{len(token)}, {features})"
            raise ParameterError(
                f"perturb: directions of shape {tuple(have[dim] for dim in self._dims)}, dims {self._dims}, do not "
                f"fit. For these states and tokens they have the shape ({features},), ({last}, (draw, {last} or "
                f"(draw, {'sample' if count is None else count}, {last}."
            )
        if self._token is not None and self._token.tolist() != token.tolist():
            raise ParameterError(
                f"perturb: the directions are of the tokens {self._token.tolist()}, but {token.tolist()} are pushed. "
                "Choose these with tokens=, or drop the coord with `.drop_vars('token')`."
            )

    def require_count(self, count: int) -> None:
        """Raise unless there are directions for ``count`` samples, or the same for all."""
        if "sample" in self._dims and self._values.shape[1] != count:
            raise ParameterError(
                f"perturb: directions of {self._values.shape[1]} samples do not fit the inputs' {count}. Give one a "
                "sample, or directions without the dim 'sample'."
            )

    def draws(self, samples: range, shape: tuple[int, int], labels: Sequence[Any]) -> Iterator[np.ndarray]:
        """Give the part of the samples."""
        per_sample = "sample" in self._dims
        if per_sample and samples.stop > self._values.shape[1]:
            self.require_count(samples.stop)
        for values in self._values:
            part = values[samples.start : samples.stop] if per_sample else values
            yield np.broadcast_to(part, (len(samples), *shape))


class OtherClass(Directions):
    """Towards the mean state of other classes, ``means`` (class, token, feature) of the sorted ``classes``."""

    name = OTHER_CLASS

    def __init__(self, classes: np.ndarray, means: np.ndarray, n_draws: int, seed: int) -> None:
        self.classes, self._means, self.n_draws, self._seed = classes, means, n_draws, seed
        self._chosen: list[np.ndarray] = []

    @property
    def target(self) -> np.ndarray:
        """The class that each push goes towards, (draw, sample), for the samples gone through."""
        target: np.ndarray = self.classes[np.concatenate(self._chosen, axis=1)]
        return target

    def draws(self, samples: range, shape: tuple[int, int], labels: Sequence[Any]) -> Iterator[np.ndarray]:
        """Go through the other classes in an order of each sample's own, again and again if there are more draws."""
        places = {label: place for place, label in enumerate(self.classes.tolist())}
        new = [label for label in labels if label not in places]
        if new:
            raise ParameterError(
                f"perturb: the label {new[0]!r} came when the inputs were gone through again, and not before. Give "
                "inputs that hold the same samples each time."
            )
        own = [places[label] for label in labels]
        others = [
            np.random.default_rng([self._seed, sample]).permutation(np.delete(np.arange(len(self.classes)), place))
            for sample, place in zip(samples, own, strict=True)
        ]
        chosen = np.stack([np.resize(order, self.n_draws) for order in others], axis=1)
        self._chosen.append(chosen)
        for row in chosen:
            yield self._means[row]


def pushed(states: Tensor, directions: Tensor, angle: float, samples: range, first: int, token: np.ndarray) -> Tensor:
    """Return ``states`` (sample, token, feature) turned by ``angle`` towards each of ``directions`` (draw, …).

    ``first`` is the number of the first draw; ``samples`` and ``token`` are the numbers of the others.

    In float64: ‖x‖ (cos(angle) u + sin(angle) d), d the unit vector along the part of the direction that is tangent
    to the sphere at u. Rounded to the states' precision at the end.

    Raises
    ------
    ParameterError
        If a state is zero, or a direction has no tangent part; says whose.
    """
    exact = states.double()
    norm = exact.norm(dim=-1, keepdim=True)
    if not bool((norm > 0).all()):
        sample, place, _ = torch.nonzero(norm == 0)[0].tolist()
        raise ParameterError(
            f"perturb: a zero-norm state has no direction to be turned, first at sample {samples[sample]}, token "
            f"{token[place]}. Remove such samples, or push other tokens or at another depth."
        )
    unit = exact / norm
    tangent = _unit(directions)
    for _ in range(2):  # the second time removes what rounding left of a nearly parallel one
        tangent = tangent - (tangent * unit).sum(dim=-1, keepdim=True) * unit
    length = tangent.norm(dim=-1, keepdim=True)
    if not bool((length > LEAST_TANGENT).all()):
        draw, sample, place, _ = torch.nonzero(~(length > LEAST_TANGENT))[0].tolist()
        raise ParameterError(
            "perturb: a direction is zero or parallel to the state, so that it does not say where to turn, first at "
            f"draw {first + draw}, sample {samples[sample]}, token {token[place]}. Give another direction."
        )
    turned = norm * (math.cos(angle) * unit + math.sin(angle) * tangent / length)
    rounded: Tensor = turned.to(states.dtype)
    realised = angle_between(unit, _unit(rounded.double()))
    worst = float((realised - angle).abs().max())
    if worst > ROUNDED * angle:
        kind = str(states.dtype).removeprefix("torch.")
        raise ParameterError(
            f"perturb: an angle of {angle:g} rad is rounded away in {kind}: a state was turned by an angle that is "
            f"off by {worst:.1g} rad. Push by more, such as 0.01, or give it `copy.deepcopy(model).double()`."
        )
    return rounded


def _unit(vectors: Tensor) -> Tensor:
    """Return the unit vectors, and zeros for what is zero."""
    # By the largest component first, as squares of very large and very small ones leave the range of float64.
    scaled = vectors / vectors.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    unit: Tensor = scaled / scaled.norm(dim=-1, keepdim=True).clamp_min(1.0)
    return unit


def _named(directions: Any) -> xr.DataArray:
    try:
        array = as_numpy(directions)
    except DepthflowError:
        array = np.empty(())
    if not 1 <= array.ndim <= 4:
        came = f"shape {array.shape}" if array.ndim else repr(directions)
        raise ParameterError(
            f"perturb: needs directions as {RANDOM!r}, {OTHER_CLASS!r}, or an array of one to four axes, (draw, "
            f"sample, token, feature) or the last of these; got {came}."
        )
    axes = {1: DIMS[3:], 2: DIMS[2:], 3: ("draw", "token", "feature"), 4: DIMS}[array.ndim]
    return xr.DataArray(array, dims=axes)
