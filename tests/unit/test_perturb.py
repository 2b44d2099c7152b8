"""What a push gives, for inputs of every form, and what each mistake is answered with."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import depthflow
from depthflow.errors import ParameterError, RecordError
from depthflow.models.base import TokenLayout
from depthflow.recording import memory
from depthflow.recording.deviations import Gathered, mean_direction, readout
from tests.snapshot import Snapshot
from tests.stacks import Chain, linear, vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import EXACT, FLOAT32, FLOAT64

SAMPLES, BLOCKS, TOKENS, WIDTH = 5, 4, 7, 12
LABELS = ["b", "a", "c", "a", "b"]


@pytest.fixture
def model() -> nn.Module:
    """In float64, where nothing but a mistake is larger than rounding."""
    return vit().double()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def push(model: nn.Module, inputs: Any, **options: Any) -> xr.Dataset:
    return depthflow.perturb(model, inputs, **{"depth": 2, "n_draws": 3, "progress": False, **options})


def same(x: Tensor) -> Tensor:
    return x.clone()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape)


# what comes back


def test_variables_dims_units_and_coords(model: nn.Module, images: Tensor) -> None:
    result = push(model, images, labels=LABELS, states=True)
    assert {name: variable.dims for name, variable in result.data_vars.items()} == {
        "angle": ("draw", "sample", "depth", "token"),
        "gain": ("draw", "sample", "depth"),
        "carried_gain": ("draw", "sample", "depth"),
        "final_direction": ("draw", "sample", "feature"),
        "carried_direction": ("draw", "sample", "feature"),
        "reference_direction": ("sample", "feature"),
        "state": ("draw", "sample", "depth", "token", "feature"),
        "reference": ("sample", "depth", "token", "feature"),
        "recovery": ("sample",),
        "growth_rate": ("block",),
    }
    assert dict(result.sizes) == {
        "draw": 3, "sample": 5, "depth": 5, "token": 10, "feature": 12, "block": 4,
    }  # fmt: skip
    assert result.angle.dtype == result.gain.dtype == np.float64
    assert result.angle.attrs["units"] == "rad"
    assert result.growth_rate.attrs["units"] == "1/block"
    assert result.angle.attrs["long_name"] == "angle between the perturbed and the unperturbed state"
    assert all({"long_name", "units"} <= set(result[name].attrs) for name in result.data_vars)
    assert result.label.values.tolist() == LABELS
    assert result.token_type.values.tolist() == ["cls"] + ["patch"] * 9
    assert result.row.values.tolist() == [-1, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert result.pushed.values.tolist() == [True] + [False] * 9
    assert result.module.values.tolist() == [f"blocks.{index}" for index in range(BLOCKS)]
    assert result.depth.values.tolist() == [0, 1, 2, 3, 4]
    assert result.block.values.tolist() == [1, 2, 3, 4]
    known = {name: result.attrs[name] for name in ("pushed_depth", "pushed_angle", "pushed_tokens", "directions")}
    assert known == {"pushed_depth": 2, "pushed_angle": 0.01, "pushed_tokens": "cls", "directions": "random"}
    assert result.attrs["model"] == "VisionTransformer"
    assert "state" not in push(model, images)


def test_it_can_be_written_and_read_again(model: nn.Module, images: Tensor, tmp_path: Any) -> None:
    result = push(model, images, labels=LABELS, directions="other_class")
    result.to_zarr(tmp_path / "result.zarr", consolidated=False)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "result.zarr", consolidated=False).compute(), result)


@pytest.mark.parametrize("depth", [0, BLOCKS - 1])
def test_only_what_lies_after_the_push_is_changed(model: nn.Module, images: Tensor, depth: int) -> None:
    result = push(model, images, depth=depth, tokens="patch", states=True)
    assert (result.angle[:, :, :depth] == 0).all()
    assert (result.gain[:, :, :depth] == 0).all()
    assert_allclose(result.angle[:, :, depth, 1:], 0.01, **FLOAT64)
    assert_allclose(result.gain[:, :, depth], 1.0, **FLOAT64)
    assert (result.angle[:, :, depth, 0] == 0).all(), "the class token was not pushed"
    assert (result.angle[:, :, depth + 1, 0] > 0).all(), "attention carries the push to it"
    assert np.isnan(result.growth_rate[:depth]).all()
    assert np.isfinite(result.growth_rate[depth:]).all()
    for state in result.state:
        assert_allclose(state[:, :depth], result.reference[:, :depth], **EXACT)
    assert (np.abs(result.state[0] - result.state[1])[:, depth, 1:] > 0).any("feature").all(), "each draw is another"


def test_the_unpushed_path_is_the_recording_and_its_end_that_of_basins(model: nn.Module, images: Tensor) -> None:
    traj = depthflow.record(model, images, dtype="float64", progress=False)
    result = push(model, images, states=True)
    assert_allclose(result.reference, traj, **FLOAT64)
    assert_allclose(result.reference_direction, depthflow.basins(traj, 1).direction, **FLOAT64)
    unit = result.state[:, :, -1, 0] / np.linalg.norm(result.state[:, :, -1, 0], axis=-1, keepdims=True)
    assert_allclose(result.final_direction, unit, **FLOAT64)
    assert result.attrs["final_direction_tokens"] == "cls"


def test_without_a_class_token_the_end_is_the_mean_direction(images: Tensor) -> None:
    x = torch.as_tensor(noise(SAMPLES, TOKENS, WIDTH))
    chain = Chain(torch.tanh, torch.sin)
    traj = depthflow.record(chain, x, dtype="float64", progress=False)
    result = push(chain, x, depth=1, tokens=[2])
    assert result.attrs["final_direction_tokens"] == "all tokens"
    assert_allclose(result.reference_direction, depthflow.basins(traj, 1).direction, **FLOAT64)


def test_float32_is_right_to_its_rounding(model: nn.Module, images: Tensor) -> None:
    exact = push(model, images, angle=0.1)
    single = push(copy.deepcopy(model).float(), images, angle=0.1, states=True)
    assert single.state.dtype == np.float32
    assert_allclose(single.angle, exact.angle, **FLOAT32)


def test_the_model_is_left_as_it_was(model: nn.Module, images: Tensor) -> None:
    before = Snapshot(model.train())
    push(model, images)
    before.require(model)


def test_the_states_are_what_finite_jacobian_takes() -> None:
    matrix = np.random.default_rng(2).normal(size=(WIDTH, WIDTH)) / 3 + np.eye(WIDTH)
    x = torch.as_tensor(noise(3, 2, WIDTH))
    chain = Chain(*[linear(matrix)] * 3)
    options: dict[str, Any] = {"tokens": "all", "depth": 1, "n_draws": WIDTH, "angle": 1e-4, "states": True}
    one = push(chain, x, **options)
    two = push(chain, x, **{**options, "labels": [1, 0, 1], "directions": "other_class", "n_draws": 1})
    jacobian = depthflow.finite_jacobian(one.reference, one.state, n_modes=1)
    assert np.isfinite(jacobian.singular_value[:, 1:]).all()
    assert (jacobian.singular_value[:, 1:] <= np.linalg.norm(matrix, 2) * (1 + FLOAT32["rtol"])).all()
    jacobian = depthflow.finite_jacobian(two.reference, two.state)
    moved = (two.state - two.reference)[0]
    gains = np.linalg.norm(moved[:, 2], axis=-1) / np.linalg.norm(moved[:, 1], axis=-1)
    assert_allclose(jacobian.singular_value.sel(block=2).squeeze("mode"), gains, **FLOAT32)


# batches and draws


@pytest.mark.parametrize("directions", ["random", "other_class", "given"])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 9])
def test_batches_do_not_matter(model: nn.Module, images: Tensor, batch_size: int, directions: Any) -> None:
    options = {"labels": LABELS, "states": True, "tokens": "patch"}
    options["directions"] = noise(3, SAMPLES, 9, WIDTH) if directions == "given" else directions
    whole = push(model, images, batch_size=1000, **options)
    parts = push(model, images, batch_size=batch_size, **options)
    xr.testing.assert_allclose(parts, whole, **FLOAT64)


def test_memory_of_a_call_is_bounded_by_batch_size(images: Tensor) -> None:
    seen = []

    def watch(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.clone()

    x = torch.as_tensor(noise(SAMPLES, TOKENS, WIDTH))
    for size, most in ((1, 2), (4, 4), (10, 8), (100, 20)):
        seen.clear()
        push(Chain(same, watch), x, depth=0, tokens=[0], batch_size=size)
        assert max(seen) == most, size
    seen.clear()
    push(Chain(same, watch), [x], depth=0, tokens=[0], batch_size=4)
    assert max(seen) == 2 * SAMPLES, "an iterable's batches are taken as they come"


def test_inputs_of_every_form(model: nn.Module, images: Tensor) -> None:
    codes = torch.tensor([1, 0, 2, 0, 1])
    expected = push(model, images, labels=codes)
    forms = [
        DataLoader(TensorDataset(images, codes), batch_size=2),
        [(images[:3], codes[:3]), (images[3:], codes[3:])],
        iter([(images[:1], codes[:1]), (images[1:], codes[1:])]),
        {"images": images, "labels": codes},
        images.numpy(),
    ]
    for inputs in forms:
        labels = codes if isinstance(inputs, np.ndarray) else None
        xr.testing.assert_allclose(push(model, inputs, labels=labels), expected, **FLOAT64)


def test_the_seed_is_all_that_chance_is(model: nn.Module, images: Tensor) -> None:
    first = push(model, images)
    xr.testing.assert_identical(push(model, images), first)
    assert not np.allclose(push(model, images, seed=1).gain[:, :, -1], first.gain[:, :, -1], **FLOAT64)
    fewer = push(model, images, n_draws=2)
    assert_allclose(fewer.angle, first.angle[:2], **FLOAT64)
    assert len(np.unique(first.gain[:, :, -1].values.round(9))) == 3 * SAMPLES


# directions


def test_directions_of_fewer_axes_are_those_of_more(model: nn.Module, images: Tensor) -> None:
    def ends(directions: Any) -> np.ndarray:
        return push(model, images, tokens=[3, 0], directions=directions, states=True).state.values

    whole = noise(2, SAMPLES, 2, WIDTH)
    expected = ends(whole)
    assert expected.shape[0] == 2
    assert_allclose(ends(torch.as_tensor(whole)), expected, **FLOAT64)
    dims = ("draw", "sample", "token", "feature")
    labelled = xr.DataArray(whole, dims=dims, coords={"token": [3, 0]})
    assert_allclose(ends(labelled.transpose("feature", "token", "sample", "draw")), expected, **FLOAT64)
    assert_allclose(ends(labelled[1]), expected[1:], **FLOAT64)
    for array, axes in ((whole[:, 0], (0, 2, 3)), (whole[0, 0], (2, 3)), (whole[0, 0, 0], (3,))):
        shape = [size if axis in axes else 1 for axis, size in enumerate(whole.shape)]
        full = np.broadcast_to(array.reshape(shape), (shape[0], *whole.shape[1:]))
        assert_allclose(ends(array), ends(full), **FLOAT64)
    assert not np.allclose(ends(whole[:, 0])[0, 1], expected[0, 1], **FLOAT64)


def test_other_classes_are_gone_towards_in_turn(model: nn.Module, images: Tensor) -> None:
    options: dict[str, Any] = {"tokens": [0, 4], "depth": 1, "states": True, "angle": 0.3}
    result = push(model, images, labels=LABELS, directions="other_class", n_draws=5, **options)
    assert result.target.dims == ("draw", "sample")
    base = result.reference[:, 1, [0, 4]].values
    for sample, own in enumerate(LABELS):
        others = sorted(set(LABELS) - {own})
        chosen = result.target[:, sample].values.tolist()
        assert sorted(chosen[:2]) == sorted(chosen[2:4]) == others
        assert chosen[4] == chosen[0]
        for draw, target in enumerate(chosen):
            mean = base[[label == target for label in LABELS]].mean(axis=0)
            by_hand = push(model, images[sample : sample + 1], directions=mean, **options)
            assert_allclose(by_hand.state[0, 0], result.state[draw, sample], **FLOAT64)
    seeds = [
        push(model, images, labels=LABELS, directions="other_class", n_draws=1, seed=seed).target.values.tolist()
        for seed in range(4)
    ]
    assert any(targets != seeds[0] for targets in seeds)


# mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 4}, "asked for depth 4, but the model has 4 blocks: 0 to 3"),
        ({"depth": -1}, "needs depth as a whole number from 0; got -1"),
        ({"depth": 1.0}, "needs depth as a whole number from 0; got 1.0"),
        ({"depth": True}, "needs depth as a whole number from 0; got True"),
        ({"angle": 0}, r"needs angle as a number in \(0, π\] rad; got 0"),
        ({"angle": -0.1}, "got -0.1"),
        ({"angle": 3.15}, "got 3.15"),
        ({"angle": np.nan}, "got nan"),
        ({"angle": np.inf}, "got inf"),
        ({"angle": "1"}, "got '1'"),
        ({"n_draws": 0}, "needs n_draws as a whole number from 1; got 0"),
        ({"seed": -1}, "needs seed as a whole number from 0; got -1"),
        ({"batch_size": 0}, "needs batch_size as a whole number from 1; got 0"),
        ({"tokens": "reg"}, r"no token of type 'reg'; it has \['cls', 'patch'\]"),
        ({"tokens": [10]}, "no token 10: the states have 10 tokens, 0 to 9"),
        ({"tokens": [0, -10]}, r"without repetition; got the positions \[0, 0\]"),
        ({"tokens": "cls+mean"}, "takes tokens as a type, types or indices; got 'cls\\+mean'"),
        ({"directions": "up"}, "'random', 'other_class', or an array of one to four axes.*got 'up'"),
        ({"directions": None}, "an array of one to four axes.*got None"),
        ({"directions": noise(1, 1, 1, 1, 12)}, r"got shape \(1, 1, 1, 1, 12\)"),
        (
            {"directions": noise(11)},
            r"shape \(11,\).*do not fit.*\(12,\), \(1, 12\), \(draw, 1, 12\) or \(draw, 5, 1, 12\)",
        ),
        ({"directions": noise(2, 12)}, r"shape \(2, 12\).*do not fit"),
        ({"directions": noise(3, 4, 1, 12)}, r"shape \(3, 4, 1, 12\).*do not fit"),
        ({"directions": xr.DataArray(noise(3, 12), dims=("time", "feature"))}, "none but .*got .'time', 'feature'"),
        ({"directions": xr.DataArray(noise(3, 1), dims=("draw", "token"))}, "with the dim 'feature'"),
        (
            {"directions": xr.DataArray(noise(1, 12), dims=("token", "feature"), coords={"token": [1]})},
            r"of the tokens \[1\], but \[0\] are pushed",
        ),
        ({"directions": np.full(12, np.nan)}, r"finite real numbers; got float64, shape \(12,\), some not finite"),
        ({"directions": noise(12) * 1j}, "finite real numbers; got complex128"),
        ({"directions": noise(0, 1, 12)}, r"finite real numbers; got float64, shape \(0, 1, 12\)"),
        ({"directions": "other_class"}, "needs labels, and none came"),
        ({"directions": "other_class", "labels": ["a"] * 5}, "at least two classes; all are of 'a'"),
        ({"directions": "other_class", "labels": [0, 1, np.nan, 1, 0]}, "first missing one is of sample 2"),
        ({"labels": [1, 2]}, "one label for each of 5 samples; got 2"),
        ({"angle": 1e-17}, "rounded away in float64"),
    ],
)
def test_arguments_that_cannot_be(model: nn.Module, images: Tensor, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        push(model, images, **options)


def test_all_faults_at_once(model: nn.Module, images: Tensor) -> None:
    with pytest.raises(ParameterError, match=r"(?s)4 faults.*depth.*n_draws.*seed.*angle"):
        push(model, images, depth=-1, n_draws=0, seed=0.5, angle=4)


@pytest.mark.parametrize("at", [2, 3])
def test_a_direction_along_the_state_is_named(model: nn.Module, images: Tensor, at: int) -> None:
    base = push(model, images, states=True).reference[:, 2, 1:3].values
    wanted = noise(5, SAMPLES, 2, WIDTH)
    wanted[3, 4, 1] = 0 if at == 2 else base[4, 1].astype(np.float32)
    with pytest.raises(ParameterError, match=r"zero or parallel.*draw 3, sample 4, token 2"):
        push(model, images, tokens=[1, 2], directions=wanted, batch_size=3)


def test_directions_of_too_few_or_too_many_samples_of_unknown_number(model: nn.Module, images: Tensor) -> None:
    for count in (4, 6):
        with pytest.raises(ParameterError, match=f"directions of {count} samples do not fit the inputs' 5"):
            push(model, iter([images[:3], images[3:]]), directions=noise(2, count, 1, WIDTH))


def test_inputs_that_can_be_read_once_cannot_give_class_means(model: nn.Module, images: Tensor) -> None:
    with pytest.raises(ParameterError, match=r"twice.*iterator \(list_iterator\).*DataLoader or a list"):
        push(model, iter([(images, [0, 1, 0, 1, 0])]), directions="other_class")


def test_a_label_that_comes_only_the_second_time(model: nn.Module, images: Tensor) -> None:
    class Changing:
        last = 0

        def __iter__(self) -> Any:
            self.last += 1
            yield images, [0, 1, 0, 1, self.last]

    with pytest.raises(ParameterError, match="label 2 came when the inputs were gone through again"):
        push(model, Changing(), directions="other_class")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(model: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(RecordError, match=rf"float32 or float64.*rounded away in {kind}.*\.float\(\)"):
        push(model.to(dtype), images)


def test_an_angle_that_float32_rounds_away(model: nn.Module, images: Tensor) -> None:
    with pytest.raises(ParameterError, match=r"1e-07 rad is rounded away in float32.*\.double\(\)"):
        push(copy.deepcopy(model).float(), images, angle=1e-7)
    push(model, images, angle=1e-7)


@pytest.mark.parametrize("inputs", [torch.zeros(0, 1, 6, 6), [], iter([])])
def test_no_samples(model: nn.Module, inputs: Any) -> None:
    with pytest.raises(RecordError, match="at least one sample"):
        push(model, inputs)


def test_states_without_a_direction_are_named() -> None:
    x = torch.as_tensor(noise(SAMPLES, TOKENS, WIDTH))
    x[3, 2] = 0
    with pytest.raises(ParameterError, match=r"zero-norm state.*sample 3, token 2"):
        push(Chain(same, same), x, depth=0, tokens=[1, 2], batch_size=8)
    with pytest.raises(RecordError, match=r"zero-norm.*sample 3, depth 0, token 2, of the path that is not pushed"):
        push(Chain(same, same), x, depth=0, tokens=[1], batch_size=8)
    x = torch.as_tensor(noise(SAMPLES, TOKENS, WIDTH))

    def fail(state: Tensor) -> Tensor:
        distance = torch.cdist(state[:, 0], x[:, 0]).amin(dim=1)
        pushed = (distance > 1e-6) & (distance < 0.05)
        return torch.where(pushed[:, None, None], state.new_tensor(float("inf")), state)

    with pytest.raises(RecordError, match="a state of norm inf, first at sample 0, depth 1, token 0, of a pushed path"):
        push(Chain(fail, same), x, depth=0, tokens=[0], batch_size=40)


def test_final_directions_that_cancel() -> None:
    x = torch.as_tensor(noise(SAMPLES, 2, WIDTH))
    cancelling = Chain(same, lambda state: torch.cat([state[:, :1], -state[:, :1]], dim=1))
    with pytest.raises(RecordError, match=r"final directions cancel.*first at sample 0"):
        push(cancelling, x, depth=0, tokens=[0])
    with pytest.raises(RecordError, match="first at sample 8"):
        mean_direction(torch.tensor([[[[1.0, 0], [0, 1]], [[1, 0], [-1, 0]]]]).double(), range(7, 9))


def test_one_feature_cannot_be_turned() -> None:
    with pytest.raises(ParameterError, match="at least two features"):
        push(Chain(same, same), torch.ones(3, TOKENS, 1), depth=0, tokens=[0])


def test_batches_of_other_tokens(model: nn.Module) -> None:
    parts = [torch.as_tensor(noise(2, count, WIDTH)) for count in (7, 6)]
    with pytest.raises(RecordError, match=r"follows all tokens, but a batch has other tokens.*6 token against 7 token"):
        push(Chain(same, same), parts, depth=0, tokens=[0])


def test_memory_is_checked_before_it_is_taken(model: nn.Module, images: Tensor, monkeypatch: Any) -> None:
    depths, tokens, double = BLOCKS + 1, 10, 8
    small = SAMPLES * double * (3 * depths * tokens + 2 * 3 * depths + 2 * 3 * WIDTH + WIDTH)
    monkeypatch.setattr(memory, "available", lambda: small / memory.MARGIN + 1)
    push(model, images)
    monkeypatch.setattr(memory, "available", lambda: small / memory.MARGIN - 1)
    with pytest.raises(RecordError, match=r"result of 5 samples \(angle, gain.*needs 10.6 kB.*or give fewer samples"):
        push(model, images)
    large = SAMPLES * double * 4 * depths * tokens * WIDTH
    monkeypatch.setattr(memory, "available", lambda: large / memory.MARGIN + 1)
    with pytest.raises(RecordError, match=r"state, reference\) needs 107 kB.*leave states=False"):
        push(model, images, states=True)


# parts


def test_arrays_grow_as_samples_come() -> None:
    gathered = Gathered(None)
    for start, stop in ((0, 2), (2, 3), (3, 8)):
        room = gathered.rooms(range(start, stop), {"x": ((3,), np.dtype(float)), "y": ((), np.dtype(int))})
        room["x"][:], room["y"][:] = np.arange(start, stop)[:, None], range(start, stop)
    assert gathered.take("x", 8)[:, 1].tolist() == list(range(8))
    assert gathered.take("y", 7).tolist() == list(range(7))
    assert "x" not in gathered


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["reg", "cls", "patch"], ("cls", [1])),
        (["reg", "patch", "patch"], ("patch", [1, 2])),
        (["token", "pad", "token"], ("all tokens", [0, 2])),
    ],
)
def test_which_tokens_are_the_direction_of_a_sample(types: list[str], expected: tuple[str, list[int]]) -> None:
    said, places = readout(TokenLayout(tuple(types)))
    assert (said, places.tolist()) == expected
