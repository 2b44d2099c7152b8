"""Every setting of a surrogate's fit, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

from depthflow.errors import ParameterError, raise_faults, whole_number_fault
from depthflow.schema import CLS, DISTILLATION, MEAN, PAD, PATCH, REGISTER, TOKEN, TOKEN_TYPES

CHOICES = {
    "init": ("teacher", "fresh"),
    "mlp": ("gelu", "swiglu"),
    "optimizer": ("muon", "adamw"),
    "precision": ("float32", "bfloat16"),
}
EVEN: Mapping[str, float] = MappingProxyType(
    {CLS: 0.34, DISTILLATION: 0.34, REGISTER: 0.33, PATCH: 0.33, MEAN: 0.33, TOKEN: 0.33, PAD: 0.0}
)
"""Weights of the first stage, of the paper's own runs."""
SPARING_REGISTERS: Mapping[str, float] = MappingProxyType(
    {CLS: 0.45, DISTILLATION: 0.45, REGISTER: 0.10, PATCH: 0.45, MEAN: 0.45, TOKEN: 0.45, PAD: 0.0}
)
"""Weights of the second stage, of the paper's own runs."""


@dataclass(frozen=True)
class SurrogateSettings:
    """How a surrogate is built and trained; the defaults suit a vision transformer and a few thousand images or more.

    Parameters
    ----------
    init : {"teacher", "fresh"}
        Start each block as a copy of the medoid block of its phase, whatever its kind, or as a new pre-norm block with
        random weights.
    depth_scale : bool
        Whether a block is told its depth, by scales of its attention branch, its MLP branch and its output.
    mlp : {"gelu", "swiglu"}
        Of a fresh block.
    mlp_ratio : float
        Hidden over outer width of a fresh block's MLP.
    heads : int, optional
        Attention heads of a fresh block; those of the teacher by default.
    layer_scale : float, optional
        Initial LayerScale of a fresh block's branches; None for none.
    steps : tuple of int
        Optimiser steps of stage 1 (each block on its own phase) and of stage 2 (all together); 0 leaves a stage out.
    batch_size : int
        Samples a step; of each process, where there are several.
    optimizer : {"muon", "adamw"}
        Muon for the weight matrices of the blocks and AdamW for all else, or AdamW alone, as in the paper.
    learning_rate, matrix_rate : float
        Largest rate of AdamW, and of Muon.
    final_rate : float
        Rate at the end of a stage, as a share of the largest; between lies half a cosine.
    warmup : float
        Share of a stage during which the rate rises linearly.
    weight_decay : float
        Of both.
    max_norm : float
        Gradients are scaled down to this norm; in stage 1 those of each block on their own.
    forcing : float
        Share of stage 1 during which the weight of the teacher-forced loss falls from 1 to 0; ``inf`` for teacher
        forcing alone, 0 for none.
    token_weights : tuple of mapping
        Weight of each token type in the loss of stage 1 and of stage 2, made to sum to 1 over the types present.
    scale_by_variance : bool
        Whether the error at each depth and token type is divided by the variance of the teacher's states there, so
        that the loss is a mean of 1 − R².
    workers : int
        Processes that read and prepare the samples of a dataset; 0 for none but the fit's own.
    precision : {"float32", "bfloat16"}
        Of the surrogate's forward pass in training; weights, states and loss stay in float32.
    compile : bool
        Whether the blocks are compiled for training.
    validate_every : int
        Steps between two scores on the validation samples.
    patience : int, optional
        Stop stage 2 after so many validations without a better one; None never stops early.
    checkpoint_every : int
        Steps between two checkpoints, where a folder for them is given.

    Raises
    ------
    ParameterError
        Naming every setting that is out of its range.
    """

    init: str = "teacher"
    depth_scale: bool = True
    mlp: str = "gelu"
    mlp_ratio: float = 4.0
    heads: int | None = None
    layer_scale: float | None = 1e-5
    steps: tuple[int, int] = (200, 4000)
    batch_size: int = 16
    optimizer: str = "muon"
    learning_rate: float = 2e-3
    matrix_rate: float = 0.01
    final_rate: float = 0.01
    warmup: float = 0.05
    weight_decay: float = 1e-4
    max_norm: float = 1.0
    forcing: float = 0.25
    token_weights: tuple[Mapping[str, float], Mapping[str, float]] = field(default=(EVEN, SPARING_REGISTERS))
    scale_by_variance: bool = True
    workers: int = 0
    precision: str = "float32"
    compile: bool = False
    validate_every: int = 250
    patience: int | None = None
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        raise_faults(ParameterError, "SurrogateSettings", list(self._faults()))
        for one in fields(self):  # NumPy's numbers are not JSON's, and a mapping proxy cannot be copied
            object.__setattr__(self, one.name, _plain(getattr(self, one.name)))

    def _faults(self) -> list[str]:
        faults = [
            f"needs {name} as one of {allowed}; got {getattr(self, name)!r}."
            for name, allowed in CHOICES.items()
            if getattr(self, name) not in allowed
        ]
        faults += [
            f"needs {name} as True or False; got {getattr(self, name)!r}."
            for name in ("depth_scale", "scale_by_variance", "compile")
            if not isinstance(getattr(self, name), bool)
        ]
        for name in ("batch_size", "validate_every", "checkpoint_every"):
            faults += whole_number_fault(name, getattr(self, name))
        faults += whole_number_fault("workers", self.workers, 0)
        for name in ("heads", "patience"):
            faults += [] if getattr(self, name) is None else whole_number_fault(name, getattr(self, name))
        for name in ("mlp_ratio", "learning_rate", "matrix_rate", "max_norm"):
            faults += _number_fault(name, getattr(self, name), least=0, open_below=True)
        faults += _number_fault("weight_decay", self.weight_decay, least=0)
        for name in ("warmup", "final_rate"):
            faults += _number_fault(name, getattr(self, name), least=0, most=1)
        faults += _number_fault("forcing", self.forcing, least=0, most=math.inf)
        if self.layer_scale is not None:
            faults += _number_fault("layer_scale", self.layer_scale, least=0, open_below=True)
        return faults + self._stage_faults()

    def _stage_faults(self) -> list[str]:
        faults = []
        steps: object = self.steps
        if not isinstance(steps, tuple) or len(steps) != 2:
            faults.append(f"needs steps as a pair, those of stage 1 and of stage 2; got {self.steps!r}.")
        else:
            found = [fault for steps in self.steps for fault in whole_number_fault("each of steps", steps, 0)]
            faults += found[:1]
            if not found and not any(self.steps):
                faults.append("needs at least one step in one of the stages; got steps=(0, 0).")
        given: object = self.token_weights
        if not isinstance(given, tuple) or len(given) != 2 or not all(isinstance(one, Mapping) for one in given):
            return [*faults, f"needs token_weights as a pair of mappings, one a stage; got {self.token_weights!r}."]
        for weights in self.token_weights:
            strange = [kind for kind in weights if kind not in TOKEN_TYPES]
            if strange:
                faults.append(f"knows the token types {TOKEN_TYPES} in token_weights; got {strange[0]!r}.")
            for kind, weight in weights.items():
                faults += _number_fault(f"token_weights of {kind!r}", weight, least=0)
        return faults

    def to_json(self) -> dict[str, Any]:
        """Return the settings as what JSON can hold."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        plain["steps"], plain["token_weights"] = list(self.steps), [dict(one) for one in self.token_weights]
        plain["forcing"] = "inf" if math.isinf(self.forcing) else self.forcing
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> SurrogateSettings:
        """Return the settings that :meth:`to_json` gave."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**given | ({"forcing": math.inf} if plain.get("forcing") == "inf" else {}))


def _plain(value: Any) -> Any:
    """Return a setting in Python's own types."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return {kind: _plain(weight) for kind, weight in value.items()}
    if value is None or isinstance(value, bool | str):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _number_fault(
    name: str, value: Any, least: float, most: float | None = None, open_below: bool = False
) -> list[str]:
    """Return the fault of what is not a number from ``least`` to ``most``; infinite only where ``most`` is."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    finite = number and (math.isfinite(value) or most == math.inf)
    inside = finite and (value > least if open_below else value >= least) and (most is None or value <= most)
    if inside:
        return []
    bounds = f"above {least:g}" if open_below else f"of at least {least:g}"
    upper = "" if most in (None, math.inf) else f" and at most {most:g}"
    return [f"needs {name} as a number {bounds}{upper}; got {value!r}."]
