"""Transformers' models, by their own account of their layers; transformers is never imported here."""

from __future__ import annotations

from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

from torch import nn

from depthflow.models.base import Adapter, Call, Refusal, TokenLayout
from depthflow.models.generic import CONTAINERS, candidates, children, remedy, square
from depthflow.schema import CLS, DISTILLATION, PATCH, REGISTER, TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_IS_CLS = {
    "albert", "bert", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra",
    "ernie", "ibert", "layoutlm", "layoutlmv3", "longformer", "megatron-bert", "mobilebert", "modernbert", "mpnet",
    "nystromformer", "rembert", "roberta", "roberta-prelayernorm", "roformer", "squeezebert", "xlm-roberta",
    "xlm-roberta-xl",
}  # fmt: skip
"""``config.model_type`` of the text models whose tokenizer puts a class token first."""

SHUFFLED = {"vit_mae"}
"""Models that drop patches at random and keep the rest in shuffled order, so that no patch has a place."""

NOT_ARCHITECTURE = {"_name_or_path", "transformers_version"}
"""Keys of a configuration that say where weights lay and who wrote it."""

NORMS = (
    "layernorm", "norm", "post_layernorm", "final_layer_norm", "final_layernorm", "ln_f", "ln_post", "final_norm",
    "layer_norm",
)  # fmt: skip


class HuggingFaceAdapter(Adapter):
    """A ``PreTrainedModel`` with one stack of equal layers."""

    library = "transformers"

    def __init__(self, root: nn.Module, prefix: str = "") -> None:
        super().__init__(root, prefix)
        self.family = f"transformers/{type(self.part).__name__}"
        self.config: Any = getattr(self.part, "config", None)
        # A model for a task keeps its backbone under base_model_prefix; what a decoder or head adds is not its stream.
        backbone = getattr(self.part, getattr(self.part, "base_model_prefix", "") or "", self.part)
        stacks = list(self._stacks(backbone if isinstance(backbone, nn.Module) else self.part))
        self.refusal = self._refuse([name for name, _ in stacks])
        if len(stacks) == 1:
            self.named_blocks = children(self.dotted(stacks[0][0]), stacks[0][1])

    def _stacks(self, backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Yield the outermost lists of layers in ``backbone``, by their names in the part."""
        outer: list[str] = []
        inside = {id(module) for module in backbone.modules()}
        for name, module in self.part.named_modules():
            if id(module) not in inside or any(name.startswith(f"{other}.") for other in outer):
                continue
            layers = [child for _, child in children("", module)] if isinstance(module, CONTAINERS) else []
            if layers and all(map(self._is_layer, layers)):
                outer.append(name)
                yield name, module

    def _is_layer(self, module: nn.Module) -> bool:
        """Return whether the model names the module's class as what makes its hidden states."""
        module = getattr(module, "_orig_mod", module)
        classes = getattr(module, "stands_for", type(module)).__mro__
        record = (getattr(self.part, "_can_record_outputs", None) or {}).get("hidden_states")
        for wanted in record if isinstance(record, list | tuple) else [record]:
            target = getattr(wanted, "target_class", None) or getattr(wanted, "class_name", None) or wanted
            if target in classes or any(kind.__name__ == target for kind in classes):
                return True
        # In models without such a record, every layer of a stack is one that gradients may be checkpointed at.
        return any(kind.__name__ == "GradientCheckpointingLayer" for kind in classes)

    def _refuse(self, stacks: list[str]) -> Refusal | None:
        stages = getattr(self.config, "depths", None)
        if isinstance(stages, list | tuple) and len(stages) > 1:
            return Refusal(
                f"{self.family} is hierarchical: its {len(stages)} stages of {', '.join(map(str, stages))} blocks "
                "differ in the shape of their states, so they have no common space.",
                "Pass blocks=[…] with the blocks of one stage of equal shape, or use an isotropic model.",
            )
        if len(stacks) > 1:
            listed = " or ".join(f"blocks={self.dotted(name)!r}" for name in stacks)
            return Refusal(
                f"{self.family} holds {len(stacks)} stacks of blocks, each with a residual stream of its own.",
                f"Pass {listed} and inputs that its forward pass takes (for two towers, a dict with both pixel_values "
                "and input_ids), or record one tower by itself with its own inputs, such as record(model.vision_model, "
                "pixel_values).",
            )
        if not stacks:
            return Refusal(f"{self.family} keeps no list of transformer layers.", remedy(candidates(self.root)))
        return None

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
        takes = getattr(self.part, "main_input_name", "")
        if takes == "pixel_values":
            return self._image(call)
        return self._text(call) if takes == "input_ids" and call else None

    def _prefix_tokens(self) -> list[str]:
        named = (module for module in self.part.modules() if type(module).__name__.endswith("Embeddings"))
        embeddings = next(named, None)
        held = dict(embeddings.named_parameters(recurse=False)) if embeddings is not None else {}
        cls = [CLS] * held["cls_token"].shape[1] if "cls_token" in held else [CLS] * ("class_embedding" in held)
        dist = [DISTILLATION] * ("distillation_token" in held)
        return cls + dist + [REGISTER] * int(getattr(self.config, "num_register_tokens", None) or 0)

    def _image(self, call: Call | None) -> TokenLayout | None:
        images = call.tensor("pixel_values") if call else None
        if call and images is not None and images.ndim == 3:
            types = [*self._prefix_tokens(), *[PATCH] * images.shape[1]]
            return TokenLayout.padded(types, call.kwargs.get("pixel_attention_mask"))
        patch, size = square(getattr(self.config, "patch_size", None)), None
        if call is None:
            size = square(getattr(self.config, "image_size", None))
        elif images is not None and images.ndim == 4:
            size = images.shape[2], images.shape[3]
        if patch is None or size is None:
            return None
        grid = size[0] // patch[0], size[1] // patch[1]
        if self.config.model_type in SHUFFLED:
            kept = int(grid[0] * grid[1] * (1 - self.config.mask_ratio))
            return TokenLayout((*self._prefix_tokens(), *[PATCH] * kept))
        return TokenLayout.image(self._prefix_tokens(), grid)

    def _text(self, call: Call) -> TokenLayout | None:
        ids = call.tensor("input_ids")
        if ids is None or ids.ndim != 2:
            return None
        layout = TokenLayout.padded([TOKEN] * ids.shape[1], call.kwargs.get("attention_mask"))
        # The class token is one and the same id; where the first ids differ, the text was cut without it.
        same = bool((ids[:, 0] == ids[0, 0]).all())
        if self.config.model_type in FIRST_IS_CLS and same and layout.types[0] == TOKEN and 0 not in layout.ragged:
            return TokenLayout((CLS, *layout.types[1:]), ragged=layout.ragged)
        return layout

    def width(self) -> int | None:
        """Return ``config.hidden_size``."""
        width = getattr(self.config, "hidden_size", None)
        return width if isinstance(width, int) else None

    def final_norm(self) -> str | None:
        """Return the norm that lies beside the list of layers, or beside what holds it."""
        if not self.named_blocks:
            return None
        stack = self.named_blocks[0][0].removeprefix(f"{self.prefix}." if self.prefix else "").rsplit(".", 1)[0]
        while stack:
            stack = stack.rpartition(".")[0]
            found = self.first_norm(f"{stack}.{norm}" if stack else norm for norm in NORMS)
            if found:
                return found
        return None
