"""What every experiment needs: data, teachers, scored fits, pieces that are kept, and the page's source."""

from __future__ import annotations

import argparse
import json
import platform
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import depthflow
from depthflow import SurrogateSettings
from depthflow.models.vit import VisionTransformer, ViTSettings
from depthflow.resample import mean_interval
from tutorials.training.digits_vit import accuracy, train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr

RESULTS = Path("docs/_data/replication")


class Samples(NamedTuple):
    """Images (sample, channel, row, column) between 0 and 1, and their labels (sample,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Plan:
    """Sizes that depend on the data: the teacher's shape and training, and the surrogates' steps."""

    vit: ViTSettings
    epochs: int
    batch_size: int
    surrogate: SurrogateSettings


PLANS = {
    "digits": Plan(
        vit=ViTSettings(),
        epochs=40,
        batch_size=64,
        surrogate=SurrogateSettings(steps=(50, 500)),
    ),
    "cifar10": Plan(
        vit=ViTSettings(image_size=32, patch_size=4, channels=3, width=192, heads=3),
        epochs=60,
        batch_size=256,
        surrogate=SurrogateSettings(steps=(500, 5000), batch_size=64),
    ),
}


@dataclass(frozen=True)
class Study:
    """On which data, where and how long the experiments run."""

    data: str = "digits"
    root: Path = Path()
    device: str = "cpu"
    seeds: int | None = None
    quick: bool = False
    folder: Path = Path("replication-runs")
    processes: int = 1

    @property
    def plan(self) -> Plan:
        """The sizes for these data; next to nothing in a quick run."""
        plan = PLANS[self.data]
        if not self.quick:
            return plan
        narrow = replace(plan.vit, width=16 * plan.vit.heads)
        return replace(plan, vit=narrow, epochs=2, batch_size=16, surrogate=replace(plan.surrogate, steps=(2, 4)))

    def count(self, usual: int) -> range:
        """Return the seeds to run: as many as asked for, or the experiment's own number."""
        return range(1 if self.quick else self.seeds or usual)

    def samples(self, split: str, one_in: int = 1) -> Samples:
        """Return images (sample, channel, row, column) between 0 and 1, and labels; one in so many.

        Of a quick run's 64.
        """
        limit = 64 if self.quick else None
        if self.data == "digits":
            found = depthflow.datasets.digits(split)
            images, labels = found.images[:limit], found.labels[:limit]
        else:
            images, labels = packed(self.root / f"cifar10_{split}.npz", limit)
        return Samples(images[::one_in], labels[::one_in])

    def trained(self, seed: int, stochastic_depth: float, one_in: int = 1) -> VisionTransformer:
        """Return a teacher trained on one in so many of these images, in as many steps, as kept or anew."""
        import torch
        from safetensors.torch import load_file, save_file

        settings = replace(self.plan.vit, stochastic_depth=stochastic_depth)
        part = "" if one_in == 1 else f"-one-in-{one_in}"
        kept = self.folder / "teachers" / f"drop{stochastic_depth:g}-seed{seed}{part}.safetensors"
        if kept.exists():
            model = VisionTransformer(settings)
            model.load_state_dict(load_file(kept))
            return model.eval()
        data, plan = self.samples("train", one_in), self.plan
        images, labels = (torch.from_numpy(array).to(self.device) for array in (data.images, data.labels))
        batch_size = min(plan.batch_size, len(images))
        steps = plan.epochs * (len(self.samples("train").images) // plan.batch_size)
        epochs = steps // (len(images) // batch_size)
        model = train(images, labels, settings, epochs=epochs, seed=seed, batch_size=batch_size).cpu()
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), kept)
        return model.eval()

    def untrained(self, seed: int) -> VisionTransformer:
        """Return the teacher's shape with the random weights of a seed."""
        import torch

        if self.data == "digits":
            return depthflow.datasets.digits_vit(trained=False, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return VisionTransformer(self.plan.vit).eval()

    def teacher(self) -> VisionTransformer:
        """Return the model that most experiments study: the bundled one, or one trained on the data."""
        if self.data == "digits":
            return depthflow.datasets.digits_vit()
        return self.trained(0, self.plan.vit.stochastic_depth)

    def accuracy(self, model: VisionTransformer, split: str, one_in: int = 1) -> float:
        """Return the share of a split, or of one in so many of its images, that a model classifies rightly."""
        import torch

        data = self.samples(split, one_in)
        return accuracy(model, torch.from_numpy(data.images), torch.from_numpy(data.labels))

    def record(self, model: VisionTransformer) -> Any:
        """Return a model's trajectory on the test images, labelled."""
        data = self.samples("test")
        return depthflow.record(
            model.to(self.device), data.images, labels=data.labels, device=self.device, progress=False
        )


@cache
def packed(path: Path, limit: int | None) -> Samples:
    """Return the first images of a file of packed JPEGs, decoded once a process."""
    with np.load(path) as pack:
        jpegs, ends, labels = pack["jpeg"].tobytes(), pack["offset"], pack["label"][:limit]
    images = np.stack([decoded(jpegs[ends[i] : ends[i + 1]]) for i in range(len(labels))])
    return Samples(images, labels.astype(np.int64))


def decoded(jpeg: bytes) -> np.ndarray:
    """Return one image (channel, row, column) between 0 and 1."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255


def fitted(study: Study, model: VisionTransformer, **options: Any) -> dict[str, Any]:
    """Return the scores of one surrogate on the test images."""
    device: dict[str, Any] = {"device": study.device, "progress": False}
    test, model = study.samples("test"), model.to(study.device)
    surrogate = depthflow.fit_surrogate(model, study.samples("train").images, **device, **options)
    scores = depthflow.score_surrogate(surrogate, model, test.images, labels=test.labels, **device)
    return {
        "phases": surrogate.phases.tolist(),
        "r2": scores.r2.sel(token_type="all").values.tolist(),
        "relative_error": scores.relative_error.sel(token_type="all").values.tolist(),
        **{name: scores[name].to_series().to_dict() for name in ("baseline_accuracy", "baseline_epsilon")},
        **{str(name): float(value) for name, value in scores.data_vars.items() if value.ndim == 0},
    }


def models(seeds: range) -> dict[str, dict[str, Any]]:
    """Return the models that most experiments compare, by name: the teacher and its untrained twins."""
    return {"trained": {"twin": None}, **{f"untrained {seed}": {"twin": seed} for seed in seeds}}


def model_of(study: Study, twin: int | None) -> VisionTransformer:
    """Return the teacher, or its untrained twin of a seed."""
    return study.teacher() if twin is None else study.untrained(twin)


def summary(values: np.ndarray) -> list[float]:
    """Return the mean of one value a sample, and its 95 % interval over resampled samples."""
    return list(mean_interval(np.asarray(values, dtype=np.float64)))


def by_depth(values: xr.DataArray) -> list[list[float]]:
    """Return mean and interval over samples at each depth or block."""
    return [summary(column) for column in values.transpose("sample", ...).values.T]


def one(work: Callable[..., dict[str, Any]], study: Study, kept: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of one piece of work, as kept or anew."""
    import torch

    if kept.exists():
        return json.loads(kept.read_text())
    torch.set_num_threads(1)  # one order of summation, so that a seed gives the same result on any machine size
    found = work(study, **options)
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(kept)
    print(f"  {kept.parent.name} {kept.stem}", flush=True)
    return found


def run(
    study: Study, experiment: str, work: Callable[..., dict[str, Any]], pieces: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the results of all pieces of an experiment, by name; each is kept, so that a second run goes on."""
    folder = study.folder / experiment
    with ProcessPoolExecutor(study.processes, mp_context=get_context("spawn")) as pool:
        waiting = {
            name: pool.submit(one, work, study, folder / f"{name}.json", options) for name, options in pieces.items()
        }
        return {name: future.result() for name, future in waiting.items()}


def publish(study: Study, experiment: str, *, settings: Mapping[str, Any], spread: str, values: Any) -> None:
    """Write an experiment's file: what was run, of which seeds and versions, and what came of it."""
    measured = {
        "experiment": experiment,
        "data": study.data,
        "quick": study.quick,
        "settings": dict(settings),
        "spread": spread,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("depthflow-dynamics", "torch", "numpy")},
        },
        "values": values,
    }
    final = RESULTS if study.data == "digits" and not study.quick else study.folder
    final.mkdir(parents=True, exist_ok=True)
    path = final / f"{experiment}.json"
    path.write_text(json.dumps(rounded(measured), indent=1) + "\n")
    print(f"{path}")


def rounded(value: Any) -> Any:
    """Return nested values with five significant digits, which is more than any of them has."""
    if isinstance(value, dict):
        return {str(name): rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def shown(settings: Any) -> dict[str, Any]:
    """Return settings as what JSON can hold."""
    return json.loads(json.dumps(asdict(settings), default=lambda value: dict(value)))


def study_from(description: str) -> Study:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(PLANS), default="digits")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of cifar10_train.npz and cifar10_test.npz")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=None, help="how many; by default the experiment's own number")
    parser.add_argument("--quick", action="store_true", help="a test of the machinery: 64 images, next to no training")
    parser.add_argument("--folder", type=Path, default=None, help="of the pieces that are kept")
    parser.add_argument("--processes", type=int, default=1)
    asked = vars(parser.parse_args())
    asked["folder"] = asked["folder"] or Path(f"replication-runs/{asked['data']}{'-quick' if asked['quick'] else ''}")
    return Study(**asked)
