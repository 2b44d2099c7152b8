"""Tell whether an unfinished store is of the recording that would continue it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from depthflow.errors import StoreError
from depthflow.models.fingerprint import fingerprint
from depthflow.models.placement import Weights
from depthflow.recording.inputs import holds, kind
from depthflow.schema import STATE
from depthflow.store import DONE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from depthflow.models.base import Adapter
    from depthflow.recording.feed import Feed
    from depthflow.recording.sinks import Columns

HASH = "hash"
"""Entry of the settings: one hash of all of them."""
UNLIKE = 0.05
"""Relative difference of a sample's tokens, on average, from which on it is another sample: rounding gives less."""

ROUNDING = 1e-3
"""What rounding may come to in full precision; a model whose samples differ by more can tell them apart."""


def settings(adapter: Adapter, feed: Feed, *, tokens: Any, depths: Sequence[int] | None, dtype: str) -> dict[str, Any]:
    """Return what must be the same for a store to be continued, in values that JSON can hold.

    Weights, labels, names and the first sample stand in it by their hash. The batch size is not in it.
    """
    found = {
        "model": adapter.name(),
        "weights": fingerprint(Weights(adapter.root)),
        "blocks": adapter.names,
        "tokens": np.asarray(tokens).tolist() if not isinstance(tokens, str | None) else tokens,
        "depths": None if depths is None else list(depths),
        "dtype": dtype,
        "samples": feed.count,
        "first sample": fingerprint(feed.first().part(0, 1).call.named()),
        "labels": _hash(feed.labels),
        "sample ids": _hash(feed.ids),
    }
    return found | {HASH: hashlib.blake2b(json.dumps(found).encode(), digest_size=16).hexdigest()}


def _hash(values: np.ndarray | None) -> str | None:
    return None if values is None else hashlib.blake2b(str(values.tolist()).encode(), digest_size=8).hexdigest()


def require_alike(
    path: Path, arrays: Mapping[str, Any], shape: tuple[int, int, int], columns: Columns, coords: Mapping[str, Any]
) -> None:
    """Raise unless a store's ``arrays`` have the shape, the columns and the tokens of what is recorded."""
    known = arrays[STATE].shape[1:]
    if known != shape:
        raise StoreError(f"{path} holds states of shape {known}; this recording has {shape}.")
    along = {name: array.dtype for name, array in arrays.items() if array.metadata.dimension_names == ("sample",)}
    there = {name: dtype for name, dtype in along.items() if name not in (DONE, "sample")}
    here = {name: values.dtype for name, values in columns.items()}
    if there.keys() != here.keys() or not all(holds(there[name], here[name]) for name in here):
        held, got = (
            ", ".join(f"{name} ({kind(dtypes[name])})" for name in sorted(dtypes)) or "nothing"
            for dtypes in (there, here)
        )
        raise StoreError(
            f"{path} keeps {held} beside each sample's states; this recording has {got}. Record with the same labels, "
            "or choose another path."
        )
    for name in ("token", "token_type", "row", "col"):
        found = coords.get(name, [])
        values = found[1] if isinstance(found, tuple) else found
        if not np.array_equal(arrays[name][:] if name in arrays else [], values):
            raise StoreError(
                f"{path} holds other tokens than this recording has, by {name}. Give all batches one shape (one image "
                "size, one length of text), or choose another path."
            )


def unlike(stored: np.ndarray, other: np.ndarray | None) -> float:
    """Return the relative difference from a sample as ``stored`` from which on it is another sample.

    It is less than ``UNLIKE`` where all samples are nearly alike, as of untrained models at the class token: ``other``
    is one that is known to be different.
    """
    half = 0.0 if other is None else distance(other, stored) / 2
    return min(UNLIKE, half) if half > ROUNDING else UNLIKE


def distance(states: np.ndarray, stored: np.ndarray) -> float:
    """Return how far states are from those ``stored``, relative to these, on average over depths and tokens."""
    norm = np.linalg.norm(stored, axis=-1)
    known = norm > 0
    far = np.linalg.norm(np.subtract(states, stored, dtype=np.float64), axis=-1)
    return float(np.mean(far[known] / norm[known])) if known.any() else 0.0
