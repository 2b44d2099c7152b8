"""Every model type of transformers, built tiny and called, with what the library itself says of its states."""

from __future__ import annotations

import copy
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import (
    CONFIG_MAPPING,
    CONFIG_MAPPING_NAMES,
    model_type_to_module_name,
)
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

import depthflow
from depthflow.errors import UnsupportedModelError
from tests.registries.contract import Candidate, Reference, require_states, shaken
from tests.registries.survey import watch
from tests.registries.transformers_configs import small
from tests.registries.transformers_inputs import inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

TASKS = ("AUDIO_CLASSIFICATION", "CAUSAL_LM", "CTC", "IMAGE_CLASSIFICATION", "MASKED_LM", "TEXT_ENCODING")
COMMON = {
    "audio-spectrogram-transformer", "beit", "bert", "bloom", "clip", "data2vec-audio", "data2vec-vision", "deberta-v2",
    "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "distilbert", "electra", "falcon", "gemma", "gemma2",
    "gemma3", "gpt2", "gpt_neox", "hubert", "ijepa", "llama", "mamba", "mistral", "mixtral", "modernbert", "mpnet",
    "openai-gpt", "opt", "phi3", "qwen2", "qwen3", "roberta", "rwkv", "siglip", "siglip2", "swin", "t5", "vit",
    "vit_msn", "wav2vec2", "wavlm", "whisper", "xlm-roberta",
}  # fmt: skip
"""Families of which the models for common tasks are tried beside the base models."""

CLS_FIRST = {
    "AlbertTokenizer", "BertTokenizer", "BigBirdTokenizer", "CamembertTokenizer", "CanineTokenizer",
    "DPRQuestionEncoderTokenizer", "DebertaTokenizer", "DebertaV2Tokenizer", "EsmTokenizer", "EsmcTokenizer",
    "FNetTokenizer", "LayoutLMv3Tokenizer", "LukeTokenizer", "MPNetTokenizer", "MarkupLMTokenizer",
    "MobileBertTokenizer", "RemBertTokenizer", "RoCBertTokenizer", "RoFormerTokenizer", "RobertaTokenizer",
    "SplinterTokenizer", "TapasTokenizer", "XLMRobertaTokenizer",
}  # fmt: skip
"""Tokenizers that put a class token in front of every text."""

NO_CLS = {"metaclip_2", "trocr", "videoprism"}
"""Families that read out another token than the first, whatever their tokenizer calls that."""

FROM_ONE = {"falcon_mamba", "mamba", "mamba2", "rwkv"}
"""Families whose own list of states begins with what the first block returns."""

TRIMMED = {"cpmant", "longformer"}
"""Families whose own states lack the tokens that the model itself adds to its text."""

WHOLE = {
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
}
"""Classes made from the configuration where the registry names one that is made from a part of it."""

MOST = 40_000_000
LARGEST = 1e3
"""No initial value that a class chooses is larger."""

transformers.logging.set_verbosity_error()


def candidates() -> list[Candidate]:
    """Return the base model of every type, the models for the common tasks, and the parts that have a type."""
    tasks = (getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES") for task in TASKS)
    common = ((kind, names) for mapping in tasks for kind, names in mapping.items() if kind in COMMON)
    named = {
        (kind, WHOLE.get(kind, names if isinstance(names, str) else names[0])): None
        for kind, names in (*MODEL_MAPPING_NAMES.items(), *common)
        if kind in CONFIG_MAPPING_NAMES
    }
    known = {kind for kind, _ in named}
    for kind in CONFIG_MAPPING_NAMES:
        if kind not in known:
            named[kind, _part(kind)] = None
    return [candidate(kind, name) for kind, name in named]


def candidate(kind: str, name: str) -> Candidate:
    """Return the candidate of a type and a class."""
    return Candidate("transformers", f"{kind}/{name}", kind, builder(kind, name), inputs, reference, remedy)


def _module(kind: str) -> ModuleType:
    home = model_type_to_module_name(kind)
    return import_module(f"transformers.models.{home}.modeling_{home}")


NOTHING = "no class of its own"


def _part(kind: str) -> str:
    """Return the smallest class of the type's own module that is made from its configuration."""
    try:
        kinds = vars(_module(kind))
    except ModuleNotFoundError:
        return NOTHING
    config = CONFIG_MAPPING[kind]
    fits = [name for name, one in kinds.items() if isinstance(one, type) and _made_from(one, config)]
    return min(
        (name for name in fits if "PreTrained" not in name),
        key=lambda name: ("For" in name, len(name)),
        default=NOTHING,
    )


def _made_from(kind: type, config: type) -> bool:
    return issubclass(kind, PreTrainedModel) and kind.config_class is config and "forward" in vars(kind)


def builder(kind: str, name: str) -> Callable[[], nn.Module]:
    """Return what builds the class from the type's small configuration."""

    def build() -> nn.Module:
        if name == NOTHING:
            raise ImportError("the registry has a configuration of this type, and no model class is made from it alone")
        model = getattr(transformers, name, None) or getattr(_module(kind), name)
        config = small(CONFIG_MAPPING[kind])
        try:
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in model(copy.deepcopy(config)).parameters())
        except ImportError as error:
            raise ImportError(" ".join(str(error).split())) from error  # the first line of transformers' own is empty
        if count > MOST:
            raise MemoryError(f"the smallest model of this type that is known here has {count:,} parameters")
        return settled(model(config))

    return build


def settled(model: nn.Module) -> nn.Module:
    """Return the model with values for the parameters that its class leaves as the memory happened to be."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.abs().amax().nan_to_num(torch.inf) < LARGEST:
                parameter.normal_(std=0.02)
    return model


def reference(model: nn.Module, batch: Any) -> Reference | None:
    """Return what ``output_hidden_states=True`` gives, by a copy: transformers leaves hooks of its own behind.

    Its last state may be after the final norm, pooled or projected, so that only those before it are the blocks'.
    """
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    try:
        with torch.no_grad():
            out = twin(**batch, output_hidden_states=True)
    except (TypeError, ValueError):  # it does not know the option, or has none to give
        return None
    given = getattr(out, "hidden_states", None)
    states = [state for state in given or () if isinstance(state, torch.Tensor)]
    if len(states) < 2 or len(states) < len(given):
        return None
    if len({tuple(state.shape) for state in states[:-1]}) > 1:
        return Reference(isotropic=False)
    kind = model.config.model_type
    if kind in TRIMMED:
        return Reference({}, len(states) - 1)
    first = 1 if kind in FROM_ONE else 0
    return Reference(dict(enumerate(states[:-1], start=first)), len(states) - 1, types=types(model, batch))


def types(model: Any, batch: Any) -> tuple[str, ...] | None:
    """Return the types of text by its mask and by the tokenizer that the registry gives the family; None if unknown."""
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    family = model.config.model_type.removesuffix("_model").removesuffix("_text")
    tokenizer = TOKENIZER_MAPPING_NAMES.get(family)
    unclear = tokenizer in (None, "TokenizersBackend") or family in NO_CLS
    if ids is None or mask is None or ids.shape != mask.shape or unclear:
        return None
    if any(name in batch for name in ("pixel_values", "input_features", "image")):
        return None
    words = ["token" if used else "pad" for used in mask.bool().any(dim=0).tolist()]
    return ("cls", *words[1:]) if tokenizer in CLS_FIRST else tuple(words)


def remedy(model: Any, batch: Any, refusal: UnsupportedModelError) -> str | None:
    """Return which of the stacks that the refusal names is recorded wrongly, in the whole or by itself.

    A stack may be refused in its turn, as a hierarchical tower is, and then says why; it must not fail.
    """
    shaken(model)  # gates that start at zero let nothing through
    for path in re.findall(r"blocks='([\w.]+)'", refusal.remedy):
        alone = tower(model, path)
        fault = failing(model, path, batch)
        if fault is not None and "did not run" in fault and alone:
            fault = failing(model.get_submodule(alone), path.removeprefix(f"{alone}."), None)
        if fault is not None and "did not run" not in fault:
            return f"blocks={path!r} fails: {fault}"
    return None


def tower(model: nn.Module, path: str) -> str:
    """Return the name of the smallest part around ``path`` that is a model of transformers."""
    parts = path.split(".")
    around = (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((name for name in around if isinstance(model.get_submodule(name), PreTrainedModel)), "")


def failing(model: nn.Module, path: str, batch: Any) -> str | None:
    """Return why ``record(blocks=path)`` does not give what plain hooks see, None where it does or says why not."""
    try:
        batch = inputs(model) if batch is None else batch
    except Exception:
        return None  # what the part is to be called with is not known here
    try:
        torch.manual_seed(1)
        traj = depthflow.record(model, batch, blocks=path, progress=False)
        states = traj.transpose("sample", "depth", "token", "feature").values
        names = list(traj.attrs["modules"])
        require_states(watch(model, batch).steps(set(names)), names, states)
    except UnsupportedModelError:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
