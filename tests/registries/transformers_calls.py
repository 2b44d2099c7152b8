"""What transformers' models are called with whose inputs have names or shapes of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tests.registries.transformers_exceptions import SIDE
from tests.registries.transformers_tensors import (
    LENGTH,
    SAMPLES,
    floats,
    ids,
    image,
    ones,
    taken_by,
    texts_with_places,
    zeros,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def _forecast(model: Any) -> dict[str, Any]:
    config = model.config
    past, future = config.context_length + max(config.lags_sequence), config.prediction_length
    features = config.num_time_features
    return {
        "past_values": floats(past),
        "past_time_features": floats(past, features),
        "past_observed_mask": torch.ones(SAMPLES, past),
        "future_values": floats(future),
        "future_time_features": floats(future, features),
    }


def _patches(model: Any) -> dict[str, Any]:
    width = taken_by(model, "patch_projection")
    patches = floats(16, 2 + width)
    patches[..., 0] = torch.arange(16) // 4 + 1
    patches[..., 1] = torch.arange(16) % 4 + 1
    return {"flattened_patches": patches, "attention_mask": ones(16), "decoder_input_ids": ids(7)}


def _placed(model: Any, count: int, **more: Any) -> dict[str, Any]:
    """Return an image, and text in which ``count`` tokens stand for it."""
    mask = ones(LENGTH + count)
    return {
        "input_ids": texts_with_places(model.config, count),
        "attention_mask": mask,
        "decoder_input_ids": ids(7),
        **more,
    }


def _queried(model: Any) -> dict[str, Any]:
    frames = 2 if model.config.model_type == "instructblipvideo" else 0
    pixels = image(model.config.vision_config, *[frames] * bool(frames))
    count = model.config.num_query_tokens * max(frames, 1)
    return _placed(model, count, pixel_values=pixels, qformer_input_ids=ids(5), qformer_attention_mask=ones(5))


def _kosmos(model: Any) -> dict[str, Any]:
    places = torch.zeros(SAMPLES, LENGTH, dtype=torch.bool)
    places[:, 1 : 1 + model.config.latent_query_num] = True
    pixels = image(model.config.vision_config)
    return {"pixel_values": pixels, "input_ids": ids(LENGTH), "image_embeds_position_mask": places}


def _decision(model: Any) -> dict[str, Any]:
    config = model.config
    return {
        "states": floats(LENGTH, config.state_dim),
        "actions": floats(LENGTH, config.act_dim),
        "rewards": floats(LENGTH, 1),
        "returns_to_go": floats(LENGTH, 1),
        "timesteps": torch.arange(LENGTH).expand(SAMPLES, -1).contiguous(),
        "attention_mask": ones(LENGTH),
    }


def _chunked(model: Any) -> dict[str, Any]:
    frames = 4 * model.config.n_window
    return {
        "input_features": torch.randn(model.config.num_mel_bins, SAMPLES * frames),
        "feature_lens": torch.tensor([frames] * SAMPLES),
    }


def _heard(model: Any) -> dict[str, Any]:
    return {"input_values": floats(1, 3840), "input_features": floats(12, 80)}


def _tiled(model: Any) -> dict[str, Any]:
    patch = model.config.patch_size
    sizes = torch.tensor([[4, 4]] * SAMPLES)
    return {"pixel_values": torch.randn(1, 3, patch, SAMPLES * 16 * patch), "target_sizes": sizes}


CALLS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "autoformer": _forecast,
    "blip-2": _queried,
    "blip_2_qformer": lambda model: {
        "query_embeds": floats(8, model.config.hidden_size),
        "encoder_hidden_states": floats(6, model.config.encoder_hidden_size),
    },
    "blt": lambda model: {"input_ids": ids(LENGTH), "use_cache": False},
    "blt_local_decoder": lambda model: {
        "inputs_embeds": floats(LENGTH, model.config.hidden_size),
        "patch_embeds": floats(LENGTH, model.config.hidden_size_global),
    },
    "blt_local_encoder": lambda model: {
        "input_ids": ids(LENGTH),
        "num_patches": 3,
        "patch_ids": torch.arange(LENGTH).div(3, rounding_mode="floor").expand(SAMPLES, -1).contiguous(),
    },
    "bridgetower_vision_model": lambda model: {"image": image(model.config)},
    "clvp": lambda model: {
        "input_ids": ids(LENGTH),
        "input_features": floats(model.config.decoder_config.feature_size, 64),
    },
    "decision_transformer": _decision,
    "deepseek_ocr2_encoder": lambda model: {"inputs_embeds": floats(16, model.config.hidden_size), "num_patches": 8},
    "depth_pro": lambda model: {"pixel_values": floats(3, 4 * model.config.patch_size, 4 * model.config.patch_size)},
    "dia_decoder": lambda model: {
        "input_ids": ids(LENGTH, model.config.num_channels),
        "encoder_hidden_states": floats(6, model.config.cross_hidden_size),
    },
    "dots3_note_audio_encoder": lambda model: {
        "input_features": floats(model.config.feature_size, 64),
        "chunk_sample_lengths": torch.tensor([64 * model.config.hop_length] * SAMPLES),
    },
    "efficientloftr": lambda model: {"pixel_values": floats(2, 3, 64, 64)},
    "fastspeech2_conformer_hifigan": lambda model: {"spectrogram": floats(20, model.config.model_in_dim)},
    "florence_vision": lambda model: {"hidden_states": floats(3, 64, 64)},
    "fun_asr_nano_encoder": lambda model: {
        "input_features": floats(20, model.config.num_mel_bins * model.config.num_stacked_frames),
        "input_features_mask": ones(20),
    },
    "gemma3n_audio": lambda model: {
        "audio_mel": floats(64, model.config.input_feat_size),
        "audio_mel_mask": torch.zeros(SAMPLES, 64, dtype=torch.bool),
    },
    "gemma4_audio": lambda model: {
        "input_features": floats(64, 128),
        "attention_mask": torch.ones(SAMPLES, 64, dtype=torch.bool),
    },
    "granite_speech5_ctc": lambda model: {"input_features": floats(64, taken_by(model, "input_linear"))},
    "granite_speech5_encoder": lambda model: {"input_features": floats(64, taken_by(model, "input_linear"))},
    "idefics": lambda model: {
        "input_ids": ids(LENGTH),
        "attention_mask": ones(LENGTH),
        "pixel_values": image(model.config.vision_config, 1),
        "image_attention_mask": ones(LENGTH, 1),
    },
    "idefics2_perceiver": lambda model: {"context": floats(10, model.config.hidden_size), "attention_mask": ones(10)},
    "informer": _forecast,
    "inkling2_vision": lambda model: {
        "pixel_values": torch.randn(SAMPLES * 4, 4 * model.config.patch_size**2, 3),
        "image_grid_thw": torch.tensor([[1, 2, 2]] * SAMPLES),
    },
    "inkling_audio": lambda model: {"audio_input_ids": ids(LENGTH, model.config.n_mel_bins, most=8)},
    "inkling_vision": lambda model: {"pixel_values": floats(model.config.temporal_patch_size, 40, 40, 3)},
    "instructblip": _queried,
    "instructblipvideo": _queried,
    "jev": lambda model: {
        "input_ids": ids(LENGTH)[:1],
        "marks": torch.tensor([[3, 6]]),
        "num_options": torch.tensor([[2, 2]]),
        "question_type_ids": torch.tensor([[0, 0]]),
    },
    "kosmos-2": _kosmos,
    "kosmos_2_5_vision_model": _patches,
    "lightglue": lambda model: {"pixel_values": floats(2, 3, 64, 64)},
    "lw_detr_vit": lambda model: {"hidden_states": floats(16, model.config.hidden_size)},
    "lxmert": lambda model: {
        "input_ids": ids(LENGTH),
        "visual_feats": floats(5, model.config.visual_feat_dim),
        "visual_pos": torch.rand(SAMPLES, 5, 4),
    },
    "mimi": lambda model: {"input_values": floats(1, 3840)},
    "mimi_decoder": lambda model: {"latents": floats(model.config.hidden_size, 12)},
    "mllama_vision_model": lambda model: {
        "pixel_values": image(model.config, 1, model.config.max_num_tiles),
        "aspect_ratio_ids": ones(1),
        "aspect_ratio_mask": ones(1, model.config.max_num_tiles),
    },
    "molmo2_adapter": lambda model: {
        "image_features": floats(16, taken_by(model, "k_proj")),
        "pooled_patches_idx": torch.arange(32).reshape(8, 4),
    },
    "molmo2_vision": lambda model: {"pixel_values": floats(16, 3 * model.config.patch_size**2)},
    "moshi_depth": lambda model: {
        "input_ids": ids(model.config.num_codebooks),
        "last_hidden_state": floats(1, model.config.input_size),
    },
    "muse_glimmer_assistant": lambda model: {
        "noise_embeds": floats(4, model.config.hidden_size),
        "context_hidden_states": floats(LENGTH, taken_by(model, "context_proj", "fc")),
    },
    "muse_spark_audio": lambda model: {"input_values": floats(4 * 1920)},
    "musicgen": lambda model: {
        "input_ids": ids(LENGTH),
        "attention_mask": ones(LENGTH),
        "decoder_input_ids": ids(model.config.decoder.num_codebooks, 7),
    },
    "musicgen_melody": lambda model: {
        "input_ids": ids(LENGTH),
        "attention_mask": ones(LENGTH),
        "decoder_input_ids": ids(model.config.decoder.num_codebooks, 7),
    },
    "neucodec": _heard,
    "oneformer": lambda model: {"pixel_values": floats(3, 64, 64), "task_inputs": ids(model.config.task_seq_len)},
    "paddleocr_vl_vision": lambda model: {
        "pixel_values": torch.randn(1, 32, 3, model.config.patch_size, model.config.patch_size),
        "grid_thw": torch.tensor([[1, 4, 4]] * SAMPLES),
    },
    "pe_audio_video_encoder": lambda model: {
        "input_values": floats(1, 3840),
        "pixel_values_videos": floats(2, 3, SIDE, SIDE),
    },
    "perceiver": lambda model: {"inputs": floats(10, model.config.d_model)},
    "phi4_multimodal_audio": lambda model: {"hidden_states": floats(64, model.config.input_size), "mask": None},
    "pi0": lambda model: {
        "action_embeds": floats(4, model.config.dit_config.hidden_size),
        "input_ids": texts_with_places(model.config.vlm_config, 16),
        "attention_mask": ones(LENGTH + 16),
        "pixel_values": image(model.config.vlm_config.vision_config, 1),
        "pixel_attention_mask": ones(1).bool(),
    },
    "pix2struct": _patches,
    "pix2struct_vision_model": _patches,
    "pocket_tts_audio_tokenizer_decoder": lambda model: {"latents": floats(model.config.hidden_size, 12)},
    "pp_ocrv5_mobile_det": lambda model: {"hidden_states": floats(3, 64, 64)},
    "qwen2_5_omni_audio_encoder": _chunked,
    "qwen2_5_omni_bigvgan": lambda model: {"mel_spectrogram": floats(model.config.mel_dim, 8)},
    "qwen2_5_omni_dit": lambda model: {
        "hidden_states": floats(8, model.config.mel_dim),
        "condition_vector": floats(8, model.config.mel_dim),
        "speaker_embedding": floats(8, model.config.enc_emb_dim),
        "quantized_code": ids(4),
        "time_step": torch.tensor(0.5),
    },
    "qwen3_asr_encoder": lambda model: {
        "input_features": floats(model.config.num_mel_bins, 4 * model.config.n_window),
        "input_features_mask": ones(4 * model.config.n_window),
    },
    "qwen3_omni_moe_audio_encoder": _chunked,
    "rag": lambda model: {
        "input_ids": ids(LENGTH),
        "context_input_ids": ids(LENGTH),
        "context_attention_mask": ones(LENGTH),
        "doc_scores": floats(1),
        "decoder_input_ids": ids(7),
        "n_docs": 1,
    },
    "sam2": lambda model: {"pixel_values": floats(3, 128, 128)},
    "sam2_hiera_det_model": lambda model: {"pixel_values": floats(3, 128, 128)},
    "sam2_vision_model": lambda model: {"pixel_values": floats(3, 128, 128)},
    "seggpt": lambda model: {
        name: floats(3, 16, 16) for name in ("pixel_values", "prompt_pixel_values", "prompt_masks")
    },
    "shieldgemma2": lambda model: _placed(
        model, model.config.mm_tokens_per_image, pixel_values=image(model.config.vision_config)
    ),
    "slanet": lambda model: {"hidden_states": floats(16, model.config.post_conv_out_channels)},
    "slanext": lambda model: {"hidden_states": floats(16, model.config.post_conv_out_channels)},
    "speech-encoder-decoder": lambda model: {"input_values": floats(4000), "decoder_input_ids": ids(7)},
    "speecht5": lambda model: {
        "input_values": floats(LENGTH, model.config.hidden_size),
        "decoder_input_values": floats(7, model.config.hidden_size),
    },
    "speecht5_hifigan": lambda model: {"spectrogram": floats(20, model.config.model_in_dim)},
    "superglue": lambda model: {"pixel_values": floats(2, 3, 64, 64)},
    "superpoint": lambda model: {"pixel_values": floats(3, 64, 64)},
    "t5gemma2_decoder": lambda model: {
        "input_ids": ids(LENGTH),
        "attention_mask": ones(LENGTH),
        "encoder_hidden_states": floats(6, model.config.hidden_size),
    },
    "time_series_transformer": _forecast,
    "timesfm": lambda model: {
        "past_values": floats(4 * model.config.patch_length),
        "past_values_padding": zeros(4 * model.config.patch_length),
        "freq": zeros(1),
    },
    "tvp": lambda model: {
        "input_ids": ids(LENGTH),
        "attention_mask": ones(LENGTH),
        "pixel_values": floats(2, 3, 128, 128),
    },
    "unlimited_ocr_vision_encoder": lambda model: {"patch_embeds": floats(model.config.hidden_size, 4, 4)},
    "vibevoice_acoustic_tokenizer_decoder": lambda model: {"hidden_states": floats(2 * 32, 4)},
    "vibevoice_acoustic_tokenizer_encoder": lambda model: {"hidden_states": floats(1, 3200)},
    "vitmatte": lambda model: {"pixel_values": floats(4, 64, 64)},
    "voxtral_realtime": lambda model: {
        "input_ids": ids(LENGTH),
        "input_features": floats(model.config.audio_config.num_mel_bins, 8 * LENGTH),
    },
    "xclip_vision_model": lambda model: {"pixel_values": floats(3, model.config.image_size, model.config.image_size)},
    "xcodec": lambda model: {"input_values": floats(1, 3200)},
    "xcodec2": _heard,
    **dict.fromkeys(("minicpm_ocr_vision", "minicpmv4_6_vision", "minicpmv4_7_vision"), _tiled),
}
"""The inputs of models by their ``config.model_type``."""
