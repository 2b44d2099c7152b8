"""One hash for the same weights, wherever they lie, and another for others."""

from __future__ import annotations

import hashlib
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from depthflow.errors import ModelError
from depthflow.models.fingerprint import fingerprint
from depthflow.models.placement import Weights
from tests.stacks import vit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def by_hand(tensors: dict[str, Tensor]) -> str:
    """Return the hash by its definition, of float32 tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} torch.float32 {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def test_it_is_what_files_hold() -> None:
    assert fingerprint({"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(1.5)}) == (
        "43fe0c61c4c8e4d4c9f99daef5f07571"
    )
    assert fingerprint({"size": (3, 4), "name": "x", "none": None}) == "0a9abf03f25337faccaadf6f39075dcb"


def test_it_is_blake2b_of_names_types_shapes_and_values() -> None:
    state = vit().state_dict()
    assert fingerprint(state) == fingerprint(dict(reversed(state.items()))) == by_hand(state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8, torch.bool])
def test_every_type_of_number(dtype: torch.dtype) -> None:
    values = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
    other = values.clone()
    other[1, 2] = 0
    hashes = {fingerprint({"x": tensor}) for tensor in (values, other, values.double(), values.reshape(3, 2))}
    assert len(hashes) == 4
    assert fingerprint({"x": values.T.contiguous().T}) == fingerprint({"x": values})


def test_views_are_hashed_by_their_values() -> None:
    values = torch.randn(4, dtype=torch.complex64)
    assert fingerprint({"x": values.conj()}) == fingerprint({"x": values.conj().resolve_conj().clone()})
    assert fingerprint({"x": values.conj()}) != fingerprint({"x": values})
    assert fingerprint({"x": torch.zeros(0, 3)}) != fingerprint({"x": torch.zeros(3, 0)})


@pytest.mark.parametrize("wrap", [lambda x: (x, None), lambda x: [1, x], lambda x: {"inner": {"x": x}}])
def test_tensors_in_lists_and_mappings_are_hashed_whole(wrap: Callable[[Tensor], Any]) -> None:
    values = torch.zeros(2000)  # of more than 1000 numbers, their text shows the first and last three
    other = values.clone()
    other[700] = 1
    assert fingerprint({"x": wrap(values)}) == fingerprint({"x": wrap(values.clone())})
    assert fingerprint({"x": wrap(values)}) != fingerprint({"x": wrap(other)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("axis", [None, 0])
def test_quantised_tensors_differ_by_their_scales_too(axis: int | None) -> None:
    integers = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    def quantised(scale: float) -> Tensor:
        if axis is None:
            return torch.quantize_per_tensor(scale * integers, scale, 0, torch.qint8)
        scales, zeros = torch.full((2,), scale), torch.zeros(2, dtype=torch.int64)
        return torch.quantize_per_channel(scale * integers, scales, zeros, axis, torch.qint8)

    assert torch.equal(quantised(0.5).int_repr(), quantised(0.25).int_repr())
    assert fingerprint({"x": quantised(0.5)}) == fingerprint({"x": quantised(0.5)})
    assert fingerprint({"x": quantised(0.5)}) != fingerprint({"x": quantised(0.25)})


def test_what_has_no_dense_values_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"cannot read the values of 'x', a Tensor of torch.sparse_coo on cpu.*dense"):
        fingerprint({"x": torch.eye(3).to_sparse()})
    with pytest.raises(ModelError, match=r"cannot read the values of 'x', a Tensor of torch.strided on meta"):
        fingerprint({"x": torch.zeros(3, device="meta")})


# weights that are away


def language_model() -> nn.Module:
    """Return a model of which two tensors are one: its token embedding and its head."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=12, n_layer=2, n_head=3, n_positions=16, vocab_size=20)).eval()


def blocks_on_disk(model: nn.Module, folder: Path) -> nn.Module:
    def places(module: nn.Module, prefix: str = "") -> dict[str, str]:
        found = {prefix + name: "cpu" for name, _ in module.named_parameters(recurse=False)}
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList):
                found[prefix + name] = "disk"
            elif any(isinstance(inner, nn.ModuleList) for inner in child.modules()):
                found |= places(child, f"{prefix}{name}.")
            else:
                found[prefix + name] = "cpu"
        return found

    return dispatch_model(model, places(model), main_device="cpu", offload_dir=folder)


AWAY = {
    "memory": lambda model, folder: cpu_offload(model, execution_device="cpu"),
    "disk": lambda model, folder: disk_offload(model, folder, execution_device="cpu"),
    "disk, buffers too": lambda model, folder: disk_offload(
        model, folder, execution_device="cpu", offload_buffers=True
    ),
    "blocks on disk": blocks_on_disk,
}


@pytest.mark.filterwarnings("ignore:The following device_map keys")
@pytest.mark.parametrize("build", [vit, language_model])
@pytest.mark.parametrize("way", AWAY)
def test_offloaded_weights_have_the_hash_of_those_in_memory(build: Any, way: str, tmp_path: Path) -> None:
    expected = fingerprint(build().state_dict())
    model = build()
    AWAY[way](model, tmp_path)
    assert any(tensor.is_meta for tensor in model.state_dict().values())
    assert fingerprint(Weights(model)) == expected
    assert any(tensor.is_meta for tensor in model.state_dict().values()), "it must be read, not brought in"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_offloaded_weights_keep_their_type(dtype: torch.dtype, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)).requires_grad_(False).to(dtype)
    expected = fingerprint(model.state_dict())
    disk_offload(model, tmp_path, execution_device="cpu")
    assert fingerprint(Weights(model)) == expected


def test_one_offloaded_tensor_is_read_at_a_time(tmp_path: Path) -> None:
    model = vit()
    disk_offload(model, tmp_path, execution_device="cpu")
    weights, read = Weights(model), []
    for name, value in weights.items():
        assert not any(reference() is not None for reference in read), "the one before must be gone"
        assert value.shape == model.state_dict()[name].shape
        read.append(weakref.ref(value))
        del value
    assert len(read) == len(weights) == len(vit().state_dict())


def test_weights_in_memory_are_the_state_dict_itself() -> None:
    model = vit()
    weights = Weights(model)
    assert all(weights[name].data_ptr() == tensor.data_ptr() for name, tensor in model.state_dict().items())


def test_compiled_parts_have_the_names_of_those_they_were_made_from() -> None:
    model, expected = vit(), fingerprint(vit().state_dict())
    for number, block in enumerate(model.blocks):
        model.blocks[number] = torch.compile(block, backend="eager")
    assert any("_orig_mod" in name for name in model.state_dict())
    assert fingerprint(Weights(model)) == expected == fingerprint(Weights(torch.compile(model, backend="eager")))


def test_values_that_are_nowhere_are_an_error() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(ModelError, match=r"the values of '0.weight' are nowhere.*'meta'.*Load the weights first"):
        Weights(model)["0.weight"]
    with pytest.raises(ModelError, match=r"are nowhere"):
        fingerprint(Weights(model))
