"""A recipe builds the same model, bit for bit, in any process; where it would not, there is none."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionViT

from depthflow.errors import ModelError
from depthflow.models import rebuild
from depthflow.models.base import Adapter, Call
from depthflow.models.detect import adapt
from depthflow.models.rebuild import build, rebuildable
from depthflow.models.vit import VisionTransformer, ViTSettings
from tests.adapters.families import (
    CASES,
    DEPTH,
    HEADS,
    HF,
    HF_IMAGE,
    PATCH,
    SIDE,
    VOCABULARY,
    WIDTH,
    Case,
    Classifier,
    hf,
    images,
    text,
    timm_model,
    timm_wrapper,
)
from tests.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

NAMED = {case.name: case for case in CASES}
FAMILIES = [
    "timm ViT, 4 registers, no cls", "timm BeiT", "timm XCiT", "hf ViT", "hf Dinov2WithRegisters", "hf DINOv3ViT",
    "hf BERT", "hf GPT-2", "torchvision ViT", "bundled ViT",
]  # fmt: skip
SMALL = (SIDE, PATCH, 2, HEADS, WIDTH, 2 * WIDTH)
"""The first arguments of torchvision's class."""

TIMM = {"library": "timm", "model": "vit_tiny_patch16_224", "arguments": {"depth": 1, "embed_dim": 24, "num_heads": 3}}
TRANSFORMERS = {"library": "transformers", "model": "ViTModel", "config": HF_IMAGE, "arguments": {}, "attention": None}
BUNDLED = {"library": "depthflow", "model": "VisionTransformer", "arguments": {"depth": 2, "width": 8}}

vit = timm_model("vit_tiny_patch16_224", depth=2)


def called(batch: Any) -> Call:
    return Call((), batch) if isinstance(batch, dict) else Call((batch,))


def tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


def outputs(model: nn.Module, batch: Any) -> list[Tensor]:
    call = called(batch)
    with torch.no_grad():
        return tensors(model(*call.args, **call.kwargs))


def require_the_same(model: nn.Module, batch: Any) -> nn.Module:
    """Rebuild ``model`` through JSON, compare the two by means that share nothing with the library's, return it."""
    recipe = rebuildable(adapt(model), called(batch))
    assert recipe is not None
    twin = build(json.loads(json.dumps(recipe, allow_nan=False)))
    assert type(twin) is type(model)
    assert not any(module.training for module in twin.modules())
    assert {name: value.dtype for name, value in twin.state_dict().items()} == {
        name: value.dtype for name, value in model.state_dict().items()
    }
    twin.load_state_dict(model.state_dict())
    expected, got = outputs(model.eval(), batch), outputs(twin, batch)
    assert expected
    assert len(got) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    assert not torch.equal(expected[0][0], expected[0][1]), "an output that is the same for all samples shows nothing"
    return twin


def refused(model: nn.Module, batch: Any = None) -> bool:
    return rebuildable(adapt(model), called(images() if batch is None else batch)) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_built_again_bit_for_bit(name: str) -> None:
    case: Case = NAMED[name]
    require_the_same(case.model(), case.batch())


def test_timm_at_another_image_size_and_number_of_classes() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=64, depth=2)
    twin = require_the_same(model, torch.randn(2, 3, 64, 64))
    assert outputs(twin, torch.randn(2, 3, 64, 64))[0].shape == (2, 7)


def test_timm_with_rotary_positions() -> None:
    require_the_same(timm.create_model("eva02_tiny_patch14_224", img_size=28, depth=2), torch.randn(2, 3, 28, 28))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.reset_classifier(5),
        lambda model: model.reset_classifier(0, ""),
        lambda model: model.set_input_size(img_size=48),
        lambda model: delattr(model, "_model_args"),
    ],
    ids=["classes", "no pooling", "image size", "a version that keeps no arguments"],
)
def test_what_was_changed_after_timm_built_it_is_seen(change: Callable[[Any], None]) -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=4)
    change(model)
    side = model.patch_embed.img_size[0]
    require_the_same(model, torch.randn(2, 3, side, side))


def test_arguments_of_timm_that_json_can_hold_are_kept() -> None:
    model = timm_model("vit_tiny_patch16_224", act_layer="relu", in_chans=1, drop_path_rate=0.3)()
    twin = require_the_same(model, images()[:, :1])
    assert twin.blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)


def test_argument_that_json_cannot_hold_is_left_to_the_comparison() -> None:
    usual = timm_model("vit_tiny_patch16_224", depth=2, act_layer=nn.GELU)()
    assert "act_layer" not in adapt(usual).recipe()["arguments"]
    require_the_same(usual, images())


def test_preprocessing_is_kept() -> None:
    overlay = {"mean": (0.1, 0.2, 0.3), "crop_pct": 0.7}
    model = timm_model("vit_tiny_patch16_224", pretrained_cfg_overlay=overlay)()
    twin = require_the_same(model, images())
    assert adapt(twin).preprocessing() == adapt(model).preprocessing()
    assert adapt(twin).preprocessing()["mean"] == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision(dtype: torch.dtype) -> None:
    model = timm.create_model("eva02_tiny_patch14_224", img_size=28, depth=2).to(dtype)
    require_the_same(model, torch.randn(2, 3, 28, 28).to(dtype))


def llama(**more: Any) -> nn.Module:
    config = transformers.LlamaConfig(**HF, **VOCABULARY, num_key_value_heads=1, **more)
    return transformers.LlamaModel._from_config(config)


def test_buffers_beside_the_weights_keep_their_own_precision() -> None:
    ids = text()["input_ids"]
    loaded = require_the_same(llama(dtype="bfloat16"), ids)
    assert loaded.rotary_emb.inv_freq.dtype == torch.float32
    cast = require_the_same(llama().to(torch.bfloat16), ids)
    assert cast.rotary_emb.inv_freq.dtype == torch.bfloat16


def test_transformers_without_a_pooler_with_a_head_and_with_eager_attention() -> None:
    config = transformers.ViTConfig(**HF_IMAGE, attn_implementation="eager", id2label={0: "a", 1: "b", 2: "c"})
    bare = require_the_same(transformers.ViTModel(config, add_pooling_layer=False), images())
    assert bare.config._attn_implementation == "eager"
    assert bare.pooler is None
    classifier = require_the_same(transformers.ViTForImageClassification(config), images())
    assert classifier.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_folder_of_the_weights_is_not_told() -> None:
    model = hf("ViT")()
    model.config._name_or_path = "/home/someone/weights"
    assert "someone" not in json.dumps(rebuildable(adapt(model), called(images())))


def test_torchvision_with_a_head_put_in_its_place() -> None:
    model = TorchvisionViT(*SMALL, representation_size=5)
    model.heads.head = nn.Linear(5, 7)
    assert outputs(require_the_same(model, images()), images())[0].shape[1] == 7


def test_which_blocks_are_looked_at_changes_nothing() -> None:
    model, call = vit(), called(images())
    recipe = rebuildable(adapt(model, "blocks"), call)
    assert recipe == rebuildable(adapt(model), call)
    assert recipe is not None


def test_model_that_draws_random_numbers_is_compared_on_the_same_ones() -> None:
    model = hf("ViTMAE", mask_ratio=0.75)()
    assert rebuildable(adapt(model), called(images())) is not None


class Own(transformers.ViTModel):
    """A user's class, which no other process knows."""


class Kept(nn.Linear):
    """A layer that keeps more than tensors in its state."""

    def get_extra_state(self) -> Any:
        return {"note": "mine"}

    def set_extra_state(self, state: Any) -> None:
        pass


def with_layer(layer: nn.Module) -> nn.Module:
    model = vit()
    model.head = layer
    return model


def of_a_class_of_the_same_name() -> nn.Module:
    model = vit()
    model.__class__ = type("VisionTransformer", (timm.models.VisionTransformer,), {})
    return model


def with_attribute(name: str, attribute: str, value: Any) -> nn.Module:
    model = vit()
    setattr(model.get_submodule(name), attribute, value)
    return model


@pytest.mark.parametrize(
    "model",
    [
        lambda: Classifier(),
        lambda: NAMED["hub DINOv2 in chunks"].model(),
        lambda: NAMED["plain, dotted path"].model(),
        lambda: Own(transformers.ViTConfig(**HF_IMAGE)),
        of_a_class_of_the_same_name,
        lambda: timm_wrapper(),
        lambda: with_layer(nn.Sequential(nn.Linear(WIDTH, 10))),
        lambda: with_layer(Kept(WIDTH, 10)),
        lambda: with_layer(nn.Linear(WIDTH, 10).double()),
        lambda: with_attribute("norm", "eps", 1e-3),
        lambda: with_attribute("blocks.1.mlp", "act", nn.ReLU()),
        lambda: timm_model("vit_tiny_patch16_224", depth=2, act_layer=nn.ReLU)(),
        lambda: timm_model("vit_tiny_patch16_224", depth=2, norm_layer=partial(nn.LayerNorm, eps=1e-2))(),
        lambda: timm.models.VisionTransformer(SIDE, PATCH, embed_dim=WIDTH, depth=2, num_heads=HEADS),
        lambda: TorchvisionViT(*SMALL, norm_layer=partial(nn.LayerNorm, eps=1e-2)),
        lambda: vit().to("meta"),
    ],
    ids=[
        "inside a user's module", "hub", "nobody's family", "a user's class", "a class of the same name",
        "timm in transformers", "another head", "more than tensors", "another precision", "epsilon changed",
        "activation changed", "activation as a class", "epsilon in a function", "no name", "head of zeros",
        "no weights",
    ],
)  # fmt: skip
def test_what_a_recipe_does_not_hold_is_refused(model: Callable[[], nn.Module]) -> None:
    assert refused(model())


def test_configuration_that_json_cannot_hold_is_refused() -> None:
    model = hf("ViT")()
    assert not refused(model)
    model.config.note = float("inf")
    assert refused(model)


@pytest.mark.parametrize("part", [vit, hf("ViT"), lambda: TorchvisionViT(*SMALL)], ids=["timm", "hf", "torchvision"])
def test_there_is_no_recipe_of_a_module_around_a_known_part(part: Callable[[], nn.Module]) -> None:
    assert adapt(part()).recipe() is not None
    assert adapt(nn.Sequential(part())).recipe() is None


def test_there_is_no_recipe_without_a_family_or_of_a_users_class() -> None:
    assert Adapter(nn.Linear(2, 2)).recipe() is None
    assert adapt(Own(transformers.ViTConfig(**HF_IMAGE))).recipe() is None


def test_entry_point_of_the_user_is_refused() -> None:
    """Another process would not know it, though this one can build it."""

    @timm.models.register_model
    def someones_vit(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        sizes = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS}
        kwargs.pop("cache_dir", None)
        return timm.models.build_model_with_cfg(
            timm.models.VisionTransformer, "someones_vit", pretrained, **{**sizes, **kwargs}
        )

    model = timm.create_model("someones_vit")
    assert adapt(model).recipe()["model"] == "someones_vit"
    assert refused(model)


def test_twin_that_cannot_take_the_inputs_is_not_the_same() -> None:
    model = timm_model("vit_tiny_patch16_224", depth=2, pos_embed="none")()
    assert not refused(model)
    model.patch_embed.strict_img_size = False
    assert refused(model, torch.randn(2, 3, 2 * SIDE, SIDE))


def test_memory_that_runs_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model, twin = VisionTransformer(), VisionTransformer()

    def forward(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    twin.forward = forward
    monkeypatch.setattr(rebuild, "build", lambda recipe: twin)
    with pytest.raises(torch.OutOfMemoryError):
        refused(model, torch.rand(2, 1, 8, 8))


def note_gradients(function: Callable[..., Any], noted: list[bool]) -> Callable[..., Any]:
    """Return ``function``, noting whether gradients are kept whenever it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        noted.append(torch.is_grad_enabled())
        return function(*args, **kwargs)

    return call


def test_model_is_left_as_it_was() -> None:
    model = timm_model("vit_tiny_patch16_224", depth=2, drop_rate=0.5, drop_path_rate=0.5)().train()
    model.norm.training = False
    model.blocks[0].requires_grad_(False)
    sum(tensor.sum() for tensor in model(images())).backward()
    before, drawn = Snapshot(model), torch.random.get_rng_state()
    x = torch.zeros(2, 3, SIDE, SIDE)
    assert not refused(model, x)
    before.require(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "forward_head", note_gradients(model.forward_head, noted := []))
        assert not refused(model, x)
    assert noted == [False]
    with pytest.raises(RuntimeError, match="to have 3 channels"):
        refused(model, x[:, :2])
    before.require(model)
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_model_compiled_in_place_is_compared_as_written() -> None:
    model, compiled = vit(), []

    def backend(graph: Any, example: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model.compile(backend=backend)
    assert not refused(model)
    assert not compiled


@pytest.mark.parametrize("recipe", [TIMM, TRANSFORMERS, BUNDLED], ids=lambda recipe: recipe["library"])
def test_what_is_built_depends_on_nothing_around_it_and_changes_nothing(recipe: dict[str, Any]) -> None:
    plain = build(recipe)
    torch.manual_seed(3)
    drawn = torch.random.get_rng_state()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            other = build(recipe)
            assert torch.get_default_dtype() == torch.float64
            assert torch.empty(1).is_meta
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    for one, two in zip([*plain.parameters(), *plain.buffers()], [*other.parameters(), *other.buffers()], strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)


@pytest.mark.parametrize("recipe", [TIMM, TRANSFORMERS, BUNDLED], ids=lambda recipe: recipe["library"])
def test_no_random_numbers_are_drawn_for_weights_that_will_be_loaded(recipe: dict[str, Any]) -> None:
    matrices = [parameter for parameter in build(recipe).parameters() if parameter.ndim == 2]
    assert matrices
    assert not any(matrix.any() for matrix in matrices)


def test_buffer_that_is_drawn_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not persistent it is in no file, so that what the process draws is what the model computes with."""

    class Projection(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(3).normal_())
            self.register_buffer("directions", torch.empty(5).normal_(), persistent=False)

    monkeypatch.setitem(rebuild.BUILDERS, "depthflow", lambda library, recipe: Projection())
    first = build(BUNDLED).directions
    torch.manual_seed(11)
    assert torch.equal(build(BUNDLED).directions, first)
    assert first.unique().numel() == 5


def test_random_state_survives_an_error() -> None:
    drawn = torch.random.get_rng_state()
    with pytest.raises(ModelError):
        build({**BUNDLED, "arguments": {"width": "wide"}})
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"library": "elsewhere"},
            r"names its library, one of timm, transformers, torchvision, depthflow; got 'elsewh",
        ),
        ({"library": ["timm"]}, r"got \['timm'\]\. It was made by another version .* hand over the model itself"),
        ("vit_tiny_patch16_224", r"got None"),
        ({**TIMM, "model": "vit_tiny_patch16_9"}, r"timm 1\S+ has no model 'vit_tiny_patch16_9' of its own to build"),
        ({**TIMM, "model": "hf-hub:someone/model"}, r"has no model 'hf-hub:someone/model' of its own"),
        ({**TIMM, "arguments": {"checkpoint_path": "x.pth"}}, r"loads nothing; it holds checkpoint_path\."),
        ({**TIMM, "arguments": {"pretrained": True, "cache_dir": "x"}}, r"it holds cache_dir, pretrained\."),
        (
            {**TIMM, "arguments": {"wings": 2}, "version": "0.9"},
            r"timm 1\S+ cannot build 'vit_tiny_patch16_224', from a recipe made with 0\.9: TypeError: .*'wings'.*"
            r"Install the version that the recipe was made with, or hand over the model itself",
        ),
        ({"library": "timm"}, r"timm 1\S+ cannot build None: KeyError: 'model'"),
        ({**TIMM, "dtype": "int8"}, r"cannot build 'vit_tiny_patch16_224': TypeError: .*floating point"),
        ({**TIMM, "dtype": "float7"}, r"cannot build 'vit_tiny_patch16_224': AttributeError: .*'float7'"),
        ({**TRANSFORMERS, "model": "ViTaminModel"}, r"transformers 5\S+ has no model 'ViTaminModel' of its own"),
        ({**TRANSFORMERS, "model": "AutoModel"}, r"has no model 'AutoModel' of its own"),
        ({**TRANSFORMERS, "model": "TimmWrapperModel"}, r"has no model 'TimmWrapperModel' of its own"),
        ({**TRANSFORMERS, "attention": "someone/kernel"}, r"fetches no code; its attention 'someone/kernel'"),
        ({**TRANSFORMERS, "attention": "fast"}, r"transformers 5\S+ cannot build 'ViTModel': ValueError"),
        (
            {"library": "torchvision", "model": "VisionTransformer", "arguments": {"wings": 2}},
            r"torchvision 0\S+ cannot build 'VisionTransformer': TypeError: .*'wings'",
        ),
        ({**BUNDLED, "arguments": {"wings": 2}}, r"depthflow \S+ cannot build 'VisionTransformer': TypeError"),
    ],
)
def test_recipe_that_cannot_be_built_says_why(recipe: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        build(recipe)


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r'timm is not installed.*pip install "depthflow-dynamics\[models\]"'):
        build(TIMM)


def test_settings_of_the_bundled_model_are_its_recipe() -> None:
    model = VisionTransformer(ViTSettings(SIDE, PATCH, 3, WIDTH, DEPTH, HEADS, stochastic_depth=0.4))
    twin = require_the_same(model, images())
    assert twin.settings == model.settings
