"""The numbers behind a picture, as CSV: means over samples with their intervals, and one row a sample of the basins.

Text that a spreadsheet would run as a formula is put behind an apostrophe, as OWASP advises of CSV injection.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from depthflow.resample import bootstrap
from depthflow.schema import VARIABLES, token_types
from depthflow.trajectories import trajectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from depthflow.analysis import Analysis

MOST_CELLS = 20_000
"""Of a variable with more numbers than this, once samples are averaged, the results have to be asked."""
VECTORS = ("feature", "feature_out", "eigenmode")
"""Dims of vectors in state space, which are no numbers to read."""
ENDS = ("low", "high")
FIXED = ("of", "variable", "value", *ENDS, "units")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""With what a spreadsheet takes text for a formula; the last four are the full-width ones."""


def csv_of(analysis: Analysis, name: str) -> str:
    """Return every number of a measure, the trajectory's and the null's: a row each, with the coords that it has.

    What has one value a sample is given by its mean over samples and the bootstrap's interval of that mean, for each
    type of token; draws are averaged.
    """
    cases = {"trajectory": analysis.results[name], analysis.null_name: analysis.null[name]}
    rows = [{"of": _text(case), **row} for case, result in cases.items() for row in _rows(_averaged(_readable(result)))]
    dims = list(dict.fromkeys(key for row in rows for key in row if key not in FIXED))
    return _written([*FIXED[:2], *dims, *FIXED[2:]], rows)


def csv_of_samples(basins: xr.Dataset, ids: list[str]) -> str:
    """Return the basins' result of each sample."""
    columns: dict[str, list[Any]] = {"sample": ids}
    names = ("label", "basin", "commitment_depth", "silhouette")
    columns |= {name: basins[name].values.tolist() for name in names if name in basins.variables}
    columns = {name: [_text(value) for value in values] for name, values in columns.items()}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return _written(list(columns), rows)


def _readable(result: xr.Dataset) -> xr.Dataset:
    """Return the numbers of a result, complex ones by their parts, without labels, vectors and single draws."""
    result = _in_parts(result)
    if result.data_vars.keys() >= {"basin_stability", *ENDS}:
        result = result.rename({end: f"basin_stability_{end}" for end in ENDS})
    kept = [
        name
        for name, variable in result.data_vars.items()
        if variable.dtype.kind in "fi"
        and not (str(name) in VARIABLES and VARIABLES[str(name)].categorical)
        and not set(variable.dims) & set(VECTORS)
    ]
    readable = result[kept]
    return readable.mean("draw", keep_attrs=True) if "draw" in readable.dims else readable


def _in_parts(result: xr.Dataset) -> xr.Dataset:
    """Return the result with ``v_real`` and ``v_imag`` in the place of each complex ``v``."""
    for name in [str(name) for name, variable in result.data_vars.items() if variable.dtype.kind == "c"]:
        whole = result[name]
        parts = {"real": whole.real, "imag": whole.imag}
        result = result.drop_vars(name).assign(
            {f"{name}_{part}": values.assign_attrs(whole.attrs) for part, values in parts.items()}
        )
    return result


def _averaged(result: xr.Dataset) -> xr.Dataset:
    """Return the means over samples with the ends of their intervals, for each type of token."""
    if "token" in result.dims:
        result = _by_type(result)
    cells = {
        name: np.prod([size for dim, size in array.sizes.items() if dim != "sample"]) for name, array in result.items()
    }
    result = result[[name for name, count in cells.items() if count <= MOST_CELLS]]
    rowwise = [name for name, array in result.items() if "sample" in array.dims]
    rest = result.drop_vars([name for name in result.variables if "sample" in result[name].dims])
    if not rowwise:
        return rest
    if result.sizes["sample"] < 2:
        return result.isel(sample=0)
    sampled = result[rowwise].assign_attrs(samplewise=1)
    # bootstrap takes a measure of a trajectory; these numbers are measured already.
    stand_in = trajectory(np.zeros((result.sizes["sample"], 2, 1)), dims=("sample", "depth", "feature"))
    return rest.merge(bootstrap(lambda _: sampled, stand_in), compat="override")


def _by_type(result: xr.Dataset) -> xr.Dataset:
    """Return each token type's mean on a dim of that name; what has no tokens stays as it is."""
    types = np.array(token_types(result))
    kinds = list(dict.fromkeys(types.tolist()))
    parts = [result.isel(token=np.flatnonzero(types == kind)).mean("token", keep_attrs=True) for kind in kinds]
    over = [name for name, array in result.items() if "token" in array.dims]
    merged = xr.concat([part[over] for part in parts], "kind") if over else xr.Dataset()
    merged = merged.assign_coords(kind=np.array(kinds, dtype=object)).rename(kind="token_type")
    return (
        result.drop_vars(over)
        .drop_dims("token", errors="ignore")
        .drop_vars("token_type", errors="ignore")
        .merge(merged)
    )


def _rows(result: xr.Dataset) -> Iterator[Mapping[str, Any]]:
    # A store lists its arrays in any order.
    for name, array in sorted(result.data_vars.items()):
        base, _, end = str(name).rpartition("_")
        if end in ENDS and base in result:
            continue
        ends = {end: result[f"{name}_{end}"].values for end in ENDS if f"{name}_{end}" in result}
        coords = [_coords(array, str(dim)) for dim in array.dims]
        units = array.attrs.get("units", "")
        for index, value in np.ndenumerate(array.values):
            row = {"variable": name, "value": _number(value), "units": units}
            for columns, place in zip(coords, index, strict=True):
                row |= {column: _text(values[place]) for column, values in columns.items()}
            yield row | {end: _number(values[index]) for end, values in ends.items()}


def _coords(array: xr.DataArray, dim: str) -> dict[str, list[Any]]:
    """Return a dim's own labels, and the whole numbers beside them, such as a span's first and last block."""
    beside = [
        str(name)
        for name, coord in array.coords.items()
        if coord.dims == (dim,) and coord.dtype.kind == "i" and str(name) not in VARIABLES
    ]
    columns: dict[str, list[Any]] = {name: array[name].values.tolist() for name in dict.fromkeys([dim, *beside])}
    return columns


def _text(value: Any) -> Any:
    """Return a cell of which no spreadsheet makes a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _number(value: Any) -> str:
    return "" if np.isnan(value) else repr(value.item())


def _written(columns: list[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
