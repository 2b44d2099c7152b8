"""What a model of transformers is called with, found from the names that its forward pass takes."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module

from tests.registries.transformers_calls import CALLS
from tests.registries.transformers_exceptions import SIDE
from tests.registries.transformers_tensors import FIRST_ID, LAST_ID, LENGTH, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

PADS = 2


def inputs(model: Any) -> dict[str, Any]:
    """Return the first of the likely inputs that the model runs on.

    Raises
    ------
    Exception
        The model's own error on the likeliest, where it runs on none.
    """
    first: Exception | None = None
    for candidate in likely(model):
        torch.manual_seed(1)
        try:
            with torch.no_grad():
                model(**candidate)
        except Exception as error:
            first = first or error
        else:
            return candidate
    raise first or TypeError(_unknown(model))


def _unknown(model: Any) -> str:
    name, takes = type(model).__name__, signature(model.forward).parameters
    if "forward" not in {method for kind in type(model).__mro__[:-1] for method in vars(kind) if kind is not Module}:
        return f"{name} has no forward pass of its own"
    return f"{name} needs {' and '.join(sorted(required(takes)))}, which this suite does not make"


def likely(model: Any) -> Iterator[dict[str, Any]]:
    """Yield inputs by what the model calls its main one, the most complete first."""
    torch.manual_seed(0)
    own = CALLS.get(model.config.model_type)
    takes = {
        name: one for name, one in signature(model.forward).parameters.items() if one.kind is not Parameter.VAR_KEYWORD
    }
    if own is not None:
        yield {name: value for name, value in own(model).items() if name in takes}
        return
    main = model.main_input_name
    main = main if isinstance(main, str) else main[0]
    pools = {"text": list(texts(model)), "image": list(images(model)), "sound": list(sounds(model, takes))}
    own = {"input_ids": "text", "pixel_values": "image"}.get(main, "sound" if main.startswith("input_") else "image")
    both = [{**text, **image} for image in pools["image"] for text in pools["text"]]
    order = [*both, *pools["text"], *pools["image"]] if own != "sound" else []
    if own == "sound":
        order = [*({**text, **sound} for sound in pools["sound"] for text in pools["text"]), *pools["sound"]]
    if own == "text":
        order = [*both, *({**text, **sound} for sound in pools["sound"] for text in pools["text"]), *order]
    for one in order:
        kept = {name: value for name, value in one.items() if name in takes}
        if kept and required(takes) <= kept.keys():
            yield kept
    for one in (*packed(model, takes), *series(model), *embedded(model, takes)):
        if required(takes) <= one.keys():
            yield {name: value for name, value in one.items() if name in takes}


def required(takes: Any) -> set[str]:
    """Return the names of what a forward pass cannot do without."""
    return {name for name, one in takes.items() if one.default is Parameter.empty and one.kind is not one.VAR_KEYWORD}


def series(model: Any) -> Iterator[dict[str, Tensor]]:
    """Yield series of numbers."""
    length = setting(model.config, "context_length") or 32
    channels = setting(model.config, "num_input_channels")
    past = torch.randn(SAMPLES, length, channels) if channels else torch.randn(SAMPLES, length)
    yield {"past_values": past}
    yield {"past_values": past, "freq": torch.zeros(SAMPLES, 1, dtype=torch.long)}


def texts(model: Any) -> Iterator[dict[str, Tensor]]:
    """Yield text of equal length in all samples, padded and not, with what a decoder is given."""
    ids = torch.randint(FIRST_ID, LAST_ID, (SAMPLES, LENGTH))
    ids[:, 0] = FIRST_ID - 1
    mask = torch.ones_like(ids)
    mask[:, -PADS:] = 0
    decoder = {"decoder_input_ids": torch.randint(FIRST_ID, LAST_ID, (SAMPLES, LENGTH - 2))}
    beside = {"bbox": torch.randint(0, 8, (SAMPLES, LENGTH, 4)).sort(-1).values}
    width = setting(model.config, "hidden_size") or 32
    beside["cross_attention_states"] = torch.randn(SAMPLES, 4, width)
    yield {"input_ids": ids, "attention_mask": mask, **decoder, **beside}
    yield {"input_ids": ids, "attention_mask": mask, **decoder}
    yield {"input_ids": ids, **decoder}
    yield {"input_ids": ids}


def images(model: Any) -> Iterator[dict[str, Tensor]]:
    """Yield images of the size that the configuration names, and videos."""
    channels = setting(model.config, "num_channels", "in_channels", "in_chans") or 3
    size = setting(model.config, "image_size", "img_size")
    size = size or SIDE
    rows, cols = size if isinstance(size, list | tuple) else (size, size)
    yield {"pixel_values": torch.randn(SAMPLES, channels, rows, cols)}
    patch = setting(model.config, "patch_size")
    if patch and "spatial_shapes" in signature(model.forward).parameters:
        yield {
            "pixel_values": torch.randn(SAMPLES, 16, channels * patch * patch),
            "pixel_attention_mask": torch.ones(SAMPLES, 16, dtype=torch.long),
            "spatial_shapes": torch.tensor([[4, 4]] * SAMPLES),
        }
    frames = setting(model.config, "num_frames", "frames_per_clip") or 2
    yield {
        "pixel_values": torch.randn(SAMPLES, frames, channels, rows, cols),
        "pixel_values_videos": torch.randn(SAMPLES, frames, channels, rows, cols),
    }
    yield {"pixel_values": torch.randn(SAMPLES, channels, 64, 64)}
    yield {"pixel_values": torch.randn(SAMPLES, channels, 128, 128)}


def sounds(model: Any, takes: Any) -> Iterator[dict[str, Tensor]]:
    """Yield log-mel features in both orders of axes, and waves."""
    bins = setting(model.config, "num_mel_bins", "n_mels", "feature_size", "input_feat_size", "input_dim") or 80
    bins = bins if isinstance(bins, int) else 80
    text = next(texts(model))
    decoder = {"decoder_input_ids": text["decoder_input_ids"]}
    frames = 2 * (setting(model.config, "max_source_positions") or 32)
    for shape in [(SAMPLES, bins, frames), (SAMPLES, 64, bins), (SAMPLES, bins, 64), (SAMPLES, 1, 64, bins)]:
        features = torch.randn(shape)
        steps = max(shape[1:], key=lambda size: (size != bins, size))
        mask = torch.ones(SAMPLES, steps, dtype=torch.bool)
        yield {"input_features": features, "input_values": features, "input_features_mask": mask, **decoder}
    for shape in [(SAMPLES, 4000), (SAMPLES, 1, 4000), (SAMPLES, 1, 16000)]:
        wave = torch.randn(shape)
        yield {"input_values": wave, "input_features": wave, **decoder}


def packed(model: Any, takes: Any) -> Iterator[dict[str, Tensor]]:
    """Yield the patches of two images in one sequence, as a tower takes them that is told each image's size."""
    config = model.config
    channels = setting(config, "num_channels", "in_channels", "in_chans") or 3
    patch = setting(config, "patch_size") or 8
    frames = setting(config, "temporal_patch_size", "patch_temporal") or 1
    grid = torch.tensor([[1, 4, 4]] * SAMPLES)
    sizes = {"grid_thw": grid, "image_grid_thw": grid, "merge_sizes": torch.tensor([2] * SAMPLES)}
    for values in (channels * frames * patch * patch, channels * patch * patch):
        pixels = torch.randn(16 * SAMPLES, values)
        yield {"hidden_states": pixels, "pixel_values": pixels, **sizes}
    square = torch.randn(16 * SAMPLES, channels, patch, patch)
    yield {"hidden_states": square, "pixel_values": square, **sizes}
    places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), dim=-1).reshape(1, 16, 2)
    yield {
        "pixel_values": torch.randn(SAMPLES, 16, channels * patch * patch),
        "pixel_position_ids": places.expand(SAMPLES, -1, -1).contiguous(),
    }


def embedded(model: Any, takes: Any) -> Iterator[dict[str, Tensor]]:
    """Yield states as a tower without embeddings takes them."""
    width = setting(model.config, "hidden_size", "d_model", "embed_dim") or 32
    for name in ("inputs_embeds", "hidden_states"):
        if name in takes:
            yield {name: torch.randn(SAMPLES, LENGTH, width)}


def setting(config: Any, *names: str) -> Any:
    """Return the first of the settings that the configuration, or a part of it, has."""
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return value
    for name in getattr(config, "sub_configs", {}):
        inner = getattr(config, name, None)
        value = setting(inner, *names) if inner is not None and not isinstance(inner, dict) else None
        if value is not None:
            return value
    return None
