"""Which token is which inside transformers' models, by their embeddings, configurations and inputs."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from depthflow.models.base import Call, TokenLayout
from depthflow.models.generic import square
from depthflow.schema import CLS, DISTILLATION, PAD, PATCH, REGISTER, TOKEN

if TYPE_CHECKING:
    from torch import Tensor, nn

FIRST_IS_CLS = {
    "albert", "align_text_model", "altclip_text_model", "bert", "big_bird", "blip_text_model",
    "bridgetower_text_model", "bros", "camembert", "canine", "chinese_clip_text_model", "clap_text_model",
    "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "dpr", "electra", "ernie", "esm", "esmc",
    "flava_text_model", "fnet", "gte", "ibert", "jina_embeddings_v3", "layoutlm", "layoutlmv3", "lilt",
    "longformer", "luke", "markuplm", "megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "nomic_bert",
    "nystromformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "splinter",
    "squeezebert", "tapas", "visual_bert", "xlm-roberta", "xlm-roberta-xl", "xmod", "yoso",
}  # fmt: skip
"""``config.model_type`` of the text models whose tokenizer puts a class token first."""

LAST_IS_CLS = {"videoprism_text_model"}
"""Those that append a learned class token to the text themselves."""

CLS_AFTER_PATCHES = {"llama4_vision_model"}
"""Image models that put their class token after the patches."""

SHUFFLED = {"vit_mae"}
"""Models that drop patches at random and keep the rest in shuffled order, so that no patch has a place."""

BESIDE_TEXT = ("entity_ids", "image", "input_features", "pixel_values", "visual_embeds")
"""Inputs of which a model of one stream makes tokens beside those of its text."""

UNEVEN = ("patch_attention_mask",)
"""Inputs that make padding of some patches, and not the same in every image."""


def layout(part: nn.Module, tower: nn.Module, config: Any, call: Call | None) -> TokenLayout | None:
    """Return the layout of images by the embeddings' tokens, of text by the attention mask; None where it is unknown.

    ``part`` takes the call, and ``tower`` is the part of it that makes the tokens, by ``config``. What the call names
    says whether it is image or text; ``main_input_name`` does where the input has no name.
    """
    names = set(call.kwargs) if call else set()
    takes = getattr(part, "main_input_name", "")
    given = {name for name in names if call is not None and call.kwargs[name] is not None}
    if "input_ids" in given or (takes == "input_ids" and not given & {"pixel_values", "inputs_embeds"}):
        return text(config, call) if call and not given & set(BESIDE_TEXT) else None
    if takes == "pixel_values" or ("pixel_values" in given and "input_ids" not in signature(part.forward).parameters):
        return image(tower, config, call)
    return None


def embeddings(part: nn.Module) -> nn.Module | None:
    """Return the module that makes the tokens."""
    return next((module for module in part.modules() if type(module).__name__.endswith("Embeddings")), None)


def prefix(part: nn.Module, config: Any) -> list[str]:
    """Return the types of the learned tokens in front of the patches."""
    found = embeddings(part)
    held = dict(found.named_parameters(recurse=False)) if found is not None else {}
    if "cls_register_token" in held:
        return [CLS] * config.num_cls_tokens + [REGISTER] * config.num_registers
    cls = [CLS] * held["cls_token"].shape[1] if "cls_token" in held else [CLS] * ("class_embedding" in held)
    dist = [DISTILLATION] * ("distillation_token" in held)
    return cls + dist + [REGISTER] * int(getattr(config, "num_register_tokens", None) or 0)


def image(part: nn.Module, config: Any, call: Call | None) -> TokenLayout | None:
    """Return the layout of learned tokens, the patches of an image, and the tokens that stand for objects."""
    pixels = call.tensor("pixel_values") if call else None
    front = prefix(part, config)
    if call and pixels is not None and pixels.ndim == 3:
        types = [*front, *[PATCH] * pixels.shape[1]]
        return TokenLayout.padded(types, call.kwargs.get("pixel_attention_mask"))
    patch, size = square(getattr(config, "patch_size", None)), None
    if call is None:
        size = square(getattr(config, "image_size", None))
    elif pixels is not None and pixels.ndim == 4:
        size = pixels.shape[2], pixels.shape[3]
    if patch is None or size is None or (call and any(call.kwargs.get(name) is not None for name in UNEVEN)):
        return None
    grid = size[0] // patch[0], size[1] // patch[1]
    if config.model_type in SHUFFLED:
        return TokenLayout((*front, *[PATCH] * int(grid[0] * grid[1] * (1 - config.mask_ratio))))
    last = [CLS] if config.model_type in CLS_AFTER_PATCHES else []
    last += [TOKEN] * int(getattr(config, "num_detection_tokens", None) or 0)
    return TokenLayout((*TokenLayout.image(front, grid).types, *last), grid)


def text(config: Any, call: Call) -> TokenLayout | None:
    """Return the layout of text, padded where the attention mask says so and where the model itself pads."""
    ids = call.tensor("input_ids")
    if ids is None or ids.ndim != 2:
        return None
    prompt = [TOKEN] * config.prompt_length if config.model_type == "cpmant" else []
    found = TokenLayout.padded([*prompt, *[TOKEN] * ids.shape[1]], call.kwargs.get("attention_mask"))
    types = found.types
    # The class token is one and the same id; where the first ids differ, the text was cut without it.
    if config.model_type in FIRST_IS_CLS and types[0] == TOKEN and 0 not in found.ragged and _same(ids[:, 0]):
        types = (CLS, *types[1:])
    last = (CLS,) if config.model_type in LAST_IS_CLS else ()
    return TokenLayout((*types, *[PAD] * _appended(config, ids.shape[1]), *last), ragged=found.ragged)


def _same(ids: Tensor) -> bool:
    return bool((ids == ids[0]).all())


def _appended(config: Any, length: int) -> int:
    """Return how many tokens the model itself appends, to fill the last window of its attention."""
    if config.model_type == "longformer":
        window = config.attention_window
        return -length % (window if isinstance(window, int) else max(window))
    sparse = config.model_type == "big_bird" and config.attention_type == "block_sparse"
    if sparse and length > (5 + 2 * config.num_random_blocks) * config.block_size:
        return -length % int(config.block_size)
    return 0
