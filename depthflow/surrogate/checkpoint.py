"""Keep the state of a fit on disk, so that a killed one goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from depthflow.errors import SurrogateError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

FILE = "checkpoint.safetensors"


@dataclass
class Progress:
    """How far a fit has come.

    Attributes
    ----------
    stage, step : int
        The stage, and its next step.
    weights, optimizer, best : dict of torch.Tensor
        Of the blocks; of the optimiser, by parameter and quantity; of the best validation so far, empty before one.
    best_loss : float, optional
        Of that validation.
    waited : int
        Validations since then.
    history : dict of list
        What :class:`RecurrentSurrogate` keeps.
    """

    stage: int = 1
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_loss: float | None = None
    waited: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)


TENSORS = ("weights", "optimizer", "best")
NUMBERS = ("stage", "step", "best_loss", "waited", "history")


class Checkpoints:
    """One file in a folder, replaced whole.

    Parameters
    ----------
    folder : Path
        Made if needed.
    settings : mapping
        What a fit must share with the one that wrote the checkpoint; JSON holds it.
    writes : bool
        Whether this process is the one that writes.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], writes: bool = True) -> None:
        self.path, self._writes = folder / FILE, writes
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))

    def save(self, progress: Progress) -> None:
        """Write ``progress`` in place of what was there; killed at any moment, one of the two is left whole."""
        if not self._writes:
            return
        tensors = {
            f"{group}/{name}": tensor.detach().contiguous()
            for group in TENSORS
            for name, tensor in getattr(progress, group).items()
        }
        numbers = {name: getattr(progress, name) for name in NUMBERS}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{FILE}.{os.getpid()}")
        try:
            save_file(tensors, beside, {"settings": json.dumps(self._settings), "progress": json.dumps(numbers)})
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)

    def load(self, device: torch.device | None) -> Progress | None:
        """Return what was kept, on ``device``; None if nothing was.

        Raises
        ------
        SurrogateError
            If it is of other settings (says which differ), or cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt", device=str(device or "cpu")) as file:
                kept = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
                self._require_same(kept["settings"])
                progress = Progress(**kept["progress"])
                for key in file.keys():  # noqa: SIM118 - the file is no mapping
                    group, _, name = key.partition("/")
                    getattr(progress, group)[name] = file.get_tensor(key)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise SurrogateError(
                f"{self.path} cannot be read as a checkpoint: {error}. Remove it, or pass resume=False to begin anew."
            ) from error
        return progress

    def _require_same(self, kept: Mapping[str, Any]) -> None:
        names = sorted(
            name for name in self._settings.keys() | kept.keys() if self._settings.get(name) != kept.get(name)
        )
        if names:
            listed = "; ".join(f"{name} was {kept.get(name)!r} and is {self._settings.get(name)!r}" for name in names)
            raise SurrogateError(
                f"{self.path} is a checkpoint of other settings: {listed}. Use these, another folder, or resume=False, "
                "which begins anew and overwrites it."
            )
