"""swap_blocks: labels, heads, phases, intervals, and every refusal."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import depthflow
from depthflow import schema
from depthflow.errors import ParameterError, RecordError
from depthflow.models.vit import VisionTransformer
from depthflow.recording.pairs import phase_array
from depthflow.resample import mean_interval
from tests.snapshot import Snapshot
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import FLOAT32, FLOAT64

SAMPLES, BLOCKS, WIDTH, CLASSES = 5, 4, 12, 6
PHASES = [1, 1, 2, 2]


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    return vit(classes=CLASSES)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def labels(model, images) -> np.ndarray:
    with torch.no_grad():
        right = model(images).argmax(1).numpy()
    return np.where(np.arange(SAMPLES) < 3, right, (right + 1) % CLASSES)


def swap(model: nn.Module, inputs: Any, **kwargs: Any) -> xr.Dataset:
    return depthflow.swap_blocks(model, inputs, progress=False, **kwargs)


class Features(nn.Module):
    """A model of token states whose end is what ``end`` makes of them."""

    def __init__(self, *blocks: nn.Module, end: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)  # makes as many outputs as there are features, before the blocks
        self.blocks = nn.ModuleList(blocks or [nn.TransformerEncoderLayer(WIDTH, 3, 8, batch_first=True)] * 2)
        self.end = end or nn.Identity()

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.end(x.mean(dim=1))


def tokens() -> Tensor:
    return torch.randn(SAMPLES, 7, WIDTH, generator=torch.Generator().manual_seed(2))


# what comes back


def test_dims_coords_units_and_attributes(model, images, labels):
    got = swap(model, images, labels=labels, phases=PHASES)
    pairs = ("block", "block_other")
    scalars = {"within_effect", "between_effect", "difference", "matched_difference", "accuracy_unswapped"} | {
        f"{name}_{end}" for name in ("difference", "matched_difference") for end in ("low", "high")
    }
    assert {name: got[name].dims for name in got.data_vars} == {
        "effect": pairs,
        "accuracy": pairs,
        **dict.fromkeys(scalars, ()),
    }
    assert got.block.values.tolist() == got.block_other.values.tolist() == [1, 2, 3, 4]
    assert got.module.values.tolist() == [f"blocks.{index}" for index in range(BLOCKS)]
    assert got.phase.dims == ("block",)
    assert got.phase.values.tolist() == PHASES
    assert {got[name].attrs["units"] for name in got.data_vars} == {"1", "rad"}
    assert all(got[name].attrs["long_name"] == schema.VARIABLES[name].long_name for name in got.data_vars)
    assert got.attrs["family"] == "torch/VisionTransformer"
    told = ("tokens", "n_tokens", "samples", "confidence", "resamples", "seed")
    assert [got.attrs[name] for name in told] == ["cls", 1, SAMPLES, 0.95, 200, 0]


def test_a_result_is_written_and_read_again(model, images, tmp_path):
    got = swap(model, images, phases=["early", "early", "late", "late"])
    got.to_zarr(tmp_path / "swap.zarr", consolidated=False)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "swap.zarr", consolidated=False).load(), got)


def test_nothing_beyond_effects_without_labels_and_phases(model, images):
    got = swap(model, images)
    assert list(got.data_vars) == ["effect"]
    assert "phase" not in got.coords
    assert "resamples" not in got.attrs


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_do_not_matter(model, images, labels, batch_size):
    whole = swap(model, images, labels=labels, phases=PHASES, batch_size=SAMPLES)
    xr.testing.assert_allclose(
        swap(model, images, labels=labels, phases=PHASES, batch_size=batch_size), whole, **FLOAT32
    )


def test_the_order_of_samples_does_not_matter(model, images, labels):
    order = [3, 1, 4, 0, 2]
    got = swap(model, images[order], labels=labels[order])
    xr.testing.assert_allclose(got, swap(model, images, labels=labels), **FLOAT32)


@pytest.mark.parametrize("way", ["loader", "pairs", "dict", "array"])
def test_inputs_come_in_every_form(model, images, labels, way):
    expected = swap(model, images, labels=labels, batch_size=2)
    loader = DataLoader(TensorDataset(images, torch.from_numpy(labels)), batch_size=2)
    inputs: Any = {
        "loader": loader,
        "pairs": ((x, y) for x, y in loader),
        "dict": {"images": images, "label": labels},
        "array": images.numpy(),
    }[way]
    got = swap(model, inputs, batch_size=2, **({"labels": labels} if way == "array" else {}))
    xr.testing.assert_identical(got, expected)


def test_tokens_are_those_chosen(model, images):
    final = swap(model, images, tokens="patch")
    assert (final.attrs["tokens"], final.attrs["n_tokens"]) == ("patch", 9)
    assert not np.allclose(final.effect, swap(model, images).effect)
    with pytest.raises(ParameterError, match=r"tokens='reg': this model has no token of type 'reg'"):
        swap(model, images, tokens="reg")
    with pytest.raises(ParameterError, match=r"swap_blocks takes tokens as a type, types or indices; got 'cls\+mean'"):
        swap(model, images, tokens="cls+mean")


def test_tokens_of_unknown_type_stand_in_for_a_class_token():
    got = swap(Features(), tokens())
    assert (got.attrs["tokens"], got.attrs["n_tokens"]) == ("token", 7)
    with pytest.raises(ParameterError, match="no token of type 'patch'"):
        swap(Features(), tokens(), tokens="patch")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_allowed(model, images, labels, dtype):
    got = swap(copy.deepcopy(model).to(dtype), images, labels=labels)
    np.testing.assert_array_equal(np.diag(got.effect), 0.0)
    np.testing.assert_array_equal(np.diag(got.accuracy), got.accuracy_unswapped)
    full = swap(model, images).effect.values
    off = ~np.eye(BLOCKS, dtype=bool)
    assert np.all(np.abs(got.effect.values - full)[off] < 0.1 * full[off].max())


# phases


def test_a_result_of_phases_its_variable_and_a_list_agree(model, images):
    found = depthflow.phases(depthflow.record(model, images, progress=False), 2)
    got = swap(model, images, phases=found)
    for same in (found.phase, found.phase.values, found.phase.values.tolist(), tuple(found.phase.values)):
        xr.testing.assert_identical(swap(model, images, phases=same), got)


def test_names_of_phases_mean_the_same_as_numbers(model, images):
    numbers, names = (swap(model, images, phases=kinds) for kinds in (PHASES, ["a", "a", "b", "b"]))
    xr.testing.assert_identical(numbers.drop_vars("phase"), names.drop_vars("phase"))
    assert names.phase.values.tolist() == ["a", "a", "b", "b"]


def test_differences_are_those_of_the_effects(model, images):
    got = swap(model, images, phases=[1, 2, 2, 1])
    effect = got.effect.values
    within = [effect[pair] for pair in [(0, 3), (3, 0), (1, 2), (2, 1)]]
    between = [effect[pair] for pair in [(0, 1), (1, 0), (0, 2), (2, 0), (3, 1), (1, 3), (3, 2), (2, 3)]]
    np.testing.assert_allclose(got.within_effect, np.mean(within), **FLOAT64)
    np.testing.assert_allclose(got.between_effect, np.mean(between), **FLOAT64)
    np.testing.assert_allclose(got.difference, got.between_effect - got.within_effect, **FLOAT64)


def test_the_interval_is_the_bootstrap_of_the_samples_differences(model, images):
    got = swap(model, images, phases=PHASES, n_boot=50, seed=3)
    each = [swap(model, images[k : k + 1], phases=PHASES, n_boot=0).difference.item() for k in range(SAMPLES)]
    np.testing.assert_allclose(
        [got.difference, got.difference_low, got.difference_high],
        mean_interval(np.array(each), n=50, seed=3),
        **FLOAT32,
    )
    for name in ("difference", "matched_difference"):
        assert got[f"{name}_low"] < got[name] < got[f"{name}_high"]
    xr.testing.assert_identical(swap(model, images, phases=PHASES, n_boot=50, seed=3), got)
    assert swap(model, images, phases=PHASES, n_boot=50, seed=4).difference_low != got.difference_low


@pytest.mark.parametrize(
    ("phases", "known"),
    [
        ([1, 1, 1, 1], {"within_effect"}),
        ([1, 2, 3, 4], {"between_effect"}),
        ([1, 2, 1, 2], {"within_effect", "between_effect", "difference"}),
    ],
)
def test_what_has_no_pair_is_nan(model, images, phases, known):
    got = swap(model, images, phases=phases)
    scalars = {"within_effect", "between_effect", "difference", "matched_difference"}
    assert {name for name in scalars if np.isfinite(got[name])} == known
    for name in ("difference", "matched_difference"):
        assert np.isnan(got[name]) == np.isnan(got[f"{name}_low"]) == np.isnan(got[f"{name}_high"])


def test_no_resamples(model, images):
    got = swap(model, images[:1], phases=PHASES, n_boot=0)
    assert "difference" in got
    assert "difference_low" not in got
    with pytest.raises(ParameterError, match=r"resamples samples and needs at least two; got 1\. .* pass n_boot=0"):
        swap(model, images[:1], phases=PHASES)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([1, 1, 2], r"needs one phase for each of the model's 4 blocks; got 3"),
        ("abcd", r"needs phases as one a block; got str"),
        (2, r"needs phases as one a block; got int"),
        ([1.0, 1.0, 2.0, 2.0], r"integers or names, one a block; got float"),
        ([1, 1, "b", "b"], r"integers or names, one a block; got number and str"),
        (np.ones((2, 2)), r"got ndarray"),
        (xr.Dataset({"boundary": ("phase", [2, 4])}), r"needs phases with the variable 'phase' .* \['boundary'\]"),
        (xr.DataArray([1, 2], dims="depth"), r"phases on the dim 'block'; got \('depth',\)"),
        (
            xr.DataArray([1, 1, 2, 2], dims="block", coords={"block": [2, 3, 4, 5]}),
            r"phase of every block, from 1 on; got blocks \[2, 3, 4, 5\]",
        ),
    ],
)
def test_phases_that_do_not_fit(model, images, phases, message):
    with pytest.raises(ParameterError, match=f"swap_blocks.*{message}"):
        swap(model, images, phases=phases)


def test_phases_without_a_block_coord_count_from_1():
    assert phase_array(xr.DataArray([3, 3, 1], dims="block"), "it").tolist() == [3, 3, 1]


# labels and heads


def test_accuracy_counts_the_samples_classified_rightly(model, images, labels):
    got = swap(model, images, labels=labels, batch_size=2)
    assert got.accuracy_unswapped == 3 / 5
    np.testing.assert_array_equal(np.diag(got.accuracy), 3 / 5)
    assert np.all(got.accuracy.values * SAMPLES % 1 == 0)


def test_a_head_reads_logits_from_what_the_model_returns(model, images, labels):
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.blocks = model, model.blocks

        def forward(self, x: Tensor) -> Any:
            return {"answer": self.inner(x)}

    expected = swap(model, images, labels=labels)
    got = swap(Wrapped(), images, labels=labels, head=lambda output: output["answer"], blocks=model.blocks)
    np.testing.assert_array_equal(got.accuracy, expected.accuracy)
    flipped = swap(model, images, labels=labels, head=lambda logits: -logits)
    assert flipped.accuracy_unswapped == 0
    with pytest.raises(ParameterError, match=r"without a head: Wrapped gives no logits for 5 samples"):
        swap(Wrapped(), images, labels=labels)


def test_a_head_that_reads_every_depth_is_given_those_of_the_swap():
    class EveryDepth(Features):
        def forward(self, x: Tensor, order: tuple[int, ...] = (0, 1, 2)) -> Tensor:
            x = self.embed(x)
            read = 0
            for depth, number in enumerate(order, start=1):
                x = self.blocks[number](x)
                read = read + x[:, 0] / depth
            return self.end(read)

    torch.manual_seed(3)
    model = EveryDepth(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(3)), end=nn.Linear(WIDTH, 4))
    x = torch.randn(50, 7, WIDTH)
    with torch.no_grad():
        own = model(x).argmax(1)
        swapped = {pair: model(x, order).argmax(1) for pair, order in {(1, 0): (0, 0, 2), (2, 0): (0, 1, 0)}.items()}
    got = swap(model, x, labels=own)
    assert got.accuracy_unswapped == 1
    for pair, answers in swapped.items():
        share = (answers == own).double().mean().item()
        assert 0 < share < 1
        assert got.accuracy.values[pair] == share


def test_an_attribute_logits_is_read(model, images, labels):
    class Named(VisionTransformer):
        def forward(self, x: Tensor) -> Any:
            return SimpleNamespace(last_hidden_state=x, logits=super().forward(x))

    named = Named(model.settings).eval()
    named.load_state_dict(model.state_dict())
    xr.testing.assert_allclose(
        swap(named, images, labels=labels).accuracy, swap(model, images, labels=labels).accuracy, **FLOAT64
    )


def test_a_head_with_dropout_is_run_for_evaluation_and_left_in_training(images, labels, model):
    probe = nn.Sequential(nn.Dropout(0.9), nn.Linear(CLASSES, CLASSES)).train()
    first, second = (swap(model, images, labels=labels, head=probe) for _ in range(2))
    xr.testing.assert_identical(first, second)
    assert all(module.training for module in probe.modules())


def test_labels_that_come_along_are_used_only_where_they_can_be(model, images, labels):
    classes = torch.from_numpy(labels)
    batches = [(images, classes)]
    assert "accuracy" in swap(model, batches)
    assert "accuracy" not in swap(Features(), [(tokens(), classes)])
    assert "accuracy" not in swap(model, [(images, ["a", "b", "a", "b", "c"])])
    assert "accuracy" not in swap(model, [(images, classes.double())])


def test_features_of_the_states_width_are_no_logits(labels):
    """However many linear layers there are before the blocks and in them."""
    with pytest.raises(ParameterError, match=r"Features gives a tensor of float32 of shape \(5, 12\), which reads as"):
        swap(Features(), tokens(), labels=labels)
    assert "accuracy" in swap(Features(end=nn.Linear(WIDTH, WIDTH)), tokens(), labels=labels)
    assert "accuracy" in swap(Features(), tokens(), labels=labels, head=lambda features: features)


def test_a_model_that_says_it_has_no_classes_gives_features(labels):
    wide = Features(end=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 9)))
    wide.num_classes = 0
    with pytest.raises(ParameterError, match=r"\(5, 9\), which reads as features"):
        swap(wide, tokens(), labels=labels)
    pooled = Features(end=nn.Linear(WIDTH, WIDTH))
    pooled.head = nn.Identity()
    with pytest.raises(ParameterError, match=r"\(5, 12\), which reads as features"):
        swap(pooled, tokens(), labels=labels)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda logits: logits[:, None], r"head= gives a tensor of float32 of shape \(5, 1, 6\) for 5 samples"),
        (lambda logits: logits[:2], r"shape \(2, 6\) for 5 samples"),
        (lambda logits: logits.argmax(1, keepdim=True), r"a tensor of int64 of shape \(5, 1\)"),
        (lambda logits: logits.numpy(), r"head= gives a ndarray"),
    ],
)
def test_a_head_that_gives_no_logits(model, images, labels, head, message):
    with pytest.raises(ParameterError, match=message):
        swap(model, images, labels=labels, head=head)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["0", "1", "2", "0", "1"], r"needs labels as integers, .* got dtype StringDType"),
        ([0.0, 1.0, 2.0, 0.0, 1.0], r"needs labels as integers, .* got dtype float64"),
        ([0, 1, 2, 0, 6], r"needs labels from 0 to 5, one for each of the model's 6 classes; got 6 \(1 such\)"),
        ([0, -1, 2, -1, 0], r"got -1 \(2 such\)"),
    ],
)
def test_labels_that_are_no_classes(model, images, given, message):
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(None))
    with pytest.raises(ParameterError, match=message):
        swap(model, images, labels=given, batch_size=2)
    handle.remove()
    assert len(calls) <= 3, "all labels given are looked at before the first swap"


def test_labels_that_come_along_and_are_no_classes(model, images):
    with pytest.raises(ParameterError, match=r"got 7 \(1 such\).*or inputs without labels"):
        swap(model, {"images": images, "labels": torch.tensor([0, 1, 2, 3, 7])}, batch_size=2)


def test_a_head_needs_labels(model, images):
    with pytest.raises(ParameterError, match=r"was given head=, but no labels to compare with. Pass labels="):
        swap(model, images, head=lambda logits: logits)


def test_a_head_that_reads_more_than_the_states_is_refused(labels):
    class Counting(Features):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) * self.calls + torch.arange(3.0)

    with pytest.raises(RecordError, match=r"reads logits from the states .* Counting returns others .*reads more"):
        swap(Counting(end=nn.Linear(WIDTH, 3)), tokens(), labels=labels % 3)


def test_logits_that_are_nan_after_a_swap_name_the_pair(model, images, labels):
    calls = []

    def head(logits: Tensor) -> Tensor:
        calls.append(None)
        return logits if len(calls) < 12 else logits * torch.nan

    with pytest.raises(RecordError, match=r"logits that are NaN, with block \d in the place of block \d"):
        swap(model, images, labels=labels, head=head)


# states without a direction


def test_a_state_that_overflows_after_a_swap_names_the_pair_and_the_sample():
    def grow(x: Tensor) -> Tensor:
        return x * torch.where(x[:, :1, :1].abs() > 5e4, 1e36, 10.0)

    x = torch.ones(SAMPLES, 7, WIDTH)
    x[3] = 1e3
    model = Chain(lambda x: 20 * x, lambda x: 1 * x, grow)
    with pytest.raises(
        RecordError, match=r"with block 1 in the place of block 2 that of sample 3 is not finite\. In half"
    ):
        swap(model, x, batch_size=2)


def test_a_final_state_of_zero_has_no_direction():
    x = torch.ones(SAMPLES, 7, WIDTH)
    x[4, 2] = 0
    model = Chain(lambda x: 1 * x, lambda x: 2 * x)
    with pytest.raises(RecordError, match=r"but without a swap that of sample 4 is zero"):
        swap(model, x, batch_size=3)
    assert (swap(model, x, tokens=[0, 1]).effect == 0).all()


# arguments


def test_every_fault_of_the_arguments_at_once(model, images):
    with pytest.raises(ParameterError, match=r"(?s)3 faults.*n_boot as a whole number from 0; got -1.*seed.*head"):
        swap(model, images, n_boot=-1, seed=1.5, head="logits")
    with pytest.raises(ParameterError, match=r"needs batch_size as a whole number from 1; got 0"):
        swap(model, images, batch_size=0)
    with pytest.raises(ParameterError, match=r"needs one label for each of 5 samples; got 2"):
        swap(model, images, labels=[0, 1])


def test_the_model_is_left_as_found_after_an_interruption(model, images):
    twin = copy.deepcopy(model).train()
    before = Snapshot(twin)
    plain, calls = twin.blocks[2].forward, []

    def interrupt(x: Tensor) -> Tensor:
        calls.append(None)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain(x)

    twin.blocks[2].forward = interrupt
    with pytest.raises(KeyboardInterrupt):
        swap(twin, images)
    assert twin.blocks[2].forward is interrupt
    before.require(twin)
