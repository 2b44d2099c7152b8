"""The surrogate's job from names: fit it to a model on images, score it on images that it did not see, write all."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from depthflow.errors import ParameterError, StoreError
from depthflow.summary import WIDTH
from depthflow.surrogate.nearness import ALL
from depthflow.surrogate.settings import SurrogateSettings

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from torch import nn

    from depthflow.sources import LoadedModel
    from depthflow.surrogate.recurrent import RecurrentSurrogate

SCORES, PICTURE, CHECKPOINT = "scores.zarr", "surrogate.png", "checkpoint"
UNSEEN = 0.1
"""Share of a folder's images that are kept for the scores."""
COMPARED, BATCH = 256, 32
"""How many of the unseen images are recorded, for the picture of both models' paths, and how many at once."""
DPI = 200

BASELINES = {
    "identity": "depth 0 left as it is",
    "linear": "the best linear map of each phase",
    "truncated": "the teacher's first blocks alone",
    "repeated": "the teacher's own blocks repeated, untrained",
}
"""What the baselines of :func:`score_surrogate` are in words."""


@dataclass(frozen=True)
class Part:
    """Some of the images, and one class an image where there are classes."""

    inputs: Any
    labels: list[Any] | None


def read_settings(path: Path | None, **given: Any) -> SurrogateSettings:
    """Return the settings of a JSON file, if any, with those ``given`` that are not None in their place.

    Raises
    ------
    ParameterError
        If the file cannot be read, or names a setting that there is not; or from the settings themselves.
    """
    plain: Any = {}
    if path is not None:
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ParameterError(f"{path} cannot be read as JSON: {error}.") from error
    known = [one.name for one in fields(SurrogateSettings)]
    strange = [name for name in plain if name not in known] if isinstance(plain, dict) else [plain]
    if strange:
        raise ParameterError(f"{path} needs an object with settings among {', '.join(known)}; got {strange[0]!r}.")
    plain |= {name: value for name, value in given.items() if value is not None}
    return SurrogateSettings.from_json(SurrogateSettings().to_json() | plain)


def fit(
    loaded: LoadedModel,
    images: str,
    folder: Path,
    *,
    n_phases: int,
    settings: SurrogateSettings,
    labels_from_folders: bool = False,
    blocks: str | None = None,
    device: str | None = None,
    resume: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> str:
    """Fit a surrogate and score it, write both into ``folder``; return what was found and where it lies.

    A tenth of a folder's images, drawn at random, is kept for the scores; of the bundled digits, those that the bundled
    model never saw. Under torchrun the first process scores and writes.

    Raises
    ------
    StoreError
        If ``folder`` holds a surrogate already: it is never overwritten.
    """
    from depthflow.surrogate.fit import fit_surrogate
    from depthflow.surrogate.processes import processes
    from depthflow.surrogate.score import score_surrogate

    if (folder / SCORES).exists():
        raise StoreError(f"{folder} holds a surrogate already and is not overwritten. Choose another folder with -o.")
    seen, unseen = _parts(images, loaded, labels_from_folders, seed)
    surrogate = fit_surrogate(
        loaded.model,
        seen.inputs,
        n_phases=n_phases,
        settings=settings,
        checkpoint=folder / CHECKPOINT,
        resume=resume,
        blocks=blocks,
        device=device,
        seed=seed,
        progress=progress,
    )
    if processes(device).share.rank > 0:
        return ""
    scores = score_surrogate(
        surrogate,
        loaded.model,
        unseen.inputs,
        labels=unseen.labels,
        train_inputs=seen.inputs,
        train_labels=seen.labels,
        blocks=blocks,
        device=device,
        progress=progress,
    )
    text = write(surrogate, loaded.model, unseen.inputs, scores, folder, blocks=blocks, device=device)
    surrogate.save_pretrained(folder)
    return f"{text}\n\nWritten to {folder}/: config.json, model.safetensors, README.md, {SCORES}, {PICTURE}"


def write(
    surrogate: RecurrentSurrogate, model: nn.Module, inputs: Any, scores: xr.Dataset, folder: Path, **options: Any
) -> str:
    """Write the scores, and the picture of both models side by side, into ``folder``; return the scores in words."""
    from matplotlib.figure import Figure
    from torch.utils.data import DataLoader, Dataset

    from depthflow import plot
    from depthflow.measures.convergence import convergence
    from depthflow.recording.forward import record

    scores.to_zarr(folder / SCORES, mode="w-", zarr_format=3, consolidated=False)
    some = inputs[:COMPARED] if not isinstance(inputs, Dataset) else DataLoader(_first(inputs), batch_size=BATCH)
    device = options.get("device")
    original = convergence(record(model, some, progress=False, **options))
    redone = convergence(record(surrogate, some, device=device, progress=False))
    figure = Figure(figsize=(10.0, 4.4), layout="constrained")
    near, path = figure.subplots(1, 2)
    plot.surrogate(scores, ax=near)
    plot.convergence(original, ax=path, variable="angle", null=redone, null_label="surrogate")
    figure.savefig(folder / PICTURE, dpi=DPI, bbox_inches="tight")
    return summarize(scores)


def _first(dataset: Any) -> Any:
    """Return the first samples of a dataset."""
    from torch.utils.data import Subset

    return Subset(dataset, range(min(COMPARED, len(dataset))))


def summarize(scores: xr.Dataset) -> str:
    """Return a surrogate's scores in words, beside those of the baselines."""
    r2 = scores.r2.sel(token_type=ALL)
    depths, blocks = scores["depth"].values, scores.attrs["n_phases"]
    least = int(r2.argmin("depth"))
    lines = [
        f"- {blocks} block{'s' * (blocks > 1)} in place of {len(depths)}: R² {float(r2[least]):.2f} at depth "
        f"{depths[least]}, the least, and {float(r2[-1]):.2f} at depth {depths[-1]}; ε = {float(scores.epsilon):.2f}, "
        f"the largest relative error, at depth {int(scores.epsilon_depth)}"
    ]
    for kind, name in (("", "the teacher's head"), ("_probe", "a linear probe")):
        if f"surrogate{kind}_accuracy" in scores:
            lines.append(
                f"- by {name} {float(scores[f'surrogate{kind}_accuracy']):.1%} of the images are classified rightly, "
                f"against the teacher's {float(scores[f'teacher{kind}_accuracy']):.1%}"
            )
    for baseline in scores["baseline"].values:
        one = scores.sel(baseline=baseline)
        right = f"; {float(one.baseline_accuracy):.1%} right" if "baseline_accuracy" in one else ""
        lines.append(
            f"· {BASELINES[str(baseline)]}: R² {float(one.baseline_r2.sel(token_type=ALL).min()):.2f} at least; ε = "
            f"{float(one.baseline_epsilon):.2f}{right}"
        )
    wrapped = [fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines]
    return "\n".join(["Can a few blocks, applied again and again, do the work of all?", *wrapped])


def _parts(images: str, loaded: LoadedModel, labels_from_folders: bool, seed: int) -> tuple[Part, Part]:
    """Return the images to fit to, and those to score on."""
    from torch.utils.data import Subset

    from depthflow.sources import load_images

    if images == "digits":
        splits = (load_images(images, loaded, split=split) for split in ("train", "test"))
        seen, unseen = (Part(getattr(one.batches, "dataset", one.batches), one.labels) for one in splits)
        return seen, unseen
    given = load_images(images, loaded, labels_from_folders=labels_from_folders)
    dataset: Any = getattr(given.batches, "dataset", None)
    order = np.random.default_rng(seed).permutation(len(given.names))
    kept_out = max(1, int(UNSEEN * len(order)))
    labels = given.labels

    def part(index: np.ndarray) -> Part:
        chosen = sorted(index.tolist())
        return Part(Subset(dataset, chosen), None if labels is None else [labels[number] for number in chosen])

    return part(order[kept_out:]), part(order[:kept_out])
