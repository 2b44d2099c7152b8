"""Build a trajectory from any array of states, select its tokens, take its updates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from depthflow.arrays import as_numpy, named_states
from depthflow.errors import ParameterError, TrajectoryError, raise_faults
from depthflow.schema import (
    DIMS,
    OFF_GRID,
    PATCH,
    SCHEMA_VERSION,
    STATE,
    TOKEN,
    TOKEN_TYPES,
    VARIABLES,
    check,
    check_consecutive,
    labels,
    token_types,
)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike

Tokens: TypeAlias = str | int | Sequence[str] | Sequence[int] | np.ndarray | None
"""Which tokens: a type, a list of types, an index, indices, or None for all."""

STRING = np.dtypes.StringDType()


def trajectory(
    states: Any,
    *,
    dims: Sequence[str] | Mapping[str, str] | None = None,
    token_type: str | Sequence[str] | None = None,
    grid: tuple[int, int] | None = None,
    label: ArrayLike | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Return a validated trajectory from states that you already have.

    Parameters
    ----------
    states : numpy.ndarray, torch.Tensor, sequence of arrays, or xarray.DataArray
        Residual-stream states **before** the model's final norm. An array of four axes is read as (sample, depth,
        token, feature) and one of two as (depth, feature); three axes need ``dims``. A sequence holds one array
        (sample, token, feature) per depth, depth 0 first, such as Hugging Face's ``hidden_states`` (in some models
        its last entry is after the final norm: leave that one out).
    dims : sequence of str, or mapping of str to str
        For an array, or for each array of a sequence, the names of its axes in order. For a DataArray, its dim
        names mapped to depthflow's, as in ``{"layer": "depth"}``.
    token_type : str or sequence of str
        One type for all tokens, or one a token: ``"cls"``, ``"reg"``, ``"dist"``, ``"patch"``, ``"pad"``,
        ``"mean"``, or ``"token"`` where the kind is unknown (the default).
    grid : (int, int)
        Rows and columns of the patch tokens, which lie row by row; gives the coords ``row`` and ``col``.
    label : array-like
        One class a sample.
    attrs : mapping
        Anything that JSON can hold, kept with the trajectory.

    Returns
    -------
    xarray.DataArray
        Named ``state``, dims ``("sample", "depth", "token", "feature")`` less those that the input lacks, in float32
        or float64 (half precisions become float32, which is exact), with the coords that apply.

    Raises
    ------
    TrajectoryError
        All faults at once: dims, sizes, dtype, states that are not finite (says where), lengths of coords.

    Notes
    -----
    An array is not copied where its layout and dtype already fit.

    Examples
    --------
    >>> import numpy as np, depthflow
    >>> states = np.random.default_rng(0).normal(size=(3, 6, 7, 11))
    >>> traj = depthflow.trajectory(states, token_type=["cls"] + ["patch"] * 6, grid=(2, 3))
    >>> dict(traj.sizes)
    {'sample': 3, 'depth': 6, 'token': 7, 'feature': 11}
    """
    named = named_states(states, dims)
    if np.issubdtype(named.dtype, np.floating) and named.dtype.itemsize < 4:
        named = named.astype(np.float32)
    traj = check(named, "trajectory").transpose(*(dim for dim in DIMS if dim in named.dims))
    traj = traj.rename(STATE)
    faults: list[str] = []
    coords: dict[str, Any] = {
        dim: np.arange(traj.sizes[dim])
        for dim in ("sample", "depth", "token")
        if dim in traj.dims and dim not in traj.coords
    }
    if "token" in traj.dims:
        coords |= _token_coords(traj, token_type, grid, faults)
    elif token_type is not None or grid is not None:
        faults.append("has no dim 'token', so token_type and grid cannot apply. Leave them out.")
    if label is not None:
        coords |= _label_coord(traj, label, faults)
    faults += [fault for fault in [_finite_fault(traj)] if fault]
    raise_faults(TrajectoryError, "trajectory", faults)
    metadata = {"schema_version": SCHEMA_VERSION, "final_norm": "not applied", "dtype": str(traj.dtype)}
    variable = VARIABLES[STATE]
    traj = traj.assign_coords(coords)
    traj.attrs = {
        **metadata,
        **traj.attrs,
        **_json_safe(attrs or {}),
        "long_name": variable.long_name,
        "units": variable.units,
    }
    return traj


def updates(traj: xr.DataArray) -> xr.DataArray:
    """Return the residual updates Δ_ℓ = x_ℓ − x_{ℓ−1} on the dim ``block``.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory with consecutive depths.

    Returns
    -------
    xarray.DataArray
        Named ``update``, dims ``(sample, block, token, feature)``, state units. Block ℓ maps depth ℓ−1 to depth ℓ;
        the coord ``module`` names the block's module where the trajectory was recorded from a model.

    Raises
    ------
    TrajectoryError
        If ``traj`` is no trajectory, or skips depths.

    Examples
    --------
    >>> import numpy as np, depthflow
    >>> traj = depthflow.trajectory(np.cumsum(np.ones((4, 2)), axis=0), dims=("depth", "feature"))
    >>> depthflow.updates(traj).block.values.tolist()
    [1, 2, 3]
    """
    check_consecutive(check(traj, "updates"), "updates")
    after = traj.isel(depth=slice(1, None))
    before = traj.isel(depth=slice(None, -1))
    result = after.copy(data=after.data - before.data).rename(depth="block").rename("update")
    result = result.assign_coords(block_coords(traj))
    variable = VARIABLES["update"]
    result.attrs = {**traj.attrs, "long_name": variable.long_name, "units": variable.units}
    return result


def block_coords(traj: xr.DataArray) -> dict[str, Any]:
    """Return the coords of the dim ``block`` that belong to ``traj``: its numbers, and module names if known."""
    block = labels(traj, "depth")[1:]
    coords: dict[str, Any] = {"block": block}
    modules = traj.attrs.get("modules")
    if modules:
        coords["module"] = ("block", np.array([modules[number - 1] for number in block], dtype=STRING))
    return coords


def token_indices(traj: xr.DataArray, tokens: Tokens, what: str = "select_tokens") -> np.ndarray:
    """Return the positions along ``token`` that ``tokens`` chooses.

    Raises
    ------
    ParameterError
        If a type is absent from the trajectory (says which are there), or an index is out of range.
    """
    count = traj.sizes.get("token")
    if count is None:
        raise ParameterError(f"{what} was asked for tokens={tokens!r}, but the trajectory has no dim 'token'.")
    if tokens is None:
        return np.arange(count)
    chosen = [tokens] if isinstance(tokens, str | int | np.integer) else list(tokens)
    if not chosen:
        raise ParameterError(f"{what} needs at least one token; got tokens={tokens!r}.")
    if all(isinstance(item, str) for item in chosen):
        types = token_types(traj)
        absent = [kind for kind in chosen if kind not in types]
        if absent:
            raise ParameterError(
                f"{what} was asked for tokens of type {absent[0]!r}, which this trajectory lacks; it has "
                f"{sorted(set(types))}. Choose among these, or give indices."
            )
        return np.flatnonzero(np.isin(types, chosen))
    if not all(isinstance(item, int | np.integer) and not isinstance(item, bool) for item in chosen):
        raise ParameterError(f"{what} needs tokens as a type, types, or indices; got {tokens!r}.")
    indices = np.asarray(chosen, dtype=np.int64)
    wrong = indices[(indices < -count) | (indices >= count)]
    if len(wrong):
        raise ParameterError(
            f"{what} was asked for token {wrong[0]}, but the trajectory has {count} tokens: 0 to {count - 1}."
        )
    return indices % count


def select_tokens(traj: xr.DataArray, kind: Tokens) -> xr.DataArray:
    """Return the trajectory of the chosen tokens only.

    Parameters
    ----------
    traj : xarray.DataArray
        Trajectory with the dim ``token``.
    kind : str, sequence of str, int, or sequence of int
        A token type, several types, or positions along ``token`` (negative ones count from the end).

    Returns
    -------
    xarray.DataArray
        The same dims; ``token`` keeps the original indices as its coord.

    Raises
    ------
    ParameterError
        If a type or an index is not there.

    Examples
    --------
    >>> import numpy as np, depthflow
    >>> traj = depthflow.trajectory(np.ones((1, 2, 3, 4)), token_type=["cls", "patch", "patch"])
    >>> depthflow.select_tokens(traj, "patch").token.values.tolist()
    [1, 2]
    """
    return check(traj, "select_tokens").isel(token=token_indices(traj, kind))


def _token_coords(
    traj: xr.DataArray,
    token_type: str | Sequence[str] | None,
    grid: tuple[int, int] | None,
    faults: list[str],
) -> dict[str, Any]:
    count = traj.sizes["token"]
    if token_type is None and "token_type" in traj.coords:
        types = token_types(traj)
    elif token_type is None or isinstance(token_type, str):
        types = [token_type or TOKEN] * count
    else:
        types = [str(kind) for kind in token_type]
    strange = sorted(set(types) - set(TOKEN_TYPES))
    if strange:
        faults.append(f"knows the token types {TOKEN_TYPES}; got {strange}.")
    if len(types) != count:
        faults.append(f"needs one token_type for each of {count} tokens; got {len(types)}.")
        return {}
    coords: dict[str, Any] = {"token_type": ("token", np.array(types, dtype=STRING))}
    if grid is not None:
        patches = [index for index, kind in enumerate(types) if kind == PATCH]
        if len(patches) != grid[0] * grid[1]:
            faults.append(f"grid {tuple(grid)} needs {grid[0] * grid[1]} tokens of type 'patch'; got {len(patches)}.")
        else:
            place = np.full((2, count), OFF_GRID)
            place[:, patches] = np.indices(grid).reshape(2, -1)
            coords |= {"row": ("token", place[0]), "col": ("token", place[1])}
    return coords


def _label_coord(traj: xr.DataArray, label: ArrayLike, faults: list[str]) -> dict[str, Any]:
    labels = as_numpy(label)
    if "sample" not in traj.dims:
        faults.append("has no dim 'sample', so labels cannot apply. Leave label out.")
    elif labels.shape != (traj.sizes["sample"],):
        faults.append(f"needs one label for each of {traj.sizes['sample']} samples; got shape {labels.shape}.")
    else:
        return {"label": ("sample", labels.astype(STRING) if labels.dtype.kind in "UO" else labels)}
    return {}


def _finite_fault(traj: xr.DataArray) -> str | None:
    """Return where the first state that is not finite lies, or None; dask-backed states are not read."""
    if traj.chunks is not None:
        return None
    values = traj.values
    if np.isfinite(values.sum(dtype=np.float64)):
        return None
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return None
    where = ", ".join(f"{dim} {index}" for dim, index in zip(traj.dims, bad[0], strict=True))
    value = values[tuple(bad[0])]
    return f"needs finite states; got {value} first at {where} ({len(bad)} in all). Remove those samples."


def _json_safe(attrs: Mapping[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(dict(attrs))
    except (TypeError, ValueError) as error:
        raise TrajectoryError(f"trajectory: attrs must be values that JSON can hold ({error}).") from None
    return dict(attrs)
