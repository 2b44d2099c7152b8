"""Surrogates of every family: with a block for each they are the teacher, and tools take them as any model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
import transformers
from torch import nn

import depthflow
from depthflow import RecurrentSurrogate, SurrogateSettings
from depthflow.errors import SurrogateError
from depthflow.models.detect import adapt
from depthflow.recording.feed import Feed
from depthflow.recording.mode import undisturbed
from depthflow.recording.replayer import Replayer
from depthflow.surrogate.planning import plan
from tests.adapters.families import CASES, DEPTH, HEADS, SAMPLES, SIDE, VOCABULARY, WIDTH, Case, images
from tests.adapters.runs import answer, call, given, passed_on, take
from tests.tolerances import FLOAT32, TRAINED

if TYPE_CHECKING:
    from torch import Tensor

BY_NAME = {case.name: case for case in CASES}
RECURRENT = {"hf ALBERT", "weight-tied"}
REPLAYABLE = [case for case in CASES if case.name not in RECURRENT]
POST_NORM = {"hf BERT", "hf MPNet, whose layers nothing marks", "hf wav2vec 2.0, whose convolutions are no blocks"}
MORE_BRANCHES = {"timm XCiT"}
"""Whose blocks have a third branch between attention and MLP."""
ONE_BRANCH = {"hub DINOv2 in chunks", "plain, dotted path", "plain, list of modules"}
ROTARY = {"timm DINOv3", "hf DINOv3ViT", "timm Qwen3, its encoder in a classifier"}
IMAGES = [case for case in REPLAYABLE if "patch" in case.types and case.name not in ROTARY]

pytestmark = pytest.mark.filterwarnings("ignore:fit_surrogate. the surrogate ends no nearer")


def untrained(
    case: Case, model: nn.Module, phases: tuple[int, ...] | None = None, **settings: Any
) -> RecurrentSurrogate:
    """Return the surrogate as it is before training."""
    adapter = adapt(model, given(case, model))
    chosen = SurrogateSettings(**settings)
    with undisturbed(adapter.root) as home, Replayer(adapter, home, "fit", chosen.init == "teacher") as replayer:
        replay = replayer.capture(next(iter(Feed(case.batch(), SAMPLES))))
        blocks = replay.n_blocks
        made = plan(replay, np.eye(blocks), phases or tuple(range(1, blocks + 1)), case.types, chosen)
    with undisturbed(adapter.root), torch.random.fork_rng():
        torch.manual_seed(0)
        return RecurrentSurrogate(adapter.root, made)


def unscaled(surrogate: RecurrentSurrogate) -> RecurrentSurrogate:
    """Let every scale be 1 exactly."""
    for block in surrogate.blocks:
        nn.init.zeros_(block.depth_scale.outer.weight)
        nn.init.zeros_(block.depth_scale.outer.bias)
    return surrogate


def fit(case: Case, model: nn.Module, batch: Any = None, **kwargs: Any) -> RecurrentSurrogate:
    settings = SurrogateSettings(steps=(2, 2), batch_size=SAMPLES, **kwargs.pop("settings", {}))
    return depthflow.fit_surrogate(
        model,
        case.batch() if batch is None else batch,
        blocks=given(case, model),
        settings=settings,
        validation=None,
        progress=False,
        **kwargs,
    )


@pytest.mark.parametrize("case", REPLAYABLE, ids=lambda case: case.name)
def test_with_a_block_for_each_and_unit_scales_it_is_the_teacher(case: Case) -> None:
    model = case.model()
    surrogate = unscaled(untrained(case, model))
    wanted, got = take(case, model, case.batch()), depthflow.record(surrogate, case.batch(), progress=False)
    np.testing.assert_allclose(got, wanted, **FLOAT32)
    np.testing.assert_allclose(answer(surrogate, case.batch()), answer(model.eval(), case.batch()), **FLOAT32)
    assert got.sizes["depth"] == case.depth + 1
    for name in ("token_type", "row", "col"):
        assert (name in got.coords) == (name in wanted.coords)
        if name in got.coords:
            assert got[name].values.tolist() == wanted[name].values.tolist()
    assert got.token_type.values.tolist() == case.types
    assert got.attrs["family"] == wanted.attrs["family"]
    assert got.attrs["model"] == f"RecurrentSurrogate (k = {case.depth}) of {wanted.attrs['model']}"


@pytest.mark.parametrize("case", REPLAYABLE, ids=lambda case: case.name)
def test_the_writers_are_found_where_blocks_have_two_branches(case: Case) -> None:
    found = untrained(case, case.model()).plan.writers
    if case.name in POST_NORM | MORE_BRANCHES | ONE_BRANCH:
        assert set(found) == {()}
        return
    attention, mlp = found[0]
    assert set(found) == {(attention, mlp)}
    assert "att" in attention
    assert attention.rpartition(".")[2] in {"proj", "o_proj", "out_proj", "c_proj", "dense"}
    assert mlp.rpartition(".")[2] in {"fc2", "down_proj", "c_proj", "dense", "2", "3"}


@pytest.mark.parametrize("name", ["timm ViT", "timm BeiT", "bundled ViT", "torchvision ViT"])
def test_scales_of_writers_scale_the_branches(name: str) -> None:
    """Against the teacher's own block, what its two branches write caught by hooks and scaled by hand."""
    case = BY_NAME[name]
    model = case.model().eval()
    surrogate = untrained(case, model)
    with torch.no_grad():
        for block in surrogate.blocks:
            block.depth_scale.outer.bias.add_(0.3 * torch.randn_like(block.depth_scale.outer.bias))
    number = 2
    step, block = surrogate.steps[number], case.blocks(model)[number]
    state = torch.from_numpy(take(case, model, case.batch()).values[:, number])
    attended, moved, output = surrogate.blocks[number].depth_scale(step.depth)
    norms = {"timm BeiT": ("norm1", "norm2"), "torchvision ViT": ("ln_1", "ln_2")}.get(name, ("norm1", "norm2"))
    middle: list[Tensor] = []
    second = block.get_submodule(norms[1])

    def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Replace the state between the branches by that with the first branch scaled."""
        middle.append(state + attended * (args[0] - state))
        return (middle[0],)

    with torch.no_grad():
        handle = second.register_forward_pre_hook(enter)
        plain = block(state)  # what it adds at its end is the MLP's branch of the scaled state
        handle.remove()
        seen: list[Tensor] = []
        handle = second.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        block(state)
        handle.remove()
        branch = plain - seen[0]
        wanted = output * (middle[0] + moved * branch)
        np.testing.assert_allclose(step(state), wanted, **FLOAT32)
        assert not torch.allclose(wanted, block(state), **FLOAT32)


@pytest.mark.parametrize("case", REPLAYABLE, ids=lambda case: case.name)
def test_a_fit_with_fewer_blocks_is_recorded_as_it_is_called(case: Case) -> None:
    """The recorder's states are those that the steps make one after another, and its end is the model's own answer."""
    model = case.model()
    surrogate = fit(case, model, n_phases=2)
    batch = case.batch()
    seen: list[Tensor] = []
    handles = [
        step.register_forward_hook(lambda *hook: seen.append(passed_on(hook[2]).clone())) for step in surrogate.steps
    ]
    own = answer(surrogate, batch)
    for handle in handles:
        handle.remove()
    got = depthflow.record(surrogate, batch, progress=False)
    assert len(surrogate.blocks) == 2
    np.testing.assert_allclose(got.values[:, 1:], torch.stack(seen, dim=1), **FLOAT32)
    np.testing.assert_allclose(got.values[:, 0], take(case, model, batch).values[:, 0], **FLOAT32)
    assert torch.equal(answer(surrogate, batch), own)


@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case.name)
def test_fresh_blocks_stand_in_for_those_of_image_models(case: Case) -> None:
    model = case.model()
    surrogate = fit(case, model, n_phases=2, settings={"init": "fresh"})
    got = depthflow.record(surrogate, case.batch(), progress=False)
    assert got.token_type.values.tolist() == case.types
    assert surrogate.plan.fresh["causal"] is False
    assert surrogate.plan.fresh["heads"] == (1 if case.name in ONE_BRANCH else HEADS)
    assert passed_on(call(surrogate, case.batch())).shape == answer(model, case.batch()).shape


@pytest.mark.parametrize("name", sorted(ROTARY))
def test_fresh_blocks_are_refused_where_blocks_are_given_positions(name: str) -> None:
    case = BY_NAME[name]
    with pytest.raises(
        SurrogateError, match=r"such as rotary positions, of which a fresh block knows nothing\. Use in"
    ):
        fit(case, case.model(), settings={"init": "fresh"})


def llama() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        intermediate_size=2 * WIDTH,
        **VOCABULARY,
    )
    return transformers.LlamaModel(config).eval()


def eva() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("eva02_tiny_patch14_224", img_size=28, depth=3, embed_dim=WIDTH, num_heads=HEADS)


TEXT = BY_NAME["hf GPT-2"]


@pytest.mark.parametrize(
    ("build", "batch"),
    [(llama, lambda: {"input_ids": TEXT.batch()["input_ids"]}), (eva, lambda: torch.randn(SAMPLES, 3, 28, 28))],
    ids=["Llama", "Eva"],
)
def test_other_models_with_rotary_positions(build: Any, batch: Any) -> None:
    model = build()
    settings = {"steps": (1, 1), "batch_size": SAMPLES}
    with pytest.raises(SurrogateError, match="rotary positions, of which a fresh block knows nothing"):
        depthflow.fit_surrogate(model, batch(), settings=SurrogateSettings(init="fresh", **settings), progress=False)
    made = depthflow.fit_surrogate(
        model, batch(), settings=SurrogateSettings(**settings), n_phases=2, validation=None, progress=False
    )
    assert depthflow.record(made, batch(), progress=False).sizes["depth"] == len(made.steps) + 1


@pytest.mark.parametrize("name", sorted(RECURRENT))
@pytest.mark.parametrize("init", ["teacher", "fresh"])
def test_recurrent_models_are_refused(name: str, init: str) -> None:
    case = BY_NAME[name]
    with pytest.raises(SurrogateError, match=r"applies \d blocks at \d depths: it is recurrent already"):
        fit(case, case.model(), settings={"init": init})


# text: order, padding, caches


def states(model: nn.Module, batch: Any) -> np.ndarray:
    return depthflow.record(model, batch, progress=False).values


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("init", ["teacher", "fresh"])
def test_a_surrogate_of_a_causal_model_is_causal(init: str, masked: bool) -> None:
    model, batch = TEXT.model(), TEXT.batch()
    if not masked:
        del batch["attention_mask"]
    surrogate = fit(TEXT, model, batch, n_phases=2, settings={"init": init, "learning_rate": 0.1, "matrix_rate": 0.1})
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    last = 4 if masked else 6
    changed["input_ids"][:, last] = (changed["input_ids"][:, last] + 1) % 90 + 3
    before, after = states(surrogate, batch), states(surrogate, changed)
    np.testing.assert_allclose(after[:, :, :last], before[:, :, :last], **FLOAT32)
    assert np.abs(after[:, -1, last] - before[:, -1, last]).min(axis=0).max() > 1e-3
    earlier = {**batch, "input_ids": batch["input_ids"].clone()}
    earlier["input_ids"][:, 1] = (earlier["input_ids"][:, 1] + 1) % 90 + 3
    assert np.abs(states(surrogate, earlier)[:, -1, last] - before[:, -1, last]).max() > 1e-5


@pytest.mark.parametrize("name", ["hf BERT", "hf GPT-2"])
@pytest.mark.parametrize("init", ["teacher", "fresh"])
def test_padding_is_not_attended_to(name: str, init: str) -> None:
    case = BY_NAME[name]
    batch = case.batch()
    surrogate = fit(case, case.model(), n_phases=2, settings={"init": init, "learning_rate": 0.1, "matrix_rate": 0.1})
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][:, 5:] = (changed["input_ids"][:, 5:] + 1) % 90 + 3
    before, after = states(surrogate, batch), states(surrogate, changed)
    np.testing.assert_allclose(after[:, :, :5], before[:, :, :5], **FLOAT32)
    assert np.abs(after[:, -1, 5:] - before[:, -1, 5:]).max() > 1e-3


def test_a_cache_of_keys_does_not_mix_the_depths_of_a_block() -> None:
    model, batch = TEXT.model().eval(), TEXT.batch()
    del batch["attention_mask"]  # with one, mixed depths differ in shape from it, and fail
    assert model.config.use_cache
    surrogate = fit(TEXT, model, batch, n_phases=2)
    assert model.config.use_cache
    with torch.no_grad():
        own = surrogate(**batch).last_hidden_state
        np.testing.assert_array_equal(own, surrogate(**batch, use_cache=False).last_hidden_state)
    last = torch.from_numpy(states(surrogate, batch)[:, -1])
    with torch.no_grad():
        np.testing.assert_allclose(own, model.ln_f(last), **FLOAT32)


# the other tools


@pytest.mark.parametrize("name", ["timm ViT", "hf ViT", "hf BERT", "hf GPT-2", "bundled ViT", "plain, dotted path"])
def test_perturb_and_swap_blocks_take_a_surrogate(name: str) -> None:
    case = BY_NAME[name]
    surrogate = fit(case, case.model(), n_phases=2)
    tokens = [0, 2]
    pushed = depthflow.perturb(surrogate, case.batch(), depth=1, tokens=tokens, n_draws=2, progress=False)
    assert pushed.depth.values.tolist() == list(range(DEPTH + 1))
    assert bool(np.isfinite(pushed.gain.sel(depth=slice(1, None))).all())
    swapped = depthflow.swap_blocks(surrogate, case.batch(), tokens=tokens, progress=False).effect.values
    assert swapped.shape == (DEPTH, DEPTH)
    np.testing.assert_array_equal(np.diag(swapped), 0.0)
    # Two depths of one block differ by what it is told of its depth alone, so that swapping them changes little.
    phases = surrogate.phases
    within = [swapped[i, j] for i in range(DEPTH) for j in range(DEPTH) if i != j and phases[i] == phases[j]]
    between = [swapped[i, j] for i in range(DEPTH) for j in range(DEPTH) if phases[i] != phases[j]]
    assert max(within) < min(between)


@pytest.mark.parametrize("init", ["teacher", "fresh"])
def test_the_jacobian_of_a_surrogate_is_autograd_s(init: str) -> None:
    case = BY_NAME["bundled ViT"]
    surrogate = fit(case, case.model(), n_phases=2, settings={"init": init})
    batch = case.batch()
    got = depthflow.jacobian(
        surrogate, batch, span=(1, 4), directional=False, dense=True, n_modes=WIDTH, progress=False
    )
    for sample in range(SAMPLES):
        start = torch.from_numpy(states(surrogate, batch)[sample : sample + 1, 1])

        def path(cls: Tensor, start: Tensor = start) -> Tensor:
            state = torch.cat([cls[None, None], start[:, 1:]], dim=1)
            for depth in (2, 3, 4):
                state = surrogate.steps[depth - 1](state)
            return state[0, 0]

        wanted = torch.linalg.svdvals(torch.autograd.functional.jacobian(path, start[0, 0]))
        np.testing.assert_allclose(got.singular_value.values[sample, 0], wanted, **TRAINED)


def test_classifiers_keep_their_head() -> None:
    case = BY_NAME["timm ViT in a classifier"]
    model = case.model().eval()
    surrogate = fit(case, model, n_phases=2)
    assert torch.equal(surrogate.shell.head.weight, model.head.weight)
    assert answer(surrogate, images()).shape == (SAMPLES, 2)


def test_another_size_of_image_is_taken_where_the_teacher_takes_it() -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=SIDE,
        patch_size=8,
        embed_dim=WIDTH,
        depth=3,
        num_heads=3,
        dynamic_img_size=True,
    )
    batch = torch.randn(SAMPLES, 3, SIDE, SIDE)
    settings = SurrogateSettings(steps=(1, 1), batch_size=SAMPLES)
    made = depthflow.fit_surrogate(model, batch, settings=settings, validation=None, progress=False)
    got = depthflow.record(made, torch.randn(2, 3, 48, 32), progress=False)
    assert got.sizes["token"] == 1 + 6 * 4
    assert got.row.values.max() == 5


def test_a_deep_copy_is_recorded_alike() -> None:
    case = BY_NAME["hf ViT"]
    surrogate = fit(case, case.model(), n_phases=2)
    np.testing.assert_array_equal(states(copy.deepcopy(surrogate), case.batch()), states(surrogate, case.batch()))
