"""Transformers' models, by their own account of their layers; transformers is never imported here."""

from __future__ import annotations

from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

from torch import nn

from depthflow.models.base import Adapter, Call, Refusal, TokenLayout
from depthflow.models.generic import candidates, children, remedy
from depthflow.models.huggingface_stacks import find_stacks, has_attention
from depthflow.models.huggingface_tokens import embeddings, layout

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_ARCHITECTURE = {"_name_or_path", "transformers_version"}
"""Keys of a configuration that say where weights lay and who wrote it."""

PARTS = (
    "keeps the attention and the MLP of its layers in lists of their own, so that no module maps its stream one layer "
    "on",
    "Use a model whose layers are modules, such as XLM-RoBERTa.",
)
QUERIES = (
    "joins its query tokens to its states on the way and masks them by what it predicts between its blocks, so that "
    "its blocks carry no one trajectory",
    "Record the backbone that it was made from, such as DINOv2.",
)
GUESS = (
    "adds its own early guess of the text to its states half way, so that one block is not given what the one before "
    "it returns",
    "Pass blocks=[…] with the layers of one half.",
)
IMAGES, SOUNDS = "patches of all images", "frames of all sounds"
PACKED = {"feature_lens": SOUNDS, "grid_thw": IMAGES, "image_grid_thw": IMAGES, "target_sizes": IMAGES}
"""What a tower whose forward pass takes an argument of this name packs into one sequence."""

NO_SAMPLES = (
    "packs the {} into one sequence, so that its states have no axis of samples",
    "Record the language model behind it, or a model that keeps its samples apart.",
)
BETWEEN = (
    "attends to other tokens between its layers, so that no layer is given what the one before it returns",
    "Pass blocks= with the list of its layers to record what each of them returns all the same.",
)
NO_STREAM = {
    "blt_local_decoder": BETWEEN,
    "eomt": QUERIES,
    "eomt_dinov3": QUERIES,
    "flaubert": PARTS,
    "granite_speech_encoder": GUESS,
    "granite_speech_plus_encoder": GUESS,
    "hrm_text": (
        "runs two stacks in turns, each on its own state plus the other's, so that no one trajectory goes through them",
        "Use a model with one residual stream.",
    ),
    "seggpt": (
        "runs the image and its prompt as two samples and averages the two after block config.merge_index, so that no "
        "one trajectory goes through its blocks",
        "Record the backbone of a model of one image, such as ViT.",
    ),
    "idefics": BETWEEN,
    "reformer": (
        "has reversible layers, which carry two streams side by side, so that no one tensor is its state",
        "Use a model with one residual stream, such as Longformer for long texts.",
    ),
    "qwen3_asr_encoder": (NO_SAMPLES[0].format(SOUNDS), NO_SAMPLES[1]),
    "squeezebert": (
        "calls the forward method of its layers itself, past the hooks that a recording takes their states by",
        "Use a model that calls its layers as modules, such as MobileBERT.",
    ),
    "videomt": QUERIES,
    "xlm": PARTS,
}
"""Models, by ``config.model_type``, in which no block hands one residual stream on: why, and what to do."""

EVEN_STAGES = {"swin2sr"}
"""Models with stages of equal shape."""

NORMS = (
    "layernorm", "norm", "post_layernorm", "layernorm_post", "final_layer_norm", "final_layernorm", "ln_f", "ln_post",
    "final_norm", "layer_norm", "norm_f", "ln_out", "out_norm", "output_layernorm", "rms_norm",
)  # fmt: skip

OWN_NORMS: dict[str, str | None] = {
    "blip_2_qformer": None, "data2vec-audio": None, "esm": "encoder.emb_layer_norm_after", "layoutlmv3": None,
    "lfm2": "embedding_norm", "lfm2_moe": "embedding_norm", "lfm3": "embedding_norm", "megatron-bert": "encoder.ln",
    "qwen4_exp_text": "hyper_connection_mixer.hc_norm", "roberta-prelayernorm": "LayerNorm", "sew": None,
    "sew-d": None, "xlm-roberta-xl": "encoder.LayerNorm",
}  # fmt: skip
"""The final norm, by ``config.model_type``, where its name says something else, or a norm of that name is another."""


class HuggingFaceAdapter(Adapter):
    """A ``PreTrainedModel`` with one stack of equal layers."""

    library = "transformers"

    def __init__(self, root: nn.Module, prefix: str = "") -> None:
        super().__init__(root, prefix)
        self.family = f"transformers/{type(self.part).__name__}"
        self.config: Any = getattr(self.part, "config", None)
        # A model for a task keeps its backbone under base_model_prefix; what a decoder or head adds is not its stream.
        backbone = getattr(self.part, getattr(self.part, "base_model_prefix", "") or "", self.part)
        stacks = list(find_stacks(self.part, backbone if isinstance(backbone, nn.Module) else self.part))
        self.refusal = self._refuse([name for name, _ in stacks])
        if len(stacks) == 1:
            self.named_blocks = children(self.dotted(stacks[0][0]), stacks[0][1])

    def _refuse(self, stacks: list[str]) -> Refusal | None:
        kind = getattr(self.config, "model_type", "")
        if kind in NO_STREAM:
            return Refusal(f"{self.family} {NO_STREAM[kind][0]}.", NO_STREAM[kind][1])
        if getattr(self.config, "use_mid_position_embeddings", False):
            return Refusal(
                f"{self.family} adds position embeddings to its states between its blocks "
                "(config.use_mid_position_embeddings), so that no block is given what the one before it returns.",
                "Pass blocks= with the list of its layers to record what each of them returns all the same.",
            )
        rescaled = getattr(self.config, "rescale_every", 0)
        if rescaled and self.config.num_hidden_layers > rescaled:
            return Refusal(
                f"{self.family} halves its states after every {rescaled} blocks in evaluation mode "
                "(config.rescale_every), and its weights with them, so that its depths have no common scale.",
                "Set model.config.rescale_every = 0 before the model first runs in evaluation mode.",
            )
        packed = self._packs("")
        if packed is not None:
            return Refusal(f"{self.family} {NO_SAMPLES[0].format(packed)}.", NO_SAMPLES[1])
        counts = (getattr(self.config, name, None) for name in ("depths", "depth", "block_sizes"))
        stages = next((count for count in counts if isinstance(count, list | tuple)), ())
        if len(stages) > 1 and kind not in EVEN_STAGES:
            return Refusal(
                f"{self.family} is hierarchical: its {len(stages)} stages of {', '.join(map(str, stages))} blocks "
                "differ in the shape of their states, so they have no common space.",
                "Pass blocks=[…] with the blocks of one stage of equal shape, or use an isotropic model.",
            )
        if len(stacks) > 1:
            apart = [name for name in stacks if not self._packs(name) and not self._is_broken(name)] or stacks
            listed = " or ".join(f"blocks={self.dotted(name)!r}" for name in apart)
            return Refusal(
                f"{self.family} holds {len(stacks)} stacks of blocks, each with a residual stream of its own.",
                f"Pass {listed} and inputs that its forward pass takes (for two towers, a dict with both pixel_values "
                "and input_ids), or record one tower by itself with its own inputs, such as record(model.vision_model, "
                "pixel_values).",
            )
        if not stacks:
            mixing = [name for name in candidates(self.root) if has_attention(self.root.get_submodule(name))]
            return Refusal(f"{self.family} keeps no list of transformer layers.", remedy(mixing))
        return None

    def _is_broken(self, stack: str) -> bool:
        """Return whether the tower around ``stack`` is of a type whose blocks hand no one stream on."""
        around = (self.part.get_submodule(stack.rsplit(".", count)[0]) for count in range(1, stack.count(".") + 1))
        return any(getattr(getattr(tower, "config", None), "model_type", "") in NO_STREAM for tower in around)

    def _packs(self, stack: str) -> str | None:
        """Return what the part itself, or the tower around ``stack``, packs into one sequence; None if nothing."""
        around = [stack.rsplit(".", count)[0] for count in range(1, stack.count(".") + 1)] if stack else [""]
        takes = (set(signature(self.part.get_submodule(name).forward).parameters) for name in around)
        told = (PACKED.keys() & names for names in takes if "input_ids" not in names)
        return next((PACKED[min(names)] for names in told if names), None)

    @contextmanager
    def replayable(self) -> Iterator[None]:
        """Turn the cache of keys and values off, to which every call of a block would add."""
        cached = getattr(self.config, "use_cache", None)
        if cached is None:
            yield
            return
        self.config.use_cache = False
        try:
            yield
        finally:
            self.config.use_cache = cached

    @contextmanager
    def attention_written_out(self) -> Iterator[None]:
        """Use the eager attention in place of kernels that are not PyTorch's own, such as FlashAttention's."""
        used = getattr(self.config, "_attn_implementation", None)
        if used in (None, "eager", "sdpa"):
            yield
            return
        switch: Any = self.part.set_attn_implementation
        switch("eager")
        try:
            yield
        finally:
            switch(used)

    def name(self) -> str:
        """Return the name or folder that the weights came from, else the class."""
        return getattr(self.config, "_name_or_path", "") or super().name()

    def recipe(self) -> dict[str, Any] | None:
        """Return the class and its configuration; None for a class that is not transformers' own."""
        kind = type(self.part)
        if self.prefix or self.config is None or not kind.__module__.startswith("transformers."):
            return None
        config = {key: value for key, value in self.config.to_dict().items() if key not in NOT_ARCHITECTURE}
        optional = "add_pooling_layer" in signature(kind).parameters and hasattr(self.part, "pooler")
        return {
            "library": self.library,
            "model": kind.__name__,
            "config": config,
            "arguments": {"add_pooling_layer": self.part.pooler is not None} if optional else {},
            "attention": getattr(self.config, "_attn_implementation", None),
        }

    def layout(self, call: Call | None = None) -> TokenLayout | None:
        """Return the layout of images by the embeddings' tokens, of text by the attention mask."""
        tower = self._tower()
        return layout(self.part, tower, tower.config, call)

    def _tower(self) -> Any:
        """Return the smallest part around the layers that makes their tokens: the whole may not know of them."""
        fits = (module for module in self._around() if hasattr(module, "config") and embeddings(module) is not None)
        return next(fits, self.part)

    def _around(self) -> Iterator[nn.Module]:
        """Yield the modules around the layers, smallest first, the part itself last."""
        inside = self.names[0].removeprefix(f"{self.prefix}." if self.prefix else "") if self.named_blocks else ""
        for count in range(1, inside.count(".") + 1):
            yield self.part.get_submodule(inside.rsplit(".", count)[0])
        yield self.part

    def width(self) -> int | None:
        """Return ``config.hidden_size`` of the smallest part around the layers that says it."""
        widths = (getattr(getattr(module, "config", None), "hidden_size", None) for module in self._around())
        width = next((width for width in widths if isinstance(width, int)), None)
        # Where layers carry several streams side by side, in hyper-connections, a state has the features of all.
        return None if width is None else width * int(getattr(self.config, "hc_count", None) or 1)

    def final_norm(self) -> str | None:
        """Return the norm that lies beside the list of layers, or beside what holds it."""
        if not self.named_blocks:
            return None
        kind = getattr(self.config, "model_type", "")
        if kind in OWN_NORMS:
            own = OWN_NORMS[kind]
            return None if own is None else self._own_norm(own)
        stable = (getattr(getattr(module, "config", None), "do_stable_layer_norm", None) for module in self._around())
        if next((first for first in stable if first is not None), None) is False:
            return None  # speech models whose blocks are post-norm: the norm beside the layers is before them
        stack = self.named_blocks[0][0].removeprefix(f"{self.prefix}." if self.prefix else "").rsplit(".", 1)[0]
        while stack:
            stack = stack.rpartition(".")[0]
            found = self.first_norm(f"{stack}.{norm}" if stack else norm for norm in NORMS)
            if found:
                return found
        return None

    def _own_norm(self, name: str) -> str | None:
        backbone = getattr(self.part, "base_model_prefix", "")
        return self.first_norm([name, f"{backbone}.{name}"])
