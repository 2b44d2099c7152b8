"""A tiny configuration of any model type of transformers, from the names of its settings and their usual values."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig

from tests.registries.transformers_exceptions import EXCEPTIONS, HEADS, LAYERS, PATCH, SIDE, VOCABULARY, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SPECIAL = range(100, VOCABULARY)
"""Ids that special tokens are moved to where theirs lie beyond the vocabulary; no input holds them by chance."""

RULES: list[tuple[str, int]] = [
    (r"key_value_heads|kv_heads|num_key_value_groups|query_groups", 2),
    (r"index_n_heads|mamba_n_groups|ssm_groups|n_groups|n_group|topk_group", 1),
    (r"mamba_n_heads|mamba_num_heads|n_mamba_heads|linear_num_value_heads|linear_num_key_heads", HEADS),
    (
        r"(^|_)(num_)?(n_)?(attention_|self_attention_|cross_attention_)?heads?$|_n_heads$|attention_heads$|n_head$",
        HEADS,
    ),
    (r"rotary_dim", 4),
    (r"head_dim|d_kv|kv_channels|d_head|dim_head|^linear_.*_dim$|qk_.*head_dim|resampler_dim_head", WIDTH // HEADS),
    (r"experts_per_tok|top_?k$|num_selected_experts|moe_k$", 2),
    (r"shared_experts", 1),
    (r"experts$|num_experts|moe_num_experts", 4),
    (r"lora_rank|state_size|d_state|time_step_rank|laurel_rank|ssm_state", 16),
    (r"num_kv_shared_layers|first_k_dense_replace|num_dense_layers|num_mtp_layers|num_nextn", 1),
    (r"(^|_)(num_)?(hidden_)?(n_)?layers?$|^depth$|_depth$|num_blocks$|encoder_blocks$|n_layer$|num_layers$", LAYERS),
    (
        r"intermediate_size|ffn_dim|mlp_dim|d_ff$|^dff$|dim_ff|ffn_hidden|feedforward|feed_forward_size|d_inner$",
        2 * WIDTH,
    ),
    (r"vocab_size|num_embeddings$|codebook_size", VOCABULARY),
    (r"max_.*positions?(_embeddings)?$|position_embeddings$|n_positions|n_ctx|max_seq_len|context_length$", 64),
    (r"(^|_)image_size$|img_size|resolution$|input_size$|pretrain_image_size", SIDE),
    (r"(^|_)patch_size$", PATCH),
    (
        r"hidden_size|hidden_dim|d_model|n_embd|embed_dim|embedding_size|embedding_dim|emb_dim|model_dim|(^|_)dim$",
        WIDTH,
    ),
    (r"upsample_initial_channel|base_channels", 2 * WIDTH),
    (r"num_query_tokens|num_queries|n_latents|num_latents|num_denoising", 8),
]
"""The small value of every setting whose name matches; the first rule that matches counts."""

LISTS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "depths": lambda values: [min(value, 2) for value in values],
    "block_sizes": lambda values: [2] * len(values),
    "decoder_in_channels": lambda values: [min(value, WIDTH) for value in values],
    "vision_features_channels": lambda values: [min(value, WIDTH) for value in values],
    "conv_dim": lambda values: [min(value, WIDTH) for value in values],
}

ENVELOPE = {
    "chunk_size_feed_forward", "architectures", "dtype", "return_dict", "output_hidden_states", "id2label", "label2id",
    "problem_type", "transformers_version", "is_encoder_decoder",
}  # fmt: skip
"""Settings that are no part of the architecture."""

INDICES = r"out_indices|deepstack_visual_indexes|fullatt_block_indexes|global_attn_indexes|window_block_indices"


HEADS_NAME = "num_attention_heads"
UNSET = object()


def small(
    kind: type[PreTrainedConfig], base: PreTrainedConfig | None = None, told: Mapping[str, Any] | None = None
) -> PreTrainedConfig:
    """Return a small configuration of ``kind``; what ``base`` says counts, where a whole has given it as its part.

    ``told`` are the settings that the whole's exception has for this part.
    """
    own = {**EXCEPTIONS.get(kind.model_type, {}), **(told or {})}
    settings: dict[str, Any] = {}
    special = iter(SPECIAL)
    known = {field.name: field for field in fields(kind)}
    for name, field in known.items():
        if name in kind.sub_configs or name in ENVELOPE:
            continue
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = _chosen(name, _said(base, name, default), default, special, staged="depths" in known)
        if value is not UNSET:
            settings[name] = value
    whole = base or _usual(kind, own)
    if "num_key_value_heads" in settings and _said(whole, "num_key_value_heads", 0) == _said(whole, HEADS_NAME, 1):
        settings["num_key_value_heads"] = settings.get(HEADS_NAME, HEADS)
    for name in {**known, **kind.sub_configs}:
        inner = _said(whole, name, None)
        if isinstance(inner, PreTrainedConfig):
            settings[name] = small(type(inner), inner, own.pop(name, None))
    if base is not None and getattr(base, "out_indices", None):
        settings["out_indices"] = _outlets(list(base.out_indices), settings.get("num_hidden_layers"))
    return kind(**{**settings, **own})


def _usual(kind: type[PreTrainedConfig], own: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the usual configuration; with the exceptions where the class does not take its own usual settings."""
    try:
        return kind()
    except Exception:
        return kind(**own)


def _outlets(usual: list[int], layers: int | None) -> list[int]:
    """Return the depths that a backbone hands out: as many as usual, the last ones where it has fewer layers."""
    return usual if layers is None or usual[-1] <= layers else list(range(layers + 1 - len(usual), layers + 1))


def _said(config: PreTrainedConfig | None, name: str, default: Any) -> Any:
    try:
        return getattr(config, name, default)
    except RuntimeError:  # a setting that differs between layers has no one value
        return default


def _chosen(name: str, usual: Any, default: Any, special: Iterator[int], *, staged: bool) -> Any:
    """Return the value of a setting, ``UNSET`` where it keeps its default."""
    if isinstance(default, list | tuple):
        if name in LISTS:
            return LISTS[name](list(usual) if isinstance(usual, list | tuple) else list(default))
        indices = [1] if re.search(INDICES, name) else UNSET
        return usual if indices is UNSET and usual != default and len(usual) == len(default) else indices
    if isinstance(usual, bool | str | float):
        return usual if usual != default and default is not MISSING else UNSET
    if not isinstance(usual, int):
        return UNSET
    if re.search(r"_(id|index)$", name):
        return next(special) if usual >= VOCABULARY else UNSET
    return _small(name, usual, staged) if isinstance(default, int) else UNSET


def _small(name: str, usual: int, staged: bool) -> int:
    """Return the small value of a setting; where stages multiply widths and heads, these are left alone."""
    value = next((value for pattern, value in RULES if re.search(pattern, name)), usual)
    return usual if usual <= 0 or (staged and value in (WIDTH, 2 * WIDTH, HEADS, WIDTH // HEADS)) else min(usual, value)
