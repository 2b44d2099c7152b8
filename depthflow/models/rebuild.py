"""Build a model's architecture again from an account of it that JSON can hold, and tell whether that account is whole.

Weights are no part of it: they come from a file, and are loaded into the model that is built.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from depthflow.errors import ModelError
from depthflow.models.base import json_safe
from depthflow.models.fingerprint import fingerprint
from depthflow.models.vit import VisionTransformer, ViTSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from depthflow.models.base import Adapter, Call

DRAWS = {"normal_", "uniform_", "erfinv_", "kaiming_uniform_"}
"""Of the functions that fill a tensor with random numbers, those that torch lets a mode see, and their inverse step."""

REMEDY = "Install the version that the recipe was made with, or hand over the model itself."


def build(recipe: Mapping[str, Any]) -> nn.Module:
    """Return a model of the architecture that ``recipe`` describes, in evaluation mode on the CPU, without its weights.

    Parameters
    ----------
    recipe : mapping
        What :func:`rebuildable` returned, or :meth:`Adapter.recipe`, as it is or read back from JSON.

    Returns
    -------
    torch.nn.Module
        Its parameters are to be loaded: they are not initialised as the library would. Floating-point weights are of
        the recipe's ``dtype`` where it has one.

    Raises
    ------
    ModelError
        If the library is not installed, does not know the model, or cannot build it from what the recipe says; if the
        recipe asks for code or weights from anywhere but the installed library.

    Notes
    -----
    The same recipe gives the same model whatever the caller's random state, default dtype and default device, and
    leaves these as they are. Nothing is downloaded and no file is read.

    Examples
    --------
    >>> from depthflow.models.rebuild import build
    >>> recipe = {"library": "depthflow", "model": "VisionTransformer", "arguments": {"depth": 3, "width": 8}}
    >>> len(build(recipe).blocks)
    3
    """
    library = recipe.get("library") if isinstance(recipe, Mapping) else None
    if not isinstance(library, str) or library not in BUILDERS:
        raise ModelError(
            f"a recipe names its library, one of {', '.join(BUILDERS)}; got {library!r}. It was made by another "
            "version of depthflow, or is no recipe: hand over the model itself."
        )
    source = installed(library)
    try:
        with _settled():
            model = BUILDERS[library](source, recipe)
            _cast(model, recipe.get("dtype"))
    except ModelError:
        raise
    except Exception as error:  # whatever a constructor of another library thinks of arguments that it does not know
        made = f", from a recipe made with {recipe['version']}" if "version" in recipe else ""
        raise ModelError(
            f"{library} {source.__version__} cannot build {recipe.get('model')!r}{made}: {type(error).__name__}: "
            f"{error}. {REMEDY}"
        ) from error
    return model.eval()


def rebuildable(adapter: Adapter, call: Call) -> dict[str, Any] | None:
    """Return the recipe of the adapter's model if a model built from it is the same in every bit, else None.

    The same are its class, the names, shapes and dtypes of its state dict, and, with the weights loaded, what each
    module in it gives out for ``call``. A setting that the recipe does not hold, such as an activation or the ε of a
    norm, is found by the latter; one that acts in training only is not.

    Parameters
    ----------
    adapter : Adapter
        The model, as :func:`depthflow.models.detect.adapt` sees it.
    call : Call
        What the model is called with, on its device and in its dtype. One or two samples are enough.

    Returns
    -------
    dict or None
        :meth:`Adapter.recipe`, with the library's ``version`` and the weights' ``dtype``.

    Notes
    -----
    The model is called once and left as it was: modes, gradients, hooks and the random state. A second copy of it is
    held meanwhile, and a model that is spread over several devices is not compared.
    """
    recipe, root = adapter.recipe(), adapter.root
    if recipe is None or not json_safe(recipe):
        return None
    state = root.state_dict()
    if not all(isinstance(value, Tensor) for value in state.values()):
        return None
    homes = {value.device for value in state.values()}
    if len(homes) != 1 or torch.device("meta") in homes:
        return None
    home = homes.pop()
    kept: dict[str, Any] = json.loads(json.dumps({**recipe, "version": installed(recipe["library"]).__version__}))
    floating = {value.dtype for value in state.values() if value.is_floating_point()}
    if len(floating) == 1:
        kept["dtype"] = str(floating.pop()).removeprefix("torch.")
    try:
        twin = build(kept)
    except ModelError:
        return None
    if type(twin) is not type(root) or _entries(twin.state_dict()) != _entries(state):
        return None
    twin.load_state_dict(state)
    twin.to(home)
    expected = _trace(root, call, home)
    try:
        got = _trace(twin, call, home)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a model that fails on what the other takes is not the same
        return None
    return kept if got == expected else None


def installed(name: str) -> ModuleType:
    """Return the library ``name``.

    Raises
    ------
    ModelError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f'{name} is not installed. Install it with: pip install "depthflow-dynamics[models]"'
        ) from error


def _timm(timm: ModuleType, recipe: Mapping[str, Any]) -> nn.Module:
    name, arguments = recipe["model"], _tuples(recipe["arguments"])
    # An entry point from elsewhere, or a name with a source before it, would run code or fetch files.
    if not timm.is_model(name) or not timm.model_entrypoint(name).__module__.startswith("timm."):
        raise _unknown(timm, name)
    reserved = {*inspect.signature(timm.create_model).parameters, "pretrained_model_args"} & set(arguments)
    if reserved:
        raise ModelError(
            f"a recipe describes an architecture and loads nothing; it holds {', '.join(sorted(reserved))}."
        )
    overlay = _tuples(recipe.get("preprocessing") or {})
    model: nn.Module = timm.create_model(name, pretrained=False, pretrained_cfg_overlay=overlay, **arguments)
    return model


def _transformers(transformers: ModuleType, recipe: Mapping[str, Any]) -> nn.Module:
    name, attention = recipe["model"], recipe["attention"]
    kind: Any = getattr(transformers, name, None)
    own = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not own or name.startswith("Timm"):  # which would hand timm whatever stands in the configuration
        raise _unknown(transformers, name)
    if "/" in (attention or ""):
        raise ModelError(f"a recipe fetches no code; its attention {attention!r} is a repository's.")
    config = kind.config_class.from_dict(dict(recipe["config"]))
    model: nn.Module = kind._from_config(config, attn_implementation=attention, **recipe["arguments"])
    return model


def _torchvision(torchvision: ModuleType, recipe: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = torchvision.models.VisionTransformer(**recipe["arguments"])
    return model


def _bundled(_: ModuleType, recipe: Mapping[str, Any]) -> nn.Module:
    return VisionTransformer(ViTSettings(**recipe["arguments"]))


BUILDERS: dict[str, Callable[[ModuleType, Mapping[str, Any]], nn.Module]] = {
    "timm": _timm,
    "transformers": _transformers,
    "torchvision": _torchvision,
    "depthflow": _bundled,
}


def _unknown(library: ModuleType, name: object) -> ModelError:
    return ModelError(f"{library.__name__} {library.__version__} has no model {name!r} of its own to build. {REMEDY}")


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with lists, which is what JSON makes of tuples, as tuples again."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _cast(model: nn.Module, dtype: str | None) -> None:
    """Cast the model unless its weights are of ``dtype``: buffers that it keeps in more precision stay as they are."""
    if dtype is None:
        return
    target = getattr(torch, dtype)
    if any(value.is_floating_point() and value.dtype != target for value in model.state_dict().values()):
        model.to(target)


class _NoDraws(TorchFunctionMode):
    """Put 0 in place of the random numbers that a parameter is first filled with, since weights are loaded over them.

    Only in place of a parameter's own: a draw elsewhere may be for a buffer, or of a loop that waits for what it likes.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in DRAWS:  # by name, as transformers puts its own in place of torch's
            filled = args[0] if args else kwargs.get("tensor")
            if isinstance(filled, nn.Parameter):
                with torch.no_grad():
                    return filled.zero_()
        return func(*args, **kwargs)


@contextmanager
def _settled() -> Iterator[None]:
    """Make what is built inside depend on nothing that the caller has set, and change none of it."""
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), _NoDraws():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the accelerators too
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def _entries(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}


def _trace(model: nn.Module, call: Call, home: torch.device) -> list[Any]:
    """Return a digest of what each module gives out, in the order in which they finish: the model itself is last."""
    seen: list[Any] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        seen.append((type(module).__name__, _digest(output)))

    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        # Twice the same random numbers, where a model draws any, and none taken from the caller's.
        stack.enter_context(torch.random.fork_rng(devices=[home] if home.type == "cuda" else []))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # else nothing can be compiled, and importing it takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for module, training in modes:  # one by one: train() and eval() may be overridden to do more
            stack.callback(setattr, module, "training", training)
            module.training = False
            stack.callback(module.register_forward_hook(note).remove)
        model(*call.args, **call.kwargs)
    return seen


def _digest(output: Any) -> Any:
    """Return a hash of every tensor in ``output``; taken now, as it may be reused."""
    if isinstance(output, Tensor):
        return fingerprint({"": output})
    if isinstance(output, dict):
        return {str(name): _digest(value) for name, value in output.items()}
    if isinstance(output, list | tuple):
        return [_digest(value) for value in output]
    return type(output).__name__
