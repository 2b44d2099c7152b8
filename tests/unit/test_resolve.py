"""Models and images by name: the right model with its own preprocessing, or one line that says what to do."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import depthflow
from depthflow.errors import ModelError, ParameterError
from depthflow.sources import load_images, load_model

if TYPE_CHECKING:
    from pathlib import Path

TINY = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 24}
TINY_IMAGE = {**TINY, "image_size": 16, "patch_size": 8}

HUBCONF = """
from depthflow.models.vit import VisionTransformer, ViTSettings
from tests.threads import one_thread  # noqa: F401

def tiny(pretrained=True):
    return VisionTransformer(ViTSettings(image_size=224, patch_size=56, channels=3, depth=2))
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, five pictures; class b lies one folder deeper and a text file among them."""
    rng = np.random.default_rng(0)
    for name in ("b/deep/2.png", "b/1.PNG", "a/3.jpg", "a/10.png", "a/1.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 31, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "a" / "notes.txt").write_text("not a picture")
    return tmp_path / "photos"


@pytest.fixture
def vit_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(**TINY_IMAGE)).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_folder_is_read_in_sorted_order_with_labels(photos) -> None:
    found = load_images(photos, load_model("digits"), labels_from_folders=True, batch_size=2)
    assert found.names == ["a/1.png", "a/10.png", "a/3.jpg", "b/1.PNG", "b/deep/2.png"]
    assert found.labels == ["a", "a", "a", "b", "b"]
    assert [tuple(batch.shape) for batch in found.batches] == [(2, 1, 8, 8), (2, 1, 8, 8), (1, 1, 8, 8)]
    assert load_images(photos, load_model("digits")).labels is None


def test_greys_of_sixteen_bits_are_not_clipped(tmp_path) -> None:
    grey = np.linspace(0, 65535, 64).reshape(8, 8)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "sixteen.png")
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "wide.tiff")
    Image.fromarray(np.round(grey / 257).astype(np.uint8)).save(tmp_path / "eight.png")
    (found,) = load_images(tmp_path, load_model("digits")).batches
    assert torch.equal(found[1], found[0])
    assert torch.equal(found[2], found[0])
    assert 0.4 < float(found[0].mean()) < 0.6


def test_names_of_files_that_are_no_text_are_escaped(tmp_path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff \xc3\xa4.png")
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(path)
    assert load_images(tmp_path, load_model("digits")).names == ["\\xff ä.png"]


def test_digits_and_their_untrained_twin() -> None:
    trained, random = load_model("digits"), load_model("digits", random_weights=True, seed=3)
    found = load_images("digits", trained)
    assert found.labels == depthflow.datasets.digits("test").labels.tolist()
    assert len(found.names) == len(found.batches) == 360
    twin = depthflow.datasets.digits_vit(trained=False, seed=3)
    assert torch.equal(random.model.head.weight, twin.head.weight)
    assert not torch.equal(random.model.head.weight, trained.model.head.weight)


def test_timm_brings_its_data_configuration(photos) -> None:
    loaded = load_model("timm:test_vit", random_weights=True)
    found = load_images(photos, loaded, batch_size=5)
    traj = depthflow.record(loaded.model, found.batches, progress=False)
    assert dict(traj.sizes) == {"sample": 5, "depth": 7, "token": 101, "feature": 64}
    assert traj.attrs["model"] == "test_vit"
    assert '"mean": [' in traj.attrs["preprocessing"]


def test_seed_of_random_weights_leaves_the_global_one_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again = (load_model("timm:test_vit", random_weights=True, seed=7).model for _ in range(2))
    other = load_model("timm:test_vit", random_weights=True, seed=8).model
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.patch_embed.proj.weight, again.patch_embed.proj.weight)
    assert not torch.equal(first.patch_embed.proj.weight, other.patch_embed.proj.weight)


def test_hugging_face_folder_with_its_processor(photos, vit_folder) -> None:
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(vit_folder)
    loaded = load_model(f"hf:{vit_folder}")
    batch = next(iter(load_images(photos, loaded, batch_size=5).batches))
    assert batch.shape == (5, 3, 16, 16)
    assert -1 <= batch.min() < batch.max() <= 1
    traj = depthflow.record(loaded.model, batch, progress=False)
    assert traj.sizes["token"] == 5


def test_hugging_face_folder_without_a_processor(photos, vit_folder) -> None:
    with pytest.raises(ModelError, match=r"without an image processor.*Save the processor beside the weights"):
        load_images(photos, load_model(f"hf:{vit_folder}"))
    untrained = load_model(f"hf:{vit_folder}", random_weights=True)
    batch = next(iter(load_images(photos, untrained, batch_size=5).batches))
    assert batch.shape == (5, 3, 16, 16)
    assert -1 <= batch.min() < batch.max() <= 1


def test_of_two_towers_images_go_through_the_one_for_images(tmp_path, photos) -> None:
    text = {**TINY, "vocab_size": 99, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(text_config=text, vision_config=TINY_IMAGE)
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    loaded = load_model(f"hf:{tmp_path / 'clip'}", random_weights=True)
    traj = depthflow.record(loaded.model, load_images(photos, loaded).batches, progress=False)
    assert traj.token_type.values.tolist() == ["cls"] + ["patch"] * 4


def test_torchvision_brings_its_transforms(photos) -> None:
    loaded = load_model("torchvision:vit_b_32", random_weights=True)
    assert next(iter(load_images(photos, loaded, batch_size=2).batches)).shape == (2, 3, 224, 224)
    assert len(depthflow.inspect(loaded.model).blocks) == 12


def test_hub_takes_a_local_repository(tmp_path, photos) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "hubconf.py").write_text(HUBCONF)
    loaded = load_model(f"hub:{tmp_path / 'repository'}:tiny", random_weights=True)
    traj = depthflow.record(loaded.model, load_images(photos, loaded).batches, progress=False)
    assert dict(traj.sizes) == {"sample": 5, "depth": 3, "token": 17, "feature": 64}


def test_digits_are_pictures_for_other_models() -> None:
    loaded = load_model("timm:test_vit", random_weights=True)
    assert next(iter(load_images("digits", loaded, batch_size=2).batches)).shape == (2, 3, 160, 160)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit", r"'vit' names no model. Give one of: digits, timm:NAME, hf:NAME_OR_DIR"),
        ("keras:vit", r"'keras:vit' names no model"),
        ("timm:", r"'timm:' names no model"),
        ("timm:vit_smal_patch16_224", r"timm has no model 'vit_smal_patch16_224'. Did you mean vit_small_patch16_224"),
        ("torchvision:vit_b_17", r"torchvision has no model 'vit_b_17'. Did you mean vit_b_16"),
        ("torchvision:zzzzzz", r"torchvision has no model 'zzzzzz'\.$"),
        ("hub:dinov2", r"Give hub:REPO:NAME"),
        ("hf:/no/such/folder", r"hf:/no/such/folder could not be loaded"),
    ],
)
def test_models_that_are_not_there(name, message, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=message):
        load_model(name, random_weights=True)


def test_a_library_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r'timm is not installed.*pip install "depthflow-dynamics\[models\]"'):
        load_model("timm:vit_small_patch16_224")


def test_images_that_are_not_there(tmp_path, photos) -> None:
    digits = load_model("digits")
    with pytest.raises(ParameterError, match=r"nowhere is not a folder of images. Give a folder, or digits"):
        load_images("nowhere", digits)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParameterError, match=r"holds no images \(.bmp, .jpeg"):
        load_images(tmp_path / "empty", digits)
    (photos / "loose.png").write_bytes(b"broken")
    with pytest.raises(ParameterError, match=r"outside class sub-folders, first loose.png"):
        load_images(photos, digits, labels_from_folders=True)
    with pytest.raises(ParameterError, match=r"loose.png cannot be read as an image"):
        list(load_images(photos, digits).batches)
