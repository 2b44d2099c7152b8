"""Keep a surrogate as safetensors and JSON, and read it back; nothing is pickled."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import depthflow
from depthflow.errors import SurrogateError
from depthflow.models.rebuild import build
from depthflow.surrogate.card import card

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from depthflow.surrogate.recurrent import RecurrentSurrogate

FORMAT = 1
"""Version of what a folder holds."""

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
DOWNLOAD = ("revision", "cache_dir", "force_download", "token", "local_files_only")
"""What the hub is asked with, where the surrogate is not in a folder."""


class Kept(NamedTuple):
    """What was read: the configuration, and the weights by name."""

    where: str
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def shell(self, teacher: nn.Module | None) -> nn.Module:
        """Return a model of the teacher's architecture: the one given, else one built from what was kept."""
        if teacher is not None:
            return teacher
        recipe = self.config["teacher"].get("recipe")
        if recipe is None:
            raise SurrogateError(
                f"{self.where} keeps the weights of a surrogate of {self.config['teacher'].get('model')!r}, but that "
                "model cannot be built from its settings. Pass teacher=, a model of the same architecture with any "
                "weights."
            )
        return build(recipe)


def write(surrogate: RecurrentSurrogate, folder: Path) -> None:
    """Write weights, configuration and model card into ``folder``, over what is there."""
    if surrogate.settings is None:
        raise SurrogateError("this surrogate was never fitted; there is nothing to save. Use fit_surrogate.")
    config = {
        "format": FORMAT,
        "depthflow": depthflow.__version__,
        "plan": asdict(surrogate.plan),
        "teacher": surrogate.teacher,
        "settings": surrogate.settings.to_json(),
        "scores": surrogate.scores,
        "history": surrogate.history,
    }
    weights = {name: tensor.detach().contiguous() for name, tensor in surrogate.weights().items()}
    save_file(weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card(config), encoding="utf-8")


def read(where: str, download: Mapping[str, Any]) -> Kept:
    """Return what the folder, or repository of the hub, ``where`` keeps.

    Raises
    ------
    SurrogateError
        If there is no surrogate, or a newer depthflow wrote it.
    """
    try:
        files = [_file(where, name, download) for name in (CONFIG, WEIGHTS)]
        config = json.loads(files[0].read_text(encoding="utf-8"))
        if not isinstance(config, dict) or "plan" not in config:
            raise SurrogateError(f"{where} holds no surrogate of depthflow's: its {CONFIG} has no plan.")
        version = config.get("format")
        if not isinstance(version, int) or version > FORMAT:
            raise SurrogateError(
                f"{where} has format {version!r}; this depthflow reads up to {FORMAT}. Update depthflow."
            )
        return Kept(where, config, load_file(files[1]))
    except (OSError, HfHubHTTPError, EntryNotFoundError, ValueError, SafetensorError) as error:
        said = str(error).strip().splitlines()[0].rstrip(".")
        raise SurrogateError(
            f"{where} holds no surrogate that can be read: {said}. Give a folder made by "
            "save_pretrained, or the name of a repository on the hub."
        ) from error


def load(surrogate: RecurrentSurrogate, weights: Mapping[str, Tensor]) -> None:
    """Copy ``weights`` into the tensors of the same names and shapes, in the precision that they have.

    Raises
    ------
    SurrogateError
        Naming the first tensor that is missing, left over, or of another shape.
    """
    into = surrogate.weights()
    odd = sorted(into.keys() ^ weights.keys()) or [
        name for name, tensor in into.items() if tensor.shape != weights[name].shape
    ]
    if odd:
        raise SurrogateError(
            f"the weights are of another architecture: {len(odd)} tensors do not fit, first {odd[0]!r}. Pass teacher=, "
            "a model built exactly as the one that the surrogate was fitted to."
        )
    if any(tensor.dtype != weights[name].dtype for name, tensor in into.items()):
        surrogate.to(next(weight.dtype for weight in weights.values() if weight.is_floating_point()))
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.data = tensor.data.to(weights[name].dtype)
            tensor.copy_(weights[name])


def _file(where: str, name: str, download: Mapping[str, Any]) -> Path:
    folder = Path(where)
    return folder / name if folder.is_dir() else Path(hf_hub_download(where, name, **download))
