"""Label recorded states: coords and attributes of a trajectory."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

import depthflow
from depthflow.schema import SCHEMA_VERSION, STATE, VARIABLES
from depthflow.trajectories import STRING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from depthflow.models.base import Adapter
    from depthflow.recording.tokens import Kept


def coords(kept: Kept, depths: Sequence[int], samples: int, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the coords of a recording of ``samples`` samples, of which ``columns`` hold one value a sample."""
    found: dict[str, Any] = {
        "sample": np.arange(samples),
        "depth": np.asarray(depths, dtype=np.int64),
        "token": kept.token().astype(np.int64),
        "token_type": ("token", np.array(kept.types(), dtype=STRING)),
    }
    places = kept.places()
    if places is not None:
        found |= {"row": ("token", np.array(places[0])), "col": ("token", np.array(places[1]))}
    return found | {name: ("sample", values) for name, values in columns.items()}


def attributes(adapter: Adapter, modules: Sequence[str], dtype: str) -> dict[str, Any]:
    """Return what a recording keeps of its model; every value is a number, a string or a list of strings."""
    variable = VARIABLES[STATE]
    found: dict[str, Any] = {
        **provenance(adapter),
        "modules": list(modules),
        "final_norm": "not applied",
        "dtype": dtype,
        "long_name": variable.long_name,
        "units": variable.units,
    }
    norm, preprocessing = adapter.final_norm(), adapter.preprocessing()
    if norm is not None:
        found["final_norm_module"] = norm
    if preprocessing is not None:
        found["preprocessing"] = json.dumps(preprocessing)
    return found


def provenance(adapter: Adapter) -> dict[str, Any]:
    """Return which model a result is of, by which software."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": adapter.name(),
        "family": adapter.family,
        "versions": _versions(adapter.library),
    }


def _versions(library: str) -> str:
    known = {"depthflow": depthflow.__version__}
    for name in dict.fromkeys(["torch", library]):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return ", ".join(f"{name} {number}" for name, number in known.items())
