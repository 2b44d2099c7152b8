"""score_surrogate: every score by another route, its baselines, labels, probes, and every refusal."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import depthflow
from depthflow import schema
from depthflow.errors import ParameterError, RecordError, SurrogateError
from depthflow.models.base import TokenLayout
from depthflow.models.detect import adapt
from depthflow.models.fingerprint import fingerprint
from depthflow.surrogate.answers import recovery_interval
from depthflow.surrogate.baselines import RIDGE
from depthflow.surrogate.probe import features
from depthflow.surrogate.recurrent import Plan, RecurrentSurrogate
from depthflow.surrogate.score import _elsewhere
from tests.snapshot import Snapshot
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import EXACT, FLOAT32, FLOAT64, ITERATIVE, ROUNDED_STATES, STOCHASTIC

if TYPE_CHECKING:
    from depthflow.models.vit import VisionTransformer

SAMPLES, BLOCKS, WIDTH, CLASSES = 7, 4, 12, 6
PHASES, MEDOIDS = (1, 2, 2, 2), (1, 3)
TYPES = {"all": slice(None), "cls": slice(0, 1), "patch": slice(1, None)}
BASELINES = ["identity", "linear", "truncated", "repeated"]


def stand_in(teacher: nn.Module, phases: tuple[int, ...], medoids: tuple[int, ...], **options: Any) -> Any:
    """Return an untrained surrogate: the medoid blocks as they are, at all depths of their phases."""
    plan: dict[str, Any] = {
        "blocks": tuple(f"blocks.{index}" for index in range(len(phases))),
        "width": WIDTH,
        "depth_scale": False,
        "writers": ((),) * len(medoids),
    }
    return RecurrentSurrogate(teacher, Plan(**{**plan, **options}, phases=phases, medoids=medoids))


def perturbed(teacher: nn.Module) -> Any:
    """Return a surrogate that is neither its teacher nor any baseline."""
    surrogate = stand_in(teacher, PHASES, MEDOIDS)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in surrogate.blocks.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    surrogate.teacher = {"model": "teacher", "weights": fingerprint(teacher.state_dict())}
    return surrogate


def images_of(seed: int, samples: int = SAMPLES) -> Tensor:
    return torch.randn(samples, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    return vit(classes=CLASSES)


@pytest.fixture(scope="module")
def surrogate(model) -> Any:
    return perturbed(model)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_of(1)


@pytest.fixture(scope="module")
def labels(model, images) -> np.ndarray:
    with torch.no_grad():
        right = model(images).argmax(1).numpy()
    return np.where(np.arange(SAMPLES) < 5, right, (right + 1) % CLASSES)


def score(surrogate: Any, model: Any, inputs: Any, **options: Any) -> xr.Dataset:
    return depthflow.score_surrogate(surrogate, model, inputs, progress=False, **options)


def states_of(model: nn.Module, inputs: Any, **options: Any) -> np.ndarray:
    """Return states (sample, depth, token, feature) in double precision."""
    return depthflow.record(model, inputs, progress=False, dtype="float64", **options).values


def oracle(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Return the scores of states (sample, token, feature) of one type at one depth, written out."""
    mean = wanted.reshape(-1, wanted.shape[-1]).mean(axis=0)
    off, size = np.linalg.norm(found - wanted, axis=(1, 2)), np.linalg.norm(wanted, axis=(1, 2))
    cosine = np.sum(found * wanted, -1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(wanted, axis=-1)
    return {
        "r2": 1 - np.sum((found - wanted) ** 2) / np.sum((wanted - mean) ** 2),
        "cosine": cosine.mean(),
        "relative_error": np.mean(off / size),
    }


def require_scores(got: xr.Dataset, prefix: str, found: np.ndarray, wanted: np.ndarray, tolerance: Any) -> None:
    for kind, tokens in TYPES.items():
        for depth in range(1, BLOCKS + 1):
            for name, value in oracle(found[:, depth, tokens], wanted[:, depth, tokens]).items():
                scored = got[f"{prefix}{name}"].sel(depth=depth, token_type=kind)
                np.testing.assert_allclose(scored, value, **tolerance, err_msg=f"{prefix}{name} {kind} {depth}")


# what comes back


def test_dims_coords_units_and_attributes(surrogate, model, images, labels):
    got = score(surrogate, model, images, labels=labels)
    curve, scalar = ("depth", "token_type"), ()
    assert {name: got[name].dims for name in got.data_vars} == {
        **dict.fromkeys(["r2", "cosine", "relative_error"], curve),
        **dict.fromkeys(["baseline_r2", "baseline_cosine", "baseline_relative_error"], ("baseline", *curve)),
        **dict.fromkeys(["baseline_epsilon", "baseline_accuracy", "baseline_recovery"], ("baseline",)),
        **dict.fromkeys(["epsilon", "epsilon_depth", "agreement", "teacher_accuracy", "surrogate_accuracy"], scalar),
        **dict.fromkeys(["recovery", "recovery_low", "recovery_high"], scalar),
    }
    assert got.depth.values.tolist() == [1, 2, 3, 4]
    assert got.token_type.values.tolist() == ["all", "cls", "patch"]
    assert got.baseline.values.tolist() == BASELINES
    assert got.phase.dims == ("depth",)
    assert got.phase.values.tolist() == list(PHASES)
    known = {**schema.VARIABLES, **schema.VARIABLES_OF["score_surrogate"]}
    assert all(got[name].attrs == {"long_name": known[name].long_name, "units": "1"} for name in got.data_vars)
    assert got.attrs["family"] == "torch/VisionTransformer"
    told = ("n_phases", "samples", "ridge", "linear_fit", "confidence", "resamples")
    assert [got.attrs[name] for name in told] == [2, SAMPLES, RIDGE, "the other half of the inputs", 0.95, 1000]
    assert got.attrs["r2_mean"] == "over samples and the tokens of the type, at each depth"
    assert "repeated" not in got.attrs


def test_a_result_is_written_and_read_again(surrogate, model, images, tmp_path):
    got = score(surrogate, model, images)
    got.to_zarr(tmp_path / "scores.zarr", consolidated=False)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "scores.zarr", consolidated=False).load(), got)


def test_the_surrogate_keeps_a_summary_that_json_holds(surrogate, model, images, labels):
    got = score(surrogate, model, images, labels=labels)
    kept = json.loads(json.dumps(surrogate.scores, allow_nan=False))
    assert kept["samples"] == SAMPLES
    assert kept["r2_least"] == round(float(got.r2.sel(token_type="all").min()), 6)
    assert kept["r2_last"] == round(float(got.r2.sel(token_type="all", depth=BLOCKS)), 6)
    scalars = {str(name) for name in got.data_vars if got[name].ndim == 0}
    assert kept.keys() == scalars | {"samples", "r2_least", "r2_last"}
    assert all(kept[name] == round(got[name].item(), 6) for name in scalars)
    assert kept["epsilon_depth"] in range(1, BLOCKS + 1)


def test_what_is_not_finite_is_left_out_of_the_summary(model, images):
    surrogate = perturbed(model)
    score(surrogate, model, images[:1].expand(SAMPLES, -1, -1, -1), labels=(model(images[:1]).argmin().item(),) * 7)
    assert surrogate.scores["teacher_accuracy"] == 0
    assert "recovery" not in surrogate.scores
    json.dumps(surrogate.scores, allow_nan=False)


# every score by another route


def test_scores_are_those_of_two_recordings(surrogate, model, images):
    got = score(surrogate, model, images)
    wanted = states_of(model, images)
    require_scores(got, "", states_of(surrogate, images), wanted, FLOAT64)
    error = got.relative_error.sel(token_type="all")
    assert got.epsilon == error.max()
    assert got.epsilon_depth == error.idxmax()
    assert got.epsilon > 0.05, "neither model is the other"


def paths(model: VisionTransformer, images: Tensor, fits: list[tuple[list[int], list[int]]], learnt: np.ndarray) -> Any:
    """Return the states of all baselines, each of ``fits`` giving whose steps teach and who is then predicted."""
    own = states_of(model, images)
    still = np.repeat(own[:, :1], BLOCKS + 1, axis=1)
    truncated = own.copy()
    truncated[:, 3:] = own[:, 2:3]
    repeated, predicted = own.copy(), own.copy()
    state = torch.from_numpy(own[:, 0]).float()
    for depth, phase in enumerate(PHASES, start=1):
        with torch.no_grad():
            state = model.blocks[MEDOIDS[phase - 1] - 1](state)
        repeated[:, depth] = state.numpy()
    for teach, predict in fits:
        state = own[predict, 0]
        for depth, phase in enumerate(PHASES, start=1):
            steps = np.flatnonzero(np.array(PHASES) == phase)
            before, after = (learnt[teach][:, steps + shift].reshape(-1, WIDTH) for shift in (0, 1))
            mean_in, mean_out = before.mean(axis=0), after.mean(axis=0)
            # A ridge is least squares with as many more equations: √α K = 0.
            alpha = RIDGE * np.square(before - mean_in).sum() / WIDTH
            rows = np.vstack([before - mean_in, np.sqrt(alpha) * np.eye(WIDTH)])
            goal = np.vstack([after - mean_out, np.zeros((WIDTH, WIDTH))])
            transposed = np.linalg.lstsq(rows, goal, rcond=None)[0]
            state = (state - mean_in) @ transposed + mean_out
            predicted[predict, depth] = state
    return {"identity": still, "linear": predicted, "truncated": truncated, "repeated": repeated}, own


@pytest.mark.parametrize("held_out", [True, False])
def test_baselines_are_what_they_are_said_to_be(surrogate, model, images, held_out):
    others = images_of(5, 10)
    every = list(range(SAMPLES))
    if held_out:
        got = score(surrogate, model, images, train_inputs=others)
        found, own = paths(model, images, [(list(range(10)), every)], states_of(model, others))
    else:
        got = score(surrogate, model, images)
        halves = [(every[::2], every[1::2]), (every[1::2], every[::2])]
        found, own = paths(model, images, halves, states_of(model, images))
    for name in BASELINES:
        one = got.sel(baseline=name)
        require_scores(one, "baseline_", found[name], own, FLOAT64 if name in ("identity", "truncated") else FLOAT32)
        assert one.baseline_epsilon == one.baseline_relative_error.sel(token_type="all").max()
    assert got.attrs["linear_fit"] == ("train_inputs" if held_out else "the other half of the inputs")


def test_no_sample_is_predicted_by_what_it_taught(model):
    """Of two samples each predicts the other: a far one spoils the other's prediction and not its own."""
    near, far = images_of(6, 1), torch.full((1, 1, 6, 6), 50.0)
    alone, mixed = (
        score(perturbed(model), model, torch.cat(pair)).baseline_relative_error.sel(baseline="linear", token_type="all")
        for pair in ([near, near], [near, far])
    )
    # Ten tokens' first steps are fitted exactly by an operator of twelve features and a constant.
    assert alone.sel(depth=1) < 1e-4
    assert mixed.sel(depth=1) > 0.3


def test_accuracies_are_those_of_the_models_own_answers(surrogate, model, images, labels):
    got = score(surrogate, model, images, labels=labels)
    with torch.no_grad():
        teacher, mirrored = model(images).argmax(1).numpy(), surrogate(images).argmax(1).numpy()
        found, _ = paths(model, images, [(list(range(SAMPLES)),) * 2], states_of(model, images))
        final = {name: torch.from_numpy(found[name][:, -1]).float() for name in BASELINES}
        answers = {name: model.head(model.norm(state)[:, 0]).argmax(1).numpy() for name, state in final.items()}
    assert got.teacher_accuracy == 5 / 7
    assert got.surrogate_accuracy == np.mean(mirrored == labels)
    assert got.recovery == got.surrogate_accuracy / got.teacher_accuracy
    assert got.agreement == np.mean(mirrored == teacher)
    for name in ("identity", "truncated", "repeated"):
        one = got.sel(baseline=name)
        assert one.baseline_accuracy == np.mean(answers[name] == labels)
        assert one.baseline_recovery == one.baseline_accuracy / got.teacher_accuracy
    assert len({*got.baseline_accuracy.values.tolist()}) > 1


def test_the_interval_is_that_of_resampled_samples():
    rng = np.random.default_rng(0)
    teacher = rng.random(400) < 0.8
    surrogate = np.where(rng.random(400) < 0.9, teacher, rng.random(400) < 0.5)
    drawn = rng.integers(400, size=(4000, 400))
    expected = np.percentile(surrogate[drawn].mean(1) / teacher[drawn].mean(1), [2.5, 97.5])
    low, high = recovery_interval(teacher, surrogate)
    np.testing.assert_allclose([low, high], expected, **STOCHASTIC)
    np.testing.assert_allclose(high - low, np.diff(expected)[0], **STOCHASTIC)
    assert low < surrogate.mean() / teacher.mean() < high
    assert recovery_interval(teacher, teacher) == (1.0, 1.0)
    assert np.isnan(recovery_interval(np.zeros(3, dtype=bool), np.ones(3, dtype=bool))).all()


def test_probes_are_regressions_on_normed_final_class_tokens(surrogate, model, images, labels):
    others = images_of(5, 30)
    with torch.no_grad():
        seen = model(others).argmax(1).numpy()
    got = score(surrogate, model, images, labels=labels, train_inputs=others, train_labels=seen)
    expected = {}
    for name, one in (("teacher", model), ("surrogate", surrogate)):
        with torch.no_grad():
            final = [model.norm(torch.from_numpy(states_of(one, x)[:, -1, 0]).float()) for x in (others, images)]
        scaler = StandardScaler().fit(final[0])
        probe = LogisticRegression(max_iter=2000).fit(scaler.transform(final[0]), seen)
        expected[name] = np.mean(probe.predict(scaler.transform(final[1])) == labels)
    assert got.teacher_probe_accuracy == expected["teacher"]
    assert got.surrogate_probe_accuracy == expected["surrogate"]
    assert got.probe_recovery == expected["surrogate"] / expected["teacher"]
    assert {"teacher_accuracy", "agreement"} <= set(got.data_vars)
    spelled = {"labels": [f"c{n}" for n in labels], "train_labels": [f"c{n}" for n in seen]}
    named = score(surrogate, model, images, train_inputs=others, **spelled)
    for name in ("teacher_probe_accuracy", "surrogate_probe_accuracy"):
        np.testing.assert_allclose(named[name], got[name], **EXACT)
    assert "teacher_accuracy" not in named, "names are no numbers of the head's classes"
    assert "agreement" in named


def test_features_are_leading_tokens_through_the_final_norm(model, surrogate):
    state = torch.randn(SAMPLES, 10, WIDTH)
    layout = adapt(model).layout()
    with torch.no_grad():
        expected = model.norm(state)
        for one in (model, surrogate):
            np.testing.assert_allclose(features(adapt(one), state, layout), expected[:, 0], **FLOAT32)
        patches = TokenLayout((schema.REGISTER, *[schema.PATCH] * 9))
        np.testing.assert_allclose(features(adapt(model), state, patches), expected[:, 1:].mean(1), **FLOAT32)
    unnormed = adapt(Chain(nn.Linear(WIDTH, WIDTH)))
    padded = TokenLayout((schema.TOKEN,) * 7 + (schema.PAD,) * 3)
    np.testing.assert_allclose(features(unnormed, state, padded), state[:, :7].mean(1), **FLOAT32)


# exact cases


def test_blocks_that_are_all_equal_are_recurrent(images, labels):
    """The surrogate of a teacher that is recurrent already is exact before any training, and so is its repetition."""
    teacher = vit(classes=CLASSES)
    for block in teacher.blocks[1:]:
        block.load_state_dict(teacher.blocks[0].state_dict())
    with torch.no_grad():
        own = teacher(images).argmax(1).numpy()
    got = score(stand_in(teacher, (1, 1, 1, 1), (1,)), teacher, images, labels=own)
    for name in ("r2", "cosine", "agreement", "surrogate_accuracy", "recovery", "recovery_low", "recovery_high"):
        np.testing.assert_allclose(got[name], 1.0, **FLOAT64, err_msg=name)
    np.testing.assert_allclose(got.relative_error, 0.0, **EXACT)
    assert got.epsilon == 0
    repeated = got.sel(baseline="repeated")
    np.testing.assert_allclose(repeated.baseline_r2, 1.0, **FLOAT64)
    assert (repeated.baseline_epsilon, repeated.baseline_recovery) == (0, 1)
    truncated = got.sel(baseline="truncated", token_type="all").baseline_relative_error
    assert truncated.sel(depth=1) == 0
    assert (truncated.sel(depth=slice(2, None)) > 0).all()


def test_as_many_phases_as_blocks_leave_nothing_out(model, images):
    got = score(stand_in(model, (1, 2, 3, 4), (1, 2, 3, 4)), model, images)
    assert got.epsilon == 0
    np.testing.assert_allclose(got.baseline_epsilon.sel(baseline=["truncated", "repeated"]), 0.0, **EXACT)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_teacher_that_is_affine_within_phases_is_found_by_the_linear_baseline(held_out):
    torch.manual_seed(3)
    maps = [nn.Linear(WIDTH, WIDTH) for _ in range(2)]
    phases = (1, 1, 2, 2, 2)
    teacher = Chain(*(copy.deepcopy(maps[phase - 1]) for phase in phases)).double()
    x, others = (torch.randn(count, 5, WIDTH, dtype=torch.float64) for count in (9, 20))
    got = score(stand_in(teacher, phases, (1, 3)), teacher, x, train_inputs=others if held_out else None)
    exact = got.sel(baseline="linear", token_type="all")
    np.testing.assert_allclose(exact.baseline_r2, 1.0, **FLOAT32)
    np.testing.assert_allclose(exact.baseline_relative_error, 0.0, **FLOAT32)
    repeated = got.sel(baseline="repeated", token_type="all")
    np.testing.assert_allclose(repeated.baseline_relative_error, 0.0, **FLOAT64)
    assert got.token_type.values.tolist() == ["all", "token"]
    xr.testing.assert_equal(got.r2.sel(token_type="all", drop=True), got.r2.sel(token_type="token", drop=True))


# invariances


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("held_out", [True, False])
def test_batches_do_not_matter(surrogate, model, images, labels, batch_size, held_out):
    options: dict[str, Any] = {"labels": labels}
    if held_out:
        options |= {"train_inputs": images_of(5, 10), "train_labels": [2, 3] * 5}
    whole = score(surrogate, model, images, batch_size=SAMPLES, **options)
    got = score(surrogate, model, images, batch_size=batch_size, **options)
    xr.testing.assert_allclose(got, whole, **ITERATIVE)


def test_the_order_of_samples_does_not_matter_where_others_are_learnt_from(surrogate, model, images, labels):
    order, others = [3, 1, 4, 0, 6, 2, 5], images_of(5, 10)
    got = score(surrogate, model, images[order], labels=labels[order], train_inputs=others)
    xr.testing.assert_allclose(got, score(surrogate, model, images, labels=labels, train_inputs=others), **FLOAT32)


@pytest.mark.parametrize("way", ["loader", "list", "dict", "array", "dataset"])
def test_inputs_come_in_every_form(surrogate, model, images, labels, way):
    expected = score(surrogate, model, images, labels=labels, batch_size=2)
    dataset = TensorDataset(images, torch.from_numpy(labels))
    inputs: Any = {
        "loader": DataLoader(dataset, batch_size=2),
        "list": list(DataLoader(dataset, batch_size=2)),
        "dict": {"images": images, "label": labels},
        "array": images.numpy(),
        "dataset": dataset,
    }[way]
    got = score(surrogate, model, inputs, batch_size=2, **({"labels": labels} if way == "array" else {}))
    xr.testing.assert_identical(got, expected)


def test_batches_that_can_be_gone_through_once_are_scored_with_train_inputs(surrogate, model, images, labels):
    def batches() -> Any:
        yield images[:4], labels[:4]
        yield images[4:], labels[4:]

    got = score(surrogate, model, batches(), train_inputs=images_of(5, 10), batch_size=4)
    expected = score(surrogate, model, images, labels=labels, train_inputs=images_of(5, 10), batch_size=4)
    xr.testing.assert_identical(got, expected)
    with pytest.raises(
        ParameterError, match=r"goes through inputs twice .* can be gone through once.*or train_inputs="
    ):
        score(surrogate, model, batches())


def test_inputs_that_change_between_two_passes_are_refused(surrogate, model, images):
    torch.manual_seed(0)
    shuffled = DataLoader(TensorDataset(images), batch_size=2, shuffle=True)
    with pytest.raises(ParameterError, match=r"the second time the batch from sample \d on was another.*no shuffling"):
        score(surrogate, model, shuffled)
    assert score(surrogate, model, shuffled, train_inputs=images).attrs["samples"] == SAMPLES


def test_both_models_are_left_as_they_were(surrogate, model, images, labels):
    model.train()
    before = Snapshot(model), Snapshot(surrogate)
    score(surrogate, model, images, labels=labels, device="cpu", train_inputs=images, train_labels=labels)
    with pytest.raises(ParameterError, match="at least two samples"):
        score(surrogate, model, images[:1])
    before[0].require(model)
    before[1].require(surrogate)
    model.eval()


def test_the_surrogate_runs_where_the_model_is_or_where_both_are_sent(surrogate):
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert _elsewhere(surrogate, None, gpu) == gpu
    assert _elsewhere(surrogate, None, cpu) is None, "it is there already"
    assert _elsewhere(surrogate, "cuda", cpu) == "cuda"


def test_double_precision(images):
    teacher = vit(classes=CLASSES).double()
    surrogate = perturbed(teacher)
    got = score(surrogate, teacher, images)
    require_scores(got, "", states_of(surrogate, images), states_of(teacher, images), FLOAT64)
    one = score(perturbed(vit(classes=CLASSES)), vit(classes=CLASSES), images)
    xr.testing.assert_allclose(got.r2, one.r2, **ITERATIVE)


def test_scattered_phases_and_the_repetition_that_is_an_untrained_surrogate(model, images):
    got = score(stand_in(model, (1, 2, 1, 2), (1, 4)), model, images)
    assert got.phase.values.tolist() == [1, 2, 1, 2]
    repeated = got.sel(baseline="repeated", drop=True)
    for name in ("r2", "cosine", "relative_error"):
        np.testing.assert_allclose(repeated[f"baseline_{name}"], got[name], **FLOAT32)
    assert got.epsilon > 0.05


# texts


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=WIDTH, n_layer=3, n_head=3, n_positions=16, vocab_size=40, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    return transformers.GPT2Model(config).eval()


def test_texts_are_scored_without_their_padding():
    teacher = gpt2()
    surrogate = stand_in(teacher, (1, 1, 2), (1, 3), blocks=("h.0", "h.1", "h.2"))
    ids = torch.randint(40, (6, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:, 6:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    got = score(surrogate, teacher, inputs)
    assert got.token_type.values.tolist() == ["all", "pad", "token"]
    xr.testing.assert_equal(got.r2.sel(token_type="all", drop=True), got.r2.sel(token_type="token", drop=True))
    other = {"input_ids": torch.where(mask == 1, ids, 7), "attention_mask": mask}
    linear_of = [score(surrogate, teacher, x).sel(baseline="linear", token_type="all") for x in (inputs, other)]
    xr.testing.assert_allclose(linear_of[0].baseline_r2, linear_of[1].baseline_r2, **FLOAT32)
    probed = score(surrogate, teacher, inputs, labels=[0, 1] * 3, train_inputs=inputs, train_labels=[0, 1] * 3)
    assert probed.teacher_probe_accuracy == 1
    assert "agreement" not in probed


# labels and heads


def test_without_labels_there_is_agreement_alone(surrogate, model, images):
    got = score(surrogate, model, images)
    with torch.no_grad():
        assert got.agreement == (model(images).argmax(1) == surrogate(images).argmax(1)).double().mean().item()
    assert not {"teacher_accuracy", "recovery", "baseline_accuracy", "teacher_probe_accuracy"} & set(got.data_vars)
    assert "resamples" not in got.attrs


def test_a_head_reads_logits_from_what_the_models_return(surrogate, model, images, labels):
    flipped = score(surrogate, model, images, labels=labels, head=lambda logits: -logits)
    assert flipped.teacher_accuracy == 0
    assert np.isnan([flipped.recovery, flipped.recovery_low, *flipped.baseline_recovery]).all()
    alone = score(surrogate, model, images, head=lambda logits: -logits)
    assert alone.agreement == flipped.agreement
    probe = nn.Sequential(nn.Dropout(0.9), nn.Linear(CLASSES, CLASSES)).train()
    assert (
        score(surrogate, model, images, head=probe).agreement == score(surrogate, model, images, head=probe).agreement
    )
    assert all(module.training for module in probe.modules())


def test_a_model_without_logits_has_no_agreement():
    torch.manual_seed(0)
    teacher = Chain(*(nn.Linear(WIDTH, WIDTH) for _ in range(3)))
    surrogate, x = stand_in(teacher, (1, 1, 2), (1, 3)), torch.randn(SAMPLES, 5, WIDTH)
    assert "agreement" not in score(surrogate, teacher, x)
    with pytest.raises(ParameterError, match=r"score_surrogate got labels without a head: Chain gives"):
        score(surrogate, teacher, x, labels=[0] * SAMPLES)
    with pytest.raises(
        ParameterError, match=r"needs a head= that gives logits \(sample, class\): head= gives a tensor"
    ):
        score(surrogate, teacher, x, head=lambda states: states)
    options: dict[str, Any] = {"train_inputs": x, "train_labels": [0, 1] * 3 + [0]}
    got = score(surrogate, teacher, x, labels=[0, 1] * 3 + [0], **options)
    assert got.teacher_probe_accuracy == 1
    assert "teacher_accuracy" not in got


def test_a_head_that_reads_more_than_the_states_gives_no_agreement():
    class Counting(Chain):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)[:, 0, :3] * self.calls + torch.arange(3.0)

    torch.manual_seed(0)
    teacher = Counting(*(nn.Linear(WIDTH, WIDTH) for _ in range(3)))
    x = torch.randn(SAMPLES, 5, WIDTH)
    assert "agreement" not in score(stand_in(teacher, (1, 1, 2), (1, 3)), teacher, x)
    with pytest.raises(RecordError, match="reads more than these"):
        score(stand_in(teacher, (1, 1, 2), (1, 3)), teacher, x, labels=[0] * SAMPLES)


def test_logits_that_are_nan(surrogate, model, images, labels):
    broken = copy.deepcopy(model)
    broken.head.weight.data[2] = torch.nan
    with pytest.raises(RecordError, match="logits of the model that are NaN"):
        score(perturbed(broken), broken, images, labels=labels)
    other = perturbed(model)
    other.shell.head.weight.data[2] = torch.nan
    got = score(other, model, images, labels=labels)
    assert (got.surrogate_accuracy, got.agreement) == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 1, 2]}, r"needs one label for each of 7 samples; got 3"),
        ({"labels": [0, 1, 2, 3, 4, 5, 6]}, r"needs labels from 0 to 5, .* got 6 \(1 such\)"),
        ({"labels": list("abcdefg")}, r"needs labels as integers"),
        ({"labels": np.zeros((7, 2))}, r"needs labels as one class a sample"),
        ({"train_labels": [0] * 7}, r"was given train_labels= without train_inputs="),
        (
            {"train_inputs": torch.zeros(2, 1, 6, 6), "train_labels": [0, 1]},
            r"was given train_labels=, but no labels of the inputs to judge the probes by",
        ),
        (
            {"train_inputs": torch.zeros(2, 1, 6, 6), "train_labels": [0, 0], "labels": [0] * 7},
            r"at least two classes to learn, and one of them again; got 0 and 0\. Give",
        ),
        (
            {"train_inputs": torch.zeros(2, 1, 6, 6), "train_labels": ["a", "b"], "labels": [0] * 7},
            r"got 'a', 'b' and 0\. Give",
        ),
        ({"train_inputs": torch.zeros(2, 1, 6, 6), "train_labels": [0]}, r"one label for each of 2 samples; got 1"),
        ({"head": 3}, r"needs head as a callable .* got int"),
        ({"batch_size": 0}, r"needs batch_size as a whole number from 1; got 0"),
    ],
)
def test_arguments_that_do_not_fit(surrogate, model, images, options, message):
    with pytest.raises(ParameterError, match=message):
        score(surrogate, model, images, **options)


def test_all_faults_are_named_at_once(model, images):
    with pytest.raises(ParameterError, match=r"3 faults") as caught:
        score(model, model, images, batch_size=-1, train_labels=[0])
    assert "needs surrogate as a RecurrentSurrogate, what fit_surrogate returns; got VisionTransformer" in str(
        caught.value
    )


# other models, other states


def test_another_model_is_refused(surrogate, model, images):
    other = copy.deepcopy(model)
    other.head.bias.data[0] += 1e-3
    with pytest.raises(
        SurrogateError, match=r"fitted to other weights of teacher than this model has .* Give the model"
    ):
        score(surrogate, other, images)
    with pytest.raises(SurrogateError, match=r"stands for a model of 4 blocks and 12 features; got one of 2 blocks\."):
        score(surrogate, model, images, blocks=list(model.blocks[:2]))
    wide = Chain(*(nn.Linear(8, 8) for _ in range(4)))
    with pytest.raises(SurrogateError, match=r"got one of 4 blocks and 8 features"):
        score(stand_in(model, PHASES, MEDOIDS), wide, torch.randn(3, 5, 8))


def test_a_surrogate_of_given_blocks(images):
    teacher = vit(classes=CLASSES)
    given = list(teacher.blocks[1:])
    surrogate = stand_in(teacher, (1, 1, 2), (1, 3), blocks=("blocks.1", "blocks.2", "blocks.3"))
    got = score(surrogate, teacher, images, blocks=given)
    own, mirrored = states_of(teacher, images, blocks=given), states_of(surrogate, images)
    expected = oracle(mirrored[:, 3], own[:, 3])["r2"]
    np.testing.assert_allclose(got.r2.sel(depth=3, token_type="all"), expected, **FLOAT64)


def test_states_that_do_not_vary_have_no_r2(model, images):
    same = images[:1].expand(SAMPLES, -1, -1, -1)
    got = score(perturbed(model), model, same, batch_size=3)
    assert np.isnan(got.r2.sel(token_type="cls")).all(), "one state for all samples"
    assert np.isfinite(got.r2.sel(token_type=["all", "patch"])).all()
    assert np.isnan(got.baseline_r2.sel(token_type="cls")).all()
    assert np.isfinite(got.cosine).all()


def test_a_mean_far_from_zero_costs_no_digits():
    torch.manual_seed(0)
    teacher = Chain(*(nn.Linear(WIDTH, WIDTH) for _ in range(3))).double()
    surrogate = stand_in(teacher, (1, 1, 2), (1, 3))
    x = 1e5 + torch.randn(SAMPLES, 5, WIDTH, dtype=torch.float64)
    got, own, mirrored = score(surrogate, teacher, x, batch_size=2), states_of(teacher, x), states_of(surrogate, x)
    for depth in (1, 2, 3):
        expected = oracle(mirrored[:, depth], own[:, depth])["r2"]
        np.testing.assert_allclose(got.r2.sel(depth=depth, token_type="all"), expected, **ROUNDED_STATES)


def test_a_state_of_zeros_has_no_cosine_and_no_relative_error():
    teacher = Chain(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3)))
    x = torch.randn(SAMPLES, 5, WIDTH)
    x[2] = 0
    got = score(stand_in(teacher, (1, 1, 2), (1, 3)), teacher, x)
    assert np.isnan([got.epsilon, *got.cosine.values.ravel(), *got.relative_error.values.ravel()]).all()
    assert np.isfinite(got.r2).all()


def test_inputs_with_other_tokens_than_those_learnt_from():
    teacher = Chain(*(nn.Linear(WIDTH, WIDTH) for _ in range(3)))
    with pytest.raises(RecordError, match=r"a batch has other tokens than the first"):
        score(
            stand_in(teacher, (1, 1, 2), (1, 3)),
            teacher,
            torch.randn(4, 5, WIDTH),
            train_inputs=torch.randn(4, 6, WIDTH),
        )


def test_a_surrogate_whose_states_are_not_finite(model, images):
    surrogate, calls = perturbed(model), []

    def spoil(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        calls.append(None)
        spoilt = output.clone()
        spoilt[1, 3, 0] = torch.nan if len(calls) == 2 else 0
        return spoilt

    surrogate.steps[1].register_forward_hook(spoil)
    with pytest.raises(
        SurrogateError, match=r"states are not finite, first at depth 2, sample 5, token 3: its weights"
    ):
        score(surrogate, model, images, batch_size=4)


class Counting(nn.Module):
    """A block that does something else each time it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.calls = nn.Parameter(torch.ones(())), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.rate * self.calls * torch.tanh(x)


def test_blocks_that_cannot_be_called_again_leave_out_the_repetition_alone():
    teacher = Chain(*(Counting() for _ in range(3)))
    got = score(stand_in(teacher, (1, 1, 2), (1, 3)), teacher, torch.randn(SAMPLES, 5, WIDTH))
    assert np.isnan(got.baseline_r2.sel(baseline="repeated")).all()
    assert np.isnan(got.baseline_epsilon.sel(baseline="repeated"))
    assert np.isfinite(got.baseline_epsilon.sel(baseline=["identity", "linear", "truncated"])).all()
    assert "calls each block again" in got.attrs["repeated"]
