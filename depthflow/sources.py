"""Models by name, with their own preprocessing, and images from a folder: what the command line is given."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from depthflow.datasets import digits, digits_vit
from depthflow.errors import ModelError, ParameterError
from depthflow.models.rebuild import installed

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image
    from torch import Tensor, nn

SCHEMES = ("digits", "timm:NAME", "hf:NAME_OR_DIR", "torchvision:NAME", "hub:REPO:NAME")
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

Prepare = Callable[["Image"], "Tensor"]
"""From one picture to what the model takes (channel, row, column)."""


@dataclass(frozen=True)
class LoadedModel:
    """A model and, once called, how a picture is prepared for it."""

    name: str
    model: nn.Module
    preparation: Callable[[], Prepare]
    """Returns the preprocessing; it is looked for only when there are images."""


@dataclass(frozen=True)
class LoadedImages:
    """Batches for :func:`depthflow.record`, one label and one name an image, in order."""

    batches: Iterable[Any]
    labels: list[Any] | None
    names: list[str] = field(default_factory=list)


def load_model(name: str, *, random_weights: bool = False, seed: int = 0) -> LoadedModel:
    """Return the model that ``name`` stands for.

    Parameters
    ----------
    name : str
        ``digits`` (bundled), ``timm:NAME``, ``hf:NAME_OR_DIR``, ``torchvision:NAME`` or ``hub:REPO:NAME``, where REPO
        is GitHub's ``owner/name[:ref]`` or a local folder.
    random_weights : bool
        The untrained model: the null of every finding about the trained one.
    seed : int
        Seed of the random weights.

    Raises
    ------
    ModelError
        If the scheme or the model is unknown (suggests close names), its library is not installed, or its weights
        cannot be had.
    """
    scheme, _, rest = name.partition(":")
    loaders = {"timm": _timm, "hf": _huggingface, "torchvision": _torchvision, "hub": _hub}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "digits":
            return LoadedModel(name, digits_vit(trained=not random_weights, seed=seed), lambda: _tiny_grey)
        if scheme not in loaders or not rest:
            raise ModelError(f"{name!r} names no model. Give one of: {', '.join(SCHEMES)}.")
        return loaders[scheme](name, rest, random_weights)


def load_images(
    images: str | Path,
    loaded: LoadedModel,
    *,
    labels_from_folders: bool = False,
    batch_size: int = 32,
    split: str = "test",
) -> LoadedImages:
    """Return images prepared as the model asks, in batches that are read as they are needed.

    Parameters
    ----------
    images : str or Path
        A folder, searched through all its sub-folders in sorted order, or ``digits`` for the bundled digits.
    loaded : LoadedModel
        The model that they are for.
    labels_from_folders : bool
        Take the first sub-folder's name as the label of an image.
    batch_size : int
        Images a batch.
    split : {"test", "train"}
        Of the bundled digits: the 360 that the bundled model never saw, or the 1,437 that it was trained on.

    Raises
    ------
    ParameterError
        If there is no such folder, it holds no images, an image lies outside the class folders, or one cannot be read.
    """
    if str(images) == "digits":
        data = digits(split)
        names = [f"digits/{number}" for number in range(len(data.images))]
        batches: Any = (
            data.images
            if loaded.name == "digits"
            else _loader([_picture(image) for image in data.images], loaded, batch_size)
        )
        return LoadedImages(batches, data.labels.tolist(), names)
    folder = Path(images)
    if not folder.is_dir():
        raise ParameterError(f"{folder} is not a folder of images. Give a folder, or digits.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ParameterError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}), nor do its sub-folders.")
    relative = [path.relative_to(folder) for path in paths]
    loose = [path for path in relative if len(path.parts) == 1]
    if labels_from_folders and loose:
        raise ParameterError(
            f"{folder} holds images outside class sub-folders, first {loose[0]}, so labels cannot be taken from "
            "folders. Move them, or leave --labels-from-folders out."
        )
    labels = [_readable(path.parts[0]) for path in relative] if labels_from_folders else None
    return LoadedImages(_loader(paths, loaded, batch_size), labels, [_readable(path.as_posix()) for path in relative])


def _readable(name: str) -> str:
    """Return a file's name as text: bytes of it that are no UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Pictures(Dataset):
    """Pictures, or paths to them, prepared one at a time."""

    def __init__(self, pictures: list[Any], prepare: Prepare) -> None:
        self.pictures, self.prepare = pictures, prepare

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image, UnidentifiedImageError

        picture = self.pictures[index]
        if not isinstance(picture, Path):
            return self.prepare(picture)
        try:
            with Image.open(picture) as opened:
                return self.prepare(_eight_bits(opened).convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ParameterError(f"{picture} cannot be read as an image: {error}. Remove or repair it.") from error


def _eight_bits(picture: Image) -> Image:
    """Return a picture of 16-bit greys in 8 bits, to which PIL's own conversion would clip it."""
    from PIL import Image

    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))


def _loader(pictures: list[Any], loaded: LoadedModel, batch_size: int) -> DataLoader:
    return DataLoader(_Pictures(pictures, loaded.preparation()), batch_size=batch_size)


def _picture(digit: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(np.round(digit[0] * 255).astype(np.uint8)).convert("RGB")


def _tiny_grey(picture: Image) -> Tensor:
    """Return a picture as the bundled model takes it: 8×8 grey values in [0, 1]."""
    grey = np.asarray(picture.convert("L").resize((8, 8)), dtype=np.float32) / 255.0
    return torch.from_numpy(grey)[None]


def _scaled(
    size: tuple[int, int], norm: tuple[tuple[float, ...], tuple[float, ...]], resize: int | None = None
) -> Prepare:
    """Return the usual steps: scale the short side, crop the centre to ``size`` (rows, columns), normalise."""
    from PIL import Image

    mean, std = (np.array(values, dtype=np.float32) for values in norm)

    def prepare(picture: Image.Image) -> Tensor:
        factor = max((resize or max(size)) / min(picture.size), size[0] / picture.height, size[1] / picture.width)
        width, height = round(picture.width * factor), round(picture.height * factor)
        left, top = (width - size[1]) // 2, (height - size[0]) // 2
        scaled = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(scaled.crop((left, top, left + size[1], top + size[0])), dtype=np.float32) / 255.0
        return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)

    return prepare


def _unknown(library: str, name: str, known: list[str]) -> ModelError:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    return ModelError(f"{library} has no model {name!r}.{hint}")


def _no_weights(name: str, error: Exception) -> ModelError:
    return ModelError(f"{name} could not be loaded: {str(error).strip().splitlines()[0]}")


def _timm(name: str, rest: str, random_weights: bool) -> LoadedModel:
    timm = installed("timm")
    if not timm.is_model(rest):
        raise _unknown("timm", rest, timm.list_models())
    try:
        model = timm.create_model(rest, pretrained=not random_weights)
    except (OSError, RuntimeError) as error:
        raise _no_weights(name, error) from error
    return LoadedModel(
        name, model.eval(), lambda: timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    )


def _torchvision(name: str, rest: str, random_weights: bool) -> LoadedModel:
    models = installed("torchvision").models
    if rest not in models.list_models():
        raise _unknown("torchvision", rest, models.list_models())
    try:
        model = models.get_model(rest, weights=None if random_weights else "DEFAULT")
    except (OSError, RuntimeError) as error:
        raise _no_weights(name, error) from error
    return LoadedModel(name, model.eval(), lambda: models.get_model_weights(rest).DEFAULT.transforms())


def _hub(name: str, rest: str, random_weights: bool) -> LoadedModel:
    repository, _, entry = rest.rpartition(":")
    if not repository or not entry:
        raise ModelError(
            f"{name!r} names no model. Give hub:REPO:NAME, such as hub:facebookresearch/dinov2:dinov2_vits14."
        )
    source = "local" if Path(repository).is_dir() else "github"
    try:
        load: Callable[..., nn.Module] = torch.hub.load
        model = load(repository, entry, source=source, pretrained=not random_weights)
    except (OSError, RuntimeError, ImportError) as error:
        raise _no_weights(name, error) from error
    # A hub model states no preprocessing; DINO's own evaluation is ImageNet's: 256 on the short side, 224 cropped.
    return LoadedModel(name, model.eval(), lambda: _scaled((224, 224), IMAGENET, resize=256))


def _huggingface(name: str, rest: str, random_weights: bool) -> LoadedModel:
    transformers = installed("transformers")
    try:
        if random_weights:
            model = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(rest))
        else:
            model = transformers.AutoModel.from_pretrained(rest)
    except (OSError, ValueError, RuntimeError) as error:
        raise _no_weights(name, error) from error
    if hasattr(model, "text_model") and hasattr(model, "vision_model"):
        model = model.vision_model  # of two towers, images go through this one
    return LoadedModel(name, model.eval(), lambda: _processor(transformers, name, rest, model, random_weights))


def _processor(transformers: ModuleType, name: str, rest: str, model: nn.Module, random_weights: bool) -> Prepare:
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(rest)
    except (OSError, ValueError) as error:
        size = getattr(getattr(model, "config", None), "image_size", None)
        if random_weights and size is not None:  # untrained weights know no statistics: any fixed scale will do
            return _scaled((size, size) if isinstance(size, int) else (size[0], size[1]), HALF)
        raise ModelError(
            f"{name} comes without an image processor, so how its images are prepared is unknown "
            f"({type(error).__name__}). Save the processor beside the weights with its save_pretrained, or record from "
            "Python with your own inputs."
        ) from error
    return lambda picture: processor(images=picture, return_tensors="pt")["pixel_values"][0]
