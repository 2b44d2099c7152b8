"""The public call `jacobian`: what comes back, what it does not depend on, what it refuses, what it leaves behind."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor, nn

import depthflow
from depthflow.errors import ParameterError, RecordError
from depthflow.models.vit import VisionTransformer, ViTSettings
from depthflow.recording import memory
from depthflow.recording.singular import leading
from tests.snapshot import Snapshot
from tests.stacks import Chain
from tests.tolerances import FLOAT64, ITERATIVE

N = 5


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(ViTSettings(width=24, depth=3, heads=3))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(depthflow.datasets.digits("test").images[:N])


def take(model: nn.Module, inputs: Any, **options: Any) -> Any:
    return depthflow.jacobian(model, inputs, **{"n_modes": 3, "progress": False, **options})


def test_dims_coords_units_and_attributes(model: nn.Module, images: Tensor) -> None:
    labels = np.arange(N) % 2
    found = take(model, images, labels=labels, vectors=True)
    assert found.singular_value.dims == found.residual.dims == found.exponent.dims == ("sample", "span", "mode")
    assert found.rms_gain.dims == found.rms_gain_error.dims == found.converged.dims == ("sample", "span")
    assert found.nonnormality.dims == found.symmetry.dims == ("sample", "span")
    assert found.eigenvalue.dims == ("sample", "span", "eigenmode")
    assert found.right.dims == found.left.dims == ("sample", "span", "mode", "token", "feature")
    assert found.sizes == {"sample": N, "span": 3, "mode": 3, "eigenmode": 24, "token": 1, "feature": 24}
    assert found.token_type.values.tolist() == ["cls"]
    assert found.mode.values.tolist() == [1, 2, 3]
    assert found.start.values.tolist() == [0, 1, 2]
    assert found.stop.values.tolist() == found.span.values.tolist() == [1, 2, 3]
    assert_array_equal(found.label, labels)
    assert {name: found[name].attrs["units"] for name in found} == {
        name: "1/block" if name == "exponent" else "1" for name in found
    }
    assert found.singular_value.attrs["long_name"] == "singular value of the Jacobian"
    assert found.attrs["directional"] == 1
    assert found.attrs["dense"] == 1
    sparse = take(model, images, dense=False)
    assert not {"eigenvalue", "nonnormality", "symmetry"} & set(sparse.variables)
    assert "token" not in sparse.dims


def test_it_can_be_written_and_read_again(model: nn.Module, images: Tensor, tmp_path: Any) -> None:
    import xarray as xr

    found = take(model, images, vectors=True)
    found.to_zarr(tmp_path / "jacobian.zarr", zarr_format=3, consolidated=False)
    again = xr.open_zarr(tmp_path / "jacobian.zarr", consolidated=False)
    xr.testing.assert_identical(found, again.load())


@pytest.mark.parametrize("dense", [True, False])
def test_batches_do_not_matter(model: nn.Module, images: Tensor, dense: bool) -> None:
    whole = take(model, images, dense=dense, batch_size=N)
    for other in (
        take(model, images, dense=dense, batch_size=2),
        take(model, iter([images[:1], images[1:]]), dense=dense),
    ):
        assert_allclose(other.singular_value, whole.singular_value, **ITERATIVE)
        assert_allclose(other.rms_gain, whole.rms_gain, **ITERATIVE)


def test_the_seed_is_all_that_chance_is(model: nn.Module, images: Tensor) -> None:
    options = {"dense": False, "n_modes": 0, "tokens": "all"}
    first, again, other = (take(model, images, seed=seed, **options) for seed in (1, 1, 2))
    assert_array_equal(first.rms_gain, again.rms_gain)
    assert not np.array_equal(first.rms_gain, other.rms_gain)
    assert first.sizes["mode"] == 0


def test_small_maps_are_formed_and_large_ones_are_not(model: nn.Module, images: Tensor) -> None:
    assert "eigenvalue" in take(model, images)
    assert "eigenvalue" not in take(model, images[:1], tokens="patch", span=(0, 1))


def test_copies_that_do_not_divide_the_dimension_give_every_row_once(
    model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = take(model, images[:2], span=(0, 2))
    monkeypatch.setattr("depthflow.recording.linearize.STATE_ELEMENTS", 7 * 2 * 17 * 24)
    assert_allclose(take(model, images[:2], span=(0, 2)).eigenvalue, whole.eigenvalue, **ITERATIVE)


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt(), ValueError("broken")])
def test_the_model_and_torch_are_left_as_they_were(images: Tensor, failure: BaseException | None) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(ViTSettings(width=24, depth=3, heads=3)).train()
    model.norm.weight.requires_grad_(False)
    before, calls = Snapshot(model), []

    def stop(module: nn.Module, args: Any) -> None:
        calls.append(1)
        if failure is not None and len(calls) > 3:
            raise failure

    handle = model.blocks[1].register_forward_pre_hook(stop)
    if failure is None:
        take(model, images, dense=False)
    else:
        with pytest.raises(type(failure)):
            take(model, images, dense=False, span="cumulative")
    handle.remove()
    before.require(model)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_attention_of_transformers_own_kernels_is_written_out_and_restored() -> None:
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, image_size=16, patch_size=8
    )
    torch.manual_seed(0)
    model = transformers.ViTModel(config).eval()
    pixels = {"pixel_values": torch.randn(2, 3, 16, 16)}
    expected = take(model, pixels)
    model.set_attn_implementation("flex_attention")
    seen = []
    handle = model.register_forward_pre_hook(lambda *_: seen.append(model.config._attn_implementation))
    found = take(model, pixels)
    handle.remove()
    assert set(seen) == {"eager"}
    assert model.config._attn_implementation == "flex_attention"
    assert_allclose(found.singular_value, expected.singular_value, **ITERATIVE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"span": (2, 1)}, "a span that runs forwards, from a depth to a deeper one; got \\(2, 1\\)"),
        ({"span": (1, 1)}, "runs forwards"),
        ({"span": "block"}, "needs span as 'blocks', 'cumulative' or two depths such as \\(0, 12\\); got 'block'"),
        ({"span": (0, 1.5)}, "needs span as"),
        ({"span": (0, 4)}, "asked for depth 4, but the model has 3 blocks: 0 to 3"),
        ({"span": (-1, 2)}, "asked for depth -1"),
        ({"tokens": "reg"}, "no token of type 'reg'; it has \\['cls', 'patch'\\]"),
        ({"tokens": 17}, "there is no token 17: the states have 17 tokens, 0 to 16"),
        ({"tokens": "cls+mean"}, "jacobian takes tokens as a type, types or indices; got 'cls\\+mean'"),
        ({"tokens": [3, 3]}, r"jacobian needs tokens= without repetition; got the positions \[3, 3\]"),
        ({"n_modes": 25}, "25 modes, but these tokens' map has 23 dimensions"),
        ({"n_modes": -1}, "n_modes as a whole number from 0; got -1"),
        ({"rtol": 0.0}, "rtol between 0 and 1; got 0.0"),
        ({"rtol": "small"}, "rtol between 0 and 1; got 'small'"),
        ({"seed": -1}, "seed as a whole number from 0; got -1"),
        ({"n_probes": 1}, "n_probes as a whole number from 2"),
        ({"max_iter": 0}, "max_iter as a whole number from 1; got 0"),
        ({"batch_size": 0}, "batch_size as a whole number from 1; got 0"),
        ({"labels": [1, 2]}, "one label for each of 5 samples; got 2"),
    ],
)
def test_arguments_that_cannot_be(model: nn.Module, images: Tensor, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        take(model, images, **options)


def test_all_faults_at_once(model: nn.Module, images: Tensor) -> None:
    with pytest.raises(ParameterError, match=r"2 faults(.|\n)*span(.|\n)*rtol"):
        take(model, images, span=(3, 1), rtol=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(model: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    with pytest.raises(
        RecordError, match=r"jacobian needs a model in float32 or float64(.|\n)*deepcopy\(model\).float"
    ):
        take(copy.deepcopy(model).to(dtype), images)


def test_a_joint_state_too_large_to_form(model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    with pytest.raises(RecordError, match=r"dense Jacobian of 384 dimensions for 2 samples needs .* Leave dense=None"):
        take(model, images[:2], tokens="patch", dense=True)


def test_blocks_that_autograd_cannot_follow() -> None:
    with pytest.raises(RecordError, match="cannot differentiate blocks 1 to 1: what they return does not follow"):
        take(Chain(lambda x: x.detach() * 2), torch.randn(2, 3, 5), tokens=[0])


@pytest.mark.parametrize(
    "unseen",
    [lambda x: x + x.detach().tanh(), lambda x: x + (x.tanh() / 1e-3).round() * 1e-3],
    ids=["detached", "rounded"],
)
def test_updates_that_autograd_does_not_see_are_refused(unseen: Any) -> None:
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    for dense in (True, False):
        with pytest.raises(RecordError, match=r"autograd does not see all that 'blocks\.1' does.* quantised"):
            take(Chain(torch.tanh, unseen), x, tokens=[0], dense=dense, n_modes=1)


def test_a_state_without_direction() -> None:
    x = torch.randn(3, 4, 5)
    x[1, 2] = 0
    with pytest.raises(RecordError, match=r"zero-norm state.* at depth 0, sample 1 of its batch, token 2"):
        take(Chain(torch.tanh), x, tokens="all")
    assert np.isfinite(take(Chain(torch.tanh), x, tokens="all", directional=False).singular_value).all()


class Once(torch.autograd.Function):
    """Differentiable once, as fused kernels are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (1 - ctx.saved_tensors[0].tanh() ** 2)


def test_kernels_that_can_be_differentiated_once_can_be_formed() -> None:
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    with pytest.raises(RecordError, match=r"cannot differentiate blocks 1 to 1(.|\n)*pass dense=True"):
        take(Chain(Once.apply), x, tokens=[0], dense=False)
    once = take(Chain(Once.apply), x, tokens=[0], dense=True)
    assert_allclose(once.singular_value, take(Chain(torch.tanh), x, tokens=[0]).singular_value, **FLOAT64)


class Given:
    """A map that is given as matrices (sample, out, in)."""

    def __init__(self, matrices: Tensor) -> None:
        self.matrices = matrices

    def domain(self, vectors: Tensor) -> Tensor:
        return vectors

    range = domain

    def product(self, vectors: Tensor) -> Tensor:
        return torch.einsum("sij,sj->si", self.matrices, vectors)

    def transposed(self, vectors: Tensor) -> Tensor:
        return torch.einsum("sij,si->sj", self.matrices, vectors)


def test_samples_that_converge_early_stay_right_while_others_go_on() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(2, 60, dtype=torch.float64, generator=generator)

    fast = torch.diag(torch.cat([torch.tensor([5.0, 3.0, 2.0]), torch.zeros(57)])).double()
    slow = torch.diag(torch.linspace(2, 1, 60)).double()
    found = leading(Given(torch.stack([fast, slow])), draw, 3, 1e-6, 60)
    assert_allclose(found.values[0], [5.0, 3.0, 2.0], **FLOAT64)
    assert_allclose(found.values[1], np.linspace(2, 1, 60)[:3], rtol=1e-6)
    for vectors in (found.left, found.right):
        assert_allclose(torch.einsum("smd,snd->smn", vectors, vectors), np.stack([np.eye(3)] * 2), **FLOAT64)
