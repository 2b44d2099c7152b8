"""What a report is made of: a trajectory, the model that it is of, and the null of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from depthflow.analysis import NULL_BY_CHANCE, TWIN, analyze
from depthflow.cases import Subject
from depthflow.errors import ParameterError
from depthflow.models.detect import adapt
from depthflow.models.rebuild import BUILDERS, installed, rebuildable
from depthflow.recording.feed import Feed
from depthflow.recording.inputs import id_array, label_array
from depthflow.recording.mode import prepared, undisturbed
from depthflow.resample import random_directions
from depthflow.schema import check
from depthflow.store import open_trajectory

if TYPE_CHECKING:
    import xarray as xr

    from depthflow.analysis import Analysis

NEEDS_MODEL = "It needs the model itself, not its states alone: report(model, inputs)."
REMEDY = "Give an array, a dict of arrays, a list of batches, or a DataLoader that does not shuffle."
NEEDS_TWIN = (
    "It needs the null as a model, and no untrained twin could be built from what this model says of itself: pass one "
    "as null=."
)


class Source(NamedTuple):
    """A trajectory, the model that it was recorded from, and the store that it lies in, where there are such."""

    traj: xr.DataArray
    subject: Subject | None = None
    store: Path | None = None


class Sources(NamedTuple):
    """What is reported and its null; ``without_model`` says why a measure that needs models cannot be taken."""

    case: Source
    null: Source
    null_name: str
    without_model: str = ""

    def analyze(self, **how: Any) -> Analysis:
        """Return measures of the case and of its null, as :func:`depthflow.analysis.analyze` does."""
        return analyze(
            self.case.traj,
            subject=self.case.subject,
            null=self.null.traj,
            null_subject=self.null.subject,
            null_name=self.null_name,
            **how,
        )


def require_repeatable(inputs: Any) -> None:
    """Raise unless the inputs come again, in the same order, whenever they are gone through.

    Raises
    ------
    ParameterError
        For a generator, which comes once, and a DataLoader that shuffles.
    """
    if hasattr(inputs, "__next__"):
        raise ParameterError(
            f"report goes through the inputs several times; a {type(inputs).__name__} comes once. {REMEDY}"
        )
    require_ordered(inputs)


def require_ordered(inputs: Any) -> None:
    """Raise where a sample's input may stand at another's place.

    Raises
    ------
    ParameterError
        For a DataLoader that shuffles.
    """
    if not Feed(inputs, 1).in_order:
        raise ParameterError(
            "report needs each sample's input at the sample's own place, whenever it goes through the inputs; this "
            f"DataLoader changes the order. {REMEDY}"
        )


def untrained_twin(subject: Subject, seed: int) -> nn.Module | None:
    """Return the same architecture at random initialisation, None where it cannot be built from what the model says.

    It is built by the model's own library, and only after a model that is built so has proved the same in every bit.
    """
    adapter = adapt(subject.model, subject.blocks)
    if adapter.refusal is not None:
        return None
    first = Feed(subject.inputs, 2).first()
    with undisturbed(adapter.root) as home:
        recipe = rebuildable(adapter, prepared(adapter.root, first.part(0, 1), home))
    if recipe is None:
        return None
    library = recipe["library"]
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        twin = BUILDERS[library](installed(library), recipe)
    if home is not None:
        twin.to(home)
    if "dtype" in recipe:
        twin.to(getattr(torch, recipe["dtype"]))
    return twin.eval()


def of_trajectory(given: Any, null: Any, *, labels: Any, sample_ids: Any, seed: int) -> Sources:
    """Return a trajectory, or the one in a store, beside ``null`` or random directions."""
    if isinstance(null, nn.Module):
        raise ParameterError("report compares a trajectory with a trajectory; got a model as null=. Record it first.")
    case = _opened(given, "report")
    case = case._replace(traj=_with_columns(case.traj, labels, sample_ids))
    other, name = _null_of_states(case.traj, null, labels, sample_ids, seed)
    return Sources(case, other, name, NEEDS_MODEL)


def of_model(
    model: nn.Module,
    inputs: Any,
    null: Any = None,
    *,
    null_name: str = "null",
    labels: Any = None,
    sample_ids: Any = None,
    blocks: str | None = None,
    device: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Sources:
    """Record a model beside ``null``, its untrained twin, or, where none can be built, random directions."""
    require_repeatable(inputs)
    labels = None if labels is None else label_array(labels)
    subject = Subject(model, inputs, labels, sample_ids, blocks, device)
    twin = untrained_twin(subject, seed + 1) if null is None else null
    case = Source(subject.record(progress=progress), subject)
    if isinstance(twin, nn.Module):
        other = replace(subject, model=twin)
        return Sources(case, Source(other.record(progress=progress), other), TWIN if null is None else null_name)
    untrained, name = _null_of_states(case.traj, null, labels, sample_ids, seed)
    return Sources(case, untrained, name, NEEDS_TWIN)


def _null_of_states(traj: xr.DataArray, null: Any, labels: Any, sample_ids: Any, seed: int) -> tuple[Source, str]:
    if null is None:
        return Source(random_directions(traj, seed=seed)), NULL_BY_CHANCE
    other = _opened(null, "report: null")
    if other.traj.sizes["sample"] == traj.sizes["sample"]:
        # What is said of the samples holds of the null's too: they are the same.
        other = other._replace(traj=_with_columns(other.traj, labels, sample_ids))
    return other, "null" if other.store is None else other.store.name


def _opened(given: Any, what: str) -> Source:
    store = Path(given) if isinstance(given, str | Path) else None
    traj = check(given, what) if store is None else open_trajectory(store)
    return Source(traj if "sample" in traj.dims else traj.expand_dims(sample=[0]), store=store)


def _with_columns(traj: xr.DataArray, labels: Any, sample_ids: Any) -> xr.DataArray:
    given = {
        "label": None if labels is None else label_array(labels),
        "sample_id": None if sample_ids is None else id_array(sample_ids),
    }
    for name, values in given.items():
        if values is None:
            continue
        if len(values) != traj.sizes["sample"]:
            raise ParameterError(
                f"report needs one {name} for each of {traj.sizes['sample']} samples; got {len(values)}."
            )
        traj = traj.assign_coords({name: ("sample", values)})
    return traj
