"""Where a model's weights lie: on one device, on several, or away until their layer runs, as accelerate keeps them.

accelerate is recognised by the hooks that it leaves on the modules and is never imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from depthflow.errors import ModelError
from depthflow.models.base import plain

if TYPE_CHECKING:
    from torch import nn


def tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters and buffers of ``model``."""
    yield from model.parameters()
    yield from model.buffers()


def home(model: nn.Module) -> torch.device | None:
    """Return the device that inputs belong on, None for a model without weights.

    It is where accelerate runs the first module that it has placed, else where the first weight lies. A weight that
    is away lies nowhere.
    """
    for module in model.modules():
        for hook in _hooks(module):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                return torch.device(device)
    return next((tensor.device for tensor in tensors(model) if not tensor.is_meta), None)


def immovable(model: nn.Module) -> str | None:
    """Return why the model cannot be moved to a device, if it cannot."""
    if any(map(_is_shard, tensors(model))):
        return "whose weights are shared out among processes"
    hooks = (hook for module in model.modules() for hook in _hooks(module))
    if any(getattr(hook, "execution_device", None) is not None for hook in hooks):
        return "that accelerate has placed"
    homes = {tensor.device for tensor in tensors(model)}
    return f"that lies on several devices ({', '.join(sorted(map(str, homes)))})" if len(homes) > 1 else None


def require_values(model: nn.Module) -> None:
    """Raise unless every weight has values, or a hook that can bring them when its layer runs."""
    served: set[int] = set()
    for name, module in model.named_modules():
        if _hooks(module) or module._forward_pre_hooks:
            served.update(map(id, module.modules()))
        missing = [key for key, tensor in _own(module).items() if tensor.is_meta]
        if missing and id(module) not in served:
            path = plain(f"{name}.{missing[0]}".lstrip("."))
            raise ModelError(
                f"{type(model).__name__} has no values for {path!r}: it lies on the device 'meta', and nothing brings "
                "it in when its layer runs. Load the weights first."
            )


@contextmanager
def put_back(model: nn.Module) -> Iterator[None]:
    """Send away again what was away before, where a pass has left it in, and restore what is trained of it.

    accelerate makes new parameters at every pass, so that those which were there before are not those afterwards. The
    outermost weights that ``fully_shard`` has shared out stay gathered after a pass.
    """
    shards = [part for part in model.modules() if hasattr(part, "reshard") and any(map(_is_shard, tensors(part)))]
    away = [
        (module, key, tensor.requires_grad)
        for module in model.modules()
        for key, tensor in _own(module).items()
        if tensor.is_meta
    ]
    try:
        yield
    finally:
        for module, key, required in away:
            if not _own(module)[key].is_meta:
                for hook in _hooks(module):
                    hook.post_forward(module, None)
            _own(module)[key].requires_grad_(required)
        for part in shards:
            _reshard(part)


class Weights(Mapping[str, Any]):
    """A model's state dict, names without wrappers, of which what is away is read when it is asked for.

    Raises
    ------
    ModelError
        When a tensor is asked for whose values are nowhere.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._held = {plain(name): (name, value) for name, value in model.state_dict().items()}

    def __getitem__(self, name: str) -> Any:
        path, value = self._held[name]
        return self._read(path, value) if isinstance(value, Tensor) and value.is_meta else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def _read(self, name: str, absent: Tensor) -> Tensor:
        """Return the values of ``absent`` from the map of the nearest hook that knows it."""
        path, _, key = name.rpartition(".")
        while True:
            for hook in _hooks(self._model.get_submodule(path)):
                try:
                    stored: Tensor = hook.weights_map[key]
                except (AttributeError, KeyError, TypeError):  # no map at all, none made yet, or one without this name
                    continue
                return stored.to(absent.dtype)
            if not path:
                raise ModelError(
                    f"the values of {plain(name)!r} are nowhere: it lies on the device 'meta', and no hook of "
                    "accelerate knows it. Load the weights first."
                )
            path, _, last = path.rpartition(".")
            key = f"{last}.{key}"


def _is_shard(tensor: Tensor) -> bool:
    return hasattr(tensor, "device_mesh")


def _reshard(module: Any) -> None:
    module.reshard()


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that ``module`` holds itself, by name."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _hooks(module: nn.Module) -> list[Any]:
    """Return accelerate's hooks on ``module``, of which it keeps one or a sequence."""
    hook: Any = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))
