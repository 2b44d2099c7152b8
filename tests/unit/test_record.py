"""What is kept of a recording, in which precision, with which labels, and what stops one."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import depthflow
from depthflow.errors import ParameterError, RecordError, UnsupportedModelError
from depthflow.models.vit import VisionTransformer, ViTSettings
from depthflow.recording import memory
from tests.stacks import Chain
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import EXACT, FLOAT32

SAMPLES, BLOCKS, TOKENS, WIDTH = 3, 5, 7, 12


@pytest.fixture
def model() -> VisionTransformer:
    torch.manual_seed(0)
    vit = VisionTransformer(ViTSettings(image_size=6, patch_size=2, width=WIDTH, depth=BLOCKS, heads=3))
    with torch.no_grad():
        vit.pos_embed.normal_()
    return vit.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def record(model: nn.Module, inputs: Any, **kwargs: Any) -> Any:
    return depthflow.record(model, inputs, progress=False, **kwargs)


class Add(nn.Module):
    """Adds a constant."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: Tensor) -> Tensor:
        return x + self.amount


# what is kept


def test_states_follow_depth_exactly() -> None:
    x = torch.randn(SAMPLES, TOKENS, WIDTH)
    traj = record(Chain(Add(1), Add(10), Add(100)), x)
    expected = np.stack([x + total for total in (0, 1, 11, 111)], axis=1)
    np.testing.assert_allclose(traj.values, expected, **FLOAT32)
    np.testing.assert_array_equal(traj.values[:, 0], x.numpy())
    assert traj.attrs["modules"] == ["blocks.0", "blocks.1", "blocks.2"]
    assert depthflow.updates(traj).module.values.tolist() == traj.attrs["modules"]


def test_depths_are_kept_in_order_with_their_numbers(model, images) -> None:
    whole = record(model, images)
    some = record(model, images, depths=[4, 0, 1])
    assert some.depth.values.tolist() == [0, 1, 4]
    np.testing.assert_array_equal(some.values, whole.sel(depth=[0, 1, 4]).values)


@pytest.mark.parametrize("tokens", ["cls", "patch", ["cls", "patch"], 3, [5, 0, -1], np.array([2])])
def test_tokens_are_those_of_select_tokens(model, images, tokens) -> None:
    whole = record(model, images)
    some = record(model, images, tokens=tokens)
    expected = depthflow.select_tokens(whole, tokens)
    np.testing.assert_array_equal(some.values, expected.values)
    for name in ("token", "token_type", "row", "col"):
        assert some[name].values.tolist() == expected[name].values.tolist()


def test_cls_and_mean(model, images) -> None:
    whole, two = record(model, images), record(model, images, tokens="cls+mean")
    assert two.token_type.values.tolist() == ["cls", "mean"]
    assert two.row.values.tolist() == [-1, -1]
    np.testing.assert_array_equal(two.values[:, :, 0], whole.values[:, :, 0])
    np.testing.assert_allclose(two.values[:, :, 1], whole.values[:, :, 1:].mean(axis=2), **FLOAT32)


def test_a_weight_tied_block_counts_each_time() -> None:
    block = Add(2)
    x = torch.zeros(SAMPLES, TOKENS, WIDTH)
    traj = record(Chain(*[block] * 4), x, blocks=[block])
    assert traj.depth.values.tolist() == [0, 1, 2, 3, 4]
    assert traj.values[0, :, 0, 0].tolist() == [0, 2, 4, 6, 8]
    kept = record(Chain(*[block] * 4), x, blocks=[block], depths=[0, 3])
    assert kept.values[0, :, 0, 0].tolist() == [0, 6]
    assert record(Chain(*[block] * 4), x).sizes["depth"] == 5


def test_a_state_that_a_hook_replaces_is_recorded_as_it_is_passed_on() -> None:
    model = Chain(Add(1), Add(10))
    model.blocks[0].register_forward_hook(lambda module, args, output: output * 3)
    traj = record(model, torch.ones(SAMPLES, TOKENS, WIDTH))
    assert traj.values[0, :, 0, 0].tolist() == [1, 6, 16]


def test_attributes_and_coords(model, images) -> None:
    traj = record(model, images, labels=["a", "b", "a"])
    assert traj.attrs["family"] == "torch/VisionTransformer"
    assert traj.attrs["final_norm_module"] == "norm"
    assert traj.attrs["versions"].startswith(f"depthflow {depthflow.__version__}, torch ")
    assert traj.label.values.tolist() == ["a", "b", "a"]
    assert (traj.name, traj.attrs["units"]) == ("state", "state unit")


# precision


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_precision_kept(model, images, dtype) -> None:
    traj = record(model, images, dtype=dtype)
    assert traj.dtype == dtype
    assert traj.attrs["dtype"] == dtype
    np.testing.assert_array_equal(traj.values, record(model, images).values.astype(dtype))


def test_bfloat16_model_gives_its_states_exactly(model, images) -> None:
    traj = record(model.to(torch.bfloat16), images)
    assert traj.dtype == "float32"
    assert np.array_equal(torch.from_numpy(traj.values.copy()).bfloat16().float().numpy(), traj.values)


def test_float64_model_takes_float32_images(model, images) -> None:
    assert record(model.double(), images, dtype="float64").dtype == "float64"


def test_float16_overflow_says_where() -> None:
    x = torch.zeros(SAMPLES, TOKENS, WIDTH)
    x[1, 2, 4] = 60000
    with pytest.raises(
        RecordError, match=r"exceeds 65504.* sample 1, depth 2 \(blocks.1\), token 2 \(token\).*float32"
    ):
        record(Chain(Add(1), Add(10000)), x, dtype="float16")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_says_where(value) -> None:
    class Break(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            x[x[:, 0, 0] == 4, 5, 3] = value
            return x

    x = torch.zeros(6, TOKENS, WIDTH)
    x[4, 0, 0] = 3
    with pytest.raises(
        RecordError, match=rf"{value}, first at sample 4, depth 2 \(blocks.1\), token 5 \(token\); 1 val"
    ):
        record(Chain(Add(1), Break()), x, batch_size=4)


def test_large_finite_states_are_no_error() -> None:
    x = torch.full((SAMPLES, TOKENS, WIDTH), 1e38)
    assert np.isfinite(record(Chain(Add(1), Add(1)), x).values).all()


# arguments


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dtype": "bfloat16"}, r"needs dtype as one of \['float16', 'float32', 'float64'\]; got 'bfloat16'"),
        ({"batch_size": 0}, r"needs batch_size as a whole number from 1; got 0"),
        ({"depths": [0, -1]}, r"needs depths as whole numbers from 0.*got \[0, -1\]"),
        ({"depths": [3]}, r"at least two different depths"),
        ({"depths": [1, 1, 2]}, r"none twice"),
        ({"depths": [0, 6]}, r"asked for depth 6, but the model has 5 blocks: 0 to 5"),
        ({"tokens": "reg"}, r"no token of type 'reg'; it has \['cls', 'patch'\]"),
        ({"tokens": "class"}, r"choose among 'all', 'cls\+mean' and"),
        ({"tokens": [10]}, r"there is no token 10: the states have 10 tokens, 0 to 9"),
        ({"tokens": []}, r"needs tokens as"),
        ({"tokens": [1.5]}, r"needs tokens as"),
        ({"labels": [1, 2]}, r"needs one label for each of 3 samples; got 2 labels"),
        ({"labels": [[1], [2], [3]]}, r"shape \(sample,\); got shape \(3, 1\)"),
        ({"device": "cuda:99"}, r"cannot use device='cuda:99'"),
        ({"device": "abacus"}, r"cannot use device='abacus'"),
    ],
)
def test_bad_arguments(model, images, kwargs, message) -> None:
    with pytest.raises(ParameterError, match=message):
        record(model, images, **kwargs)


def test_all_bad_arguments_are_said_at_once(model, images) -> None:
    with pytest.raises(ParameterError, match=r"2 faults.*\n.*dtype.*\n.*batch_size"):
        record(model, images, dtype="int8", batch_size=-1)


def test_a_type_that_the_model_lacks_is_said_before_it_runs(model) -> None:
    with pytest.raises(ParameterError, match=r"no token of type 'dist'"):
        record(model, iter(()), tokens="dist")


# what can go wrong while it runs


def test_wrong_channels_and_size_say_the_shape(model) -> None:
    with pytest.raises(
        RecordError, match=r"VisionTransformer failed on a batch of shape \(2, 3, 6, 6\): RuntimeError"
    ) as error:
        record(model, torch.randn(2, 3, 6, 6))
    assert isinstance(error.value.__cause__, RuntimeError)
    with pytest.raises(RecordError, match=r"shape \(2, 1, 8, 8\)"):
        record(model, torch.randn(2, 1, 8, 8))


def test_memory_is_checked_before_it_is_taken(model, images, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 9000)
    with pytest.raises(RecordError, match=r"3 × 6 × 10 × 12 states .*needs 8.64 kB .*9 kB are free.*store=.*tokens="):
        record(model, images)
    monkeypatch.setattr(memory, "available", lambda: 3000)
    with pytest.raises(RecordError, match=r"1 × 6 × 10 × 12 states"):
        record(model, iter(images.split(1)))
    assert record(model, iter(images.split(1)), tokens="cls+mean").sizes["token"] == 2


def test_available_memory_is_known_here() -> None:
    free = memory.available()
    assert free is None or free > 0


def test_no_hold_on_activations(model, images) -> None:
    record(model, images, tokens="cls")
    gc.collect()
    whole = [t for t in gc.get_objects() if type(t) is Tensor and t.shape == (SAMPLES, 10, WIDTH)]
    assert whole == []


def test_gradients_are_not_recorded_and_stay_enabled(model, images) -> None:
    record(model, images.requires_grad_())
    assert torch.is_grad_enabled()
    assert images.grad is None


def test_device_that_it_is_on_already(model, images) -> None:
    np.testing.assert_allclose(record(model, images, device="cpu").values, record(model, images).values, **EXACT)


@pytest.mark.parametrize("samples", [5, 7])
def test_tokens_before_samples_are_refused_also_where_there_are_as_many(samples) -> None:
    layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=False) for _ in range(2))

    class TokensFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = layers

        def forward(self, x):
            x = x.transpose(0, 1)
            for block in self.blocks:
                x = block(x)
            return x

    with pytest.raises(UnsupportedModelError, match=r"reads as \(token, sample, feature\)"):
        depthflow.record(TokensFirst(), torch.randn(samples, 7, 8), progress=False)
    as_many = depthflow.record(Chain(torch.tanh), torch.randn(7, 7, 8), progress=False)
    assert as_many.sizes["sample"] == 7


class Normed(nn.Module):
    """Blocks with a norm between them that belongs to none."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.norm(block(x))
        return x


def test_blocks_that_are_not_given_what_the_one_before_returned() -> None:
    model, x = Normed(), torch.randn(4, 5, 8)
    with pytest.raises(
        UnsupportedModelError, match=r"blocks.1 is not given what blocks.0 returned: .* pass blocks='blocks'"
    ):
        depthflow.record(model, x, progress=False)
    assert not depthflow.inspect(model, x).supported
    traj = depthflow.record(model, x, blocks="blocks", progress=False)
    np.testing.assert_array_equal(traj.isel(depth=1).values, model.blocks[0](x).detach().numpy())


def test_a_hook_that_steers_a_block_is_part_of_it(model, images) -> None:
    plain = record(model, images)
    handle = model.blocks[2].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    steered = record(model, images)
    handle.remove()
    assert np.array_equal(steered.isel(depth=2), plain.isel(depth=2))
    assert not np.allclose(steered.isel(depth=3), plain.isel(depth=3))
