"""One training step of a surrogate against the official trainer's, on the same states, weights and loss.

The official code is not part of this project: clone https://github.com/KempnerInstitute/raptor and name its folder in
the environment variable DEPTHFLOW_RAPTOR; without it there is nothing to compare with.
"""

from __future__ import annotations

import ast
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

import depthflow
from benchmarks._harness import Disagreement, Row, Rows, ratio
from depthflow.recording.arguments import HERE, Arguments
from depthflow.surrogate.lessons import Lesson
from depthflow.surrogate.objective import TOGETHER, Objective, target
from depthflow.surrogate.optimizer import Optimizer
from depthflow.surrogate.recurrent import Plan, RecurrentSurrogate
from depthflow.surrogate.survey import Survey

FOLDER = "DEPTHFLOW_RAPTOR"
TARGET = 1.15
LAST_OF_FIRST = 7
"""The official k = 2 of 12 blocks."""
AGREES = 1e-4


def rows(smoke: bool) -> Rows:
    """Yield the stage-2 step in float32, where the official code is at hand."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        print(f"surrogate: no official code to compare with; set {FOLDER} to its folder")
        return
    width, heads, side, samples = (24, 3, 2, 2) if smoke else (384, 6, 14, 8)
    official = Official(Path(folder) / "raptor", width, heads)
    states = torch.randn(samples, 13, 5 + side * side, width, generator=torch.Generator().manual_seed(0))
    ours = Ours(official.model, width, heads, states)
    losses = official.step(states), ours.step()
    if abs(losses[0] - losses[1]) > AGREES * losses[0]:
        raise Disagreement(f"the losses of one step differ: {losses}")
    taken = ratio(lambda: official.step(states), ours.step, 1 if smoke else 7)
    yield Row(
        "fit_surrogate, one stage-2 step",
        f"ViT-S shape, batch {samples}, L = 12, k = 2, {5 + side * side} tokens, float32",
        "the official trainer's step",
        taken,
        TARGET,
        True,
        f"losses within {abs(losses[0] - losses[1]) / losses[0]:.0e}",
    )


def module(path: Path) -> Any:
    """Return the official module at ``path``."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def functions(path: Path, *names: str) -> dict[str, Any]:
    """Return functions of the official trainer, which cannot be imported without its logging service."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    space: dict[str, Any] = {"torch": torch, "F": functional, "np": np}
    exec(compile(tree, str(path), "exec"), space)
    return space


class Official:
    """The official blocks, loss and optimiser."""

    def __init__(self, code: Path, width: int, heads: int) -> None:
        block = module(code / "block.py").Block
        torch.manual_seed(0)
        blocks = [block(width, heads, init_values=0.1, t_scale=True, swiglu=True) for _ in range(2)]
        self.model = module(code / "raptor.py").Raptor(blocks, [LAST_OF_FIRST]).train()
        found = functions(code / "trainer.py", "loss_mse", "get_loss_func", "autoreg_pass")
        self._pass, self._loss = found["autoreg_pass"], found["get_loss_func"](False, False, True, 0.45, 0.10, 0.45)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, weight_decay=1e-4)

    def step(self, states: Tensor) -> float:
        """Return the loss of one step, as the trainer takes it; the rate is 0, so that each step is the same."""
        loss = self._pass(self.model, states, self._loss, 0, 0.0, torch.ones(1))
        value = float(loss.item())
        self._optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.model.parameters(), max_norm=1.0)
        self._optimizer.step()
        return value


class Teacher(nn.Module):
    """The least that a surrogate can be built from: blocks of parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(12))


class Ours:
    """The same weights, loss and optimiser in a surrogate."""

    def __init__(self, official: nn.Module, width: int, heads: int, states: Tensor) -> None:
        fresh = {
            "heads": heads, "mlp": "swiglu", "mlp_ratio": 4.0, "layer_scale": 0.1, "causal": False,
            "returns": "Tensor", "others": 0,
        }  # fmt: skip
        names = tuple(f"blocks.{number}" for number in range(12))
        plan = Plan(names, (1,) * LAST_OF_FIRST + (2,) * (12 - LAST_OF_FIRST), (1, 12), width, fresh=fresh)
        surrogate = RecurrentSurrogate(Teacher(width), plan)
        for ours, theirs in zip(surrogate.blocks, official.get_submodule("blocks").children(), strict=True):
            ours.load_state_dict(translated(theirs.state_dict()))
        tokens = states.shape[2]
        types = ["cls", *["reg"] * 4, *["patch"] * (tokens - 5)]
        seen = Survey(np.eye(12), np.ones((12, 3)), ("cls", "reg", "patch"), len(states))
        settings = depthflow.SurrogateSettings(optimizer="adamw", learning_rate=1e-30, scale_by_variance=False)
        goal = target(TOGETHER, plan.phases, seen, types, settings.token_weights[1], scale_by_variance=False)
        self._objective = Objective(surrogate, goal, None)
        self._optimizer = Optimizer(surrogate.blocks, settings)
        self._lesson = Lesson(list(states.unbind(1)), [Arguments((HERE,), {})] * 12)
        self._weights = list(surrogate.blocks.parameters())

    def step(self) -> float:
        """Return the loss of one step, as a fit takes it; the rate is next to 0."""
        loss, _ = self._objective(self._lesson, 0.0)
        loss.backward()
        clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        return float(loss.detach())


def translated(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the official block's weights by our names; our depth is a share of all depths, theirs counts them."""
    names = {
        "norm1.weight": "norm1.weight", "norm1.bias": "norm1.bias", "norm2.weight": "norm2.weight",
        "norm2.bias": "norm2.bias", "qkv.weight": "attn.in_proj_weight", "qkv.bias": "attn.in_proj_bias",
        "proj.weight": "attn.out_proj.weight", "proj.bias": "attn.out_proj.bias", "fc1.weight": "mlp.0.weight",
        "fc1.bias": "mlp.0.bias", "fc2.weight": "mlp.2.weight", "fc2.bias": "mlp.2.bias", "scale1": "ls1.gamma",
        "scale2": "ls2.gamma", "depth_scale.inner.bias": "t_proj.0.bias", "depth_scale.outer.weight": "t_proj.2.weight",
        "depth_scale.outer.bias": "t_proj.2.bias",
    }  # fmt: skip
    ours = {name: theirs[other] for name, other in names.items()}
    return ours | {"depth_scale.inner.weight": 12 * theirs["t_proj.0.weight"]}
