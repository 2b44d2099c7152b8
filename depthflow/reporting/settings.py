"""What a report was made of and with: model, weights, inputs, versions, seed, date."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import zarr

import depthflow
from depthflow.cases import BATCH
from depthflow.models.fingerprint import fingerprint
from depthflow.models.placement import Weights
from depthflow.recording.feed import Feed
from depthflow.schema import SCHEMA_VERSION, token_types
from depthflow.store import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from depthflow.cases import Subject
    from depthflow.reporting.sources import Source

LIBRARIES = ("numpy", "xarray", "scikit-learn", "torch")
ATTRIBUTES = {
    "model": "model",
    "family": "family",
    "versions": "recorded with",
    "final_norm": "final norm",
    "dtype": "states kept as",
    "preprocessing": "preprocessing",
}
"""Attribute of a trajectory → what the page calls it."""


def settings(
    case: Source, null: Source, *, null_name: str, seed: int, measures: Iterable[str]
) -> list[tuple[str, str]]:
    """Return names and values, in the order of the page."""
    traj = case.traj
    rows = [("trajectory", ", ".join(f"{size:,} {dim}s" for dim, size in traj.sizes.items()))]
    rows += [(said, str(traj.attrs[name])) for name, said in ATTRIBUTES.items() if traj.attrs.get(name)]
    kinds = token_types(traj)
    if kinds:
        rows.append(("tokens", ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))))
    rows += _hashes(case)
    if case.subject is not None:
        rows.append(("inputs, BLAKE2b", _inputs(case.subject)))
    rows.append(("null", null_name))
    rows += [(f"null: {name}", value) for name, value in _hashes(null)]
    rows += [("seed", str(seed)), ("measures", ", ".join(measures))]
    rows.append(("depthflow", f"{depthflow.__version__}, schema {SCHEMA_VERSION}"))
    rows.append(("libraries", ", ".join(f"{name} {version(name)}" for name in LIBRARIES)))
    rows.append(("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"))
    rows.append(("made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"))
    return rows


def _hashes(case: Source) -> list[tuple[str, str]]:
    """Return the hash of a model's weights; of a store, what its recording kept."""
    if case.subject is not None:
        return [("weights, BLAKE2b", fingerprint(Weights(case.subject.model)))]
    if case.store is None:
        return []
    kept: Any = zarr.open_group(case.store, mode="r").attrs.get(SETTINGS)
    named = {"weights": "weights, BLAKE2b", "first sample": "first sample, BLAKE2b"}
    found = {said: kept.get(name) for name, said in named.items()} if isinstance(kept, dict) else {}
    return [("store", case.store.name), *((said, str(value)) for said, value in found.items() if value)]


def _inputs(subject: Subject) -> str:
    """Return one hash of all that the model is called with."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in Feed(subject.inputs, BATCH):
        for row in range(batch.size):  # a sample at a time: batches of another size are the same inputs
            digest.update(fingerprint(batch.part(row, row + 1).call.named()).encode())
    return digest.hexdigest()
