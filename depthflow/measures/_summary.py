"""A measure that treats each sample by itself, summed up over samples that come batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from depthflow.measures._quantiles import Sketch
from depthflow.schema import TOKEN_TYPES, token_types
from depthflow.trajectories import STRING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TYPE = "type"
"""Dim of the quantiles over the tokens of a type. ``token_type`` itself is the tokens' coord, of the means too."""


class Summary:
    """Means over samples of each variable of ``measure``, and its quantiles over samples and the tokens of a type.

    Parameters
    ----------
    measure : callable
        From a trajectory to a Dataset whose variables have the dim ``sample``.
    shares : sequence of float
        Which quantiles, in [0, 1].
    """

    def __init__(self, measure: Callable[[xr.DataArray], xr.Dataset], shares: Sequence[float]) -> None:
        self.measure, self.shares, self.samples = measure, list(shares), 0
        self._like = xr.Dataset()
        self._totals: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {}
        self._sketches: dict[tuple[str, str], Sketch] = {}

    def add(self, part: xr.DataArray) -> None:
        """Take in a trajectory of some samples."""
        found = self.measure(part)
        if not self.samples:
            # Labels and attributes alone; a deep copy, as a view would hold on to the batch.
            self._like = found.isel(sample=slice(0, 0)).copy(deep=True)
        self.samples += found.sizes["sample"]
        types = token_types(found)
        for name in map(str, found.data_vars):
            variable = found.variables[name]  # bare, as labels would be moved along with every transposition
            values = variable.transpose("sample", ...).values
            known = ~np.isnan(values)
            self._sum(name, np.where(known, values, 0.0).sum(0), known.sum(0))
            for kind, cells in _cells(variable, types):
                self._sketch(name, kind, len(cells)).add(cells)

    def merge(self, later: Summary) -> None:
        """Take in what ``later`` has of the samples that follow."""
        if not self.samples:
            self._like = later._like
        self.samples += later.samples
        for name, total in later._totals.items():
            self._sum(name, total, later._known[name])
        for (name, kind), sketch in later._sketches.items():
            self._sketch(name, kind, sketch.cells).merge(sketch)

    def result(self) -> xr.Dataset:
        """Return ``v`` (less ``sample``), the mean, and ``v_quantile`` (quantile, …, type) of each variable ``v``."""
        kinds = [kind for kind in TOKEN_TYPES if any(kind == other for _, other in self._sketches)]
        variables: dict[str, xr.Variable] = {}
        for name, like in self._like.data_vars.items():
            dims = [dim for dim in like.dims if dim != "sample"]
            with np.errstate(invalid="ignore"):
                mean = self._totals[str(name)] / self._known[str(name)]
            variables[str(name)] = xr.Variable(dims, mean, like.attrs)
            variables[f"{name}_quantile"] = self._quantile(str(name), like, kinds)
        coords: dict[Any, Any] = {
            name: coord for name, coord in self._like.coords.items() if "sample" not in coord.dims
        }
        coords["quantile"] = self.shares
        if kinds:
            coords[TYPE] = np.array(kinds, dtype=STRING)
        attrs = {name: value for name, value in self._like.attrs.items() if name != "samplewise"}
        return xr.Dataset(variables, coords, {**attrs, "samples": self.samples})

    def _sum(self, name: str, total: np.ndarray, known: np.ndarray) -> None:
        self._totals[name] = self._totals.get(name, 0.0) + total
        self._known[name] = self._known.get(name, 0) + known

    def _sketch(self, name: str, kind: str, cells: int) -> Sketch:
        if (name, kind) not in self._sketches:
            self._sketches[name, kind] = Sketch(cells, seed=len(self._sketches))
        return self._sketches[name, kind]

    def _quantile(self, name: str, like: xr.DataArray, kinds: Sequence[str]) -> xr.Variable:
        dims = [dim for dim in like.dims if dim not in ("sample", "token")]
        shape = (len(self.shares), *(like.sizes[dim] for dim in dims))
        over = kinds if "token" in like.dims else [""]
        sketches = [self._sketches[name, kind] for kind in over]
        arrays = [sketch.quantiles(self.shares).reshape(shape) for sketch in sketches]
        attrs = {
            **like.attrs,
            "long_name": f"{like.attrs.get('long_name', name)}, quantiles",
            "quantile_rank_error": max(sketch.rank_error for sketch in sketches),
        }
        if "token" not in like.dims:
            return xr.Variable(["quantile", *dims], arrays[0], attrs)
        return xr.Variable(["quantile", *dims, TYPE], np.stack(arrays, axis=-1), attrs)


def _cells(variable: xr.Variable, types: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Give each type of token (empty where there are no tokens) and its values (cell, value)."""
    others = [dim for dim in variable.dims if dim not in ("sample", "token")]
    cells = int(np.prod([variable.sizes[dim] for dim in others]))
    if "token" not in variable.dims:
        yield "", variable.transpose(*others, "sample").values.reshape(cells, -1)
        return
    values = variable.transpose(*others, "sample", "token").values
    for kind in dict.fromkeys(types):
        yield kind, values[..., np.array(types) == kind].reshape(cells, -1)
