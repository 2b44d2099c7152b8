"""What a plot asks of its argument, and the error that names the measure which makes it."""

from __future__ import annotations

import xarray as xr

from depthflow.errors import ParameterError
from depthflow.schema import VARIABLES

ALONG = ("depth", "block")


def need(ds: object, variable: str, plot: str, measure: str) -> xr.DataArray:
    """Return ``ds[variable]``, or raise an error that says which measure makes it."""
    dataset = _dataset(ds, plot, measure)
    # xarray makes a variable a coord if it bears the name of a dim, as `basin` and `phase` may.
    if variable not in dataset.variables:
        raise ParameterError(
            f"plot.{plot} needs the variable {variable!r}, which `depthflow.{measure}` makes; this Dataset holds "
            f"{sorted(map(str, dataset.data_vars))}."
        )
    return dataset[variable]


def need_curve(ds: object, variable: str, plot: str, measure: str) -> xr.DataArray:
    """Return ``ds[variable]`` if it is a quantity along either depth or block."""
    array = need(ds, variable, plot, measure)
    if not _is_curve(array):
        fit = sorted(str(name) for name, other in _dataset(ds, plot, measure).data_vars.items() if _is_curve(other))
        raise ParameterError(
            f"plot.{plot} draws a quantity along depth or block; {variable!r} has the dims "
            f"{tuple(map(str, array.dims))}. Choose variable= among {fit}."
        )
    return array


def _dataset(ds: object, plot: str, measure: str) -> xr.Dataset:
    if not isinstance(ds, xr.Dataset):
        raise ParameterError(
            f"plot.{plot} needs the Dataset that `depthflow.{measure}` returns; got {type(ds).__name__}."
        )
    return ds


def _is_curve(array: xr.DataArray) -> bool:
    known = VARIABLES.get(str(array.name))
    quantity = array.dtype.kind in "fiu" and not (known is not None and known.categorical)
    return quantity and sum(dim in array.dims for dim in ALONG) == 1
