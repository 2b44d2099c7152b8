"""Blocks called again: what was recorded comes back, and where it would not, the block and argument are named."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from depthflow.errors import ParameterError, RecordError, UnsupportedModelError
from depthflow.recording.arguments import HERE, Arguments, leaving, left_with, take_state
from depthflow.recording.session import session
from tests.adapters.families import CASES, Case
from tests.adapters.runs import WAYS_TO_COMPILE, call, compiled, given
from tests.snapshot import Snapshot
from tests.stacks import Chain
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import FLOAT32

SAMPLES, TOKENS, WIDTH = 3, 7, 12
BY_NAME = {case.name: case for case in CASES}


@contextmanager
def run(model: nn.Module, inputs: Any, **kwargs: Any):
    options = {"tokens": None, "labels": None, "batch_size": 32, "device": None, "blocks": None} | kwargs
    with session(model, inputs, "test", progress=False, **options) as opened:
        yield opened


@contextmanager
def one(case: Case, model: nn.Module, batch: Any, **kwargs: Any):
    with run(model, batch, blocks=given(case, model), **kwargs) as opened:
        yield next(iter(opened))


def tensors(output: Any) -> list[Tensor]:
    """Return every tensor that a model returned."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if hasattr(output, "values") else output if isinstance(output, list | tuple) else []
    return [tensor for part in parts for tensor in tensors(part)]


class Tanh(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator) / 4)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x + (x @ self.weight).tanh()


def states() -> Tensor:
    return torch.randn(SAMPLES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))


# every family


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_block_and_the_head_give_again_what_they_gave_bit_for_bit(case: Case) -> None:
    model, batch = case.model().eval(), case.batch()
    with torch.no_grad():
        expected = tensors(call(model, batch))
    with one(case, model, batch) as replay:
        assert (replay.n_blocks, len(replay.states)) == (case.depth, case.depth + 1)
        for number in range(1, case.depth + 1):
            assert torch.equal(replay.block(number, replay.states[number - 1]), replay.states[number])
        for at, state in enumerate(replay.path(1, replay.states[1]), start=1):
            assert torch.equal(state, replay.states[at])
        assert torch.equal(replay.span(0, case.depth, replay.states[0]), replay.states[-1])
        again = tensors(replay.readout(replay.states[1:]))
    assert len(again) > 0
    assert all(map(torch.equal, again, tensors(replay.output)))
    # Without a cache, models that keep one return fewer tensors.
    assert torch.equal(again[0], expected[0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_copies_of_a_batch_go_through_a_block_side_by_side(case: Case) -> None:
    model, batch = case.model(), case.batch()
    with one(case, model, batch) as replay:
        for number in range(1, case.depth + 1):
            before, after = replay.states[number - 1], replay.states[number]
            other = before.flip(-1)
            both = replay.block(number, torch.cat([before, other, before]))
            expected = torch.cat([after, replay.block(number, other), after])
            np.testing.assert_allclose(both.numpy(), expected.numpy(), **FLOAT32)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_head_reads_the_states_it_is_given(case: Case) -> None:
    model, batch = case.model(), case.batch()
    with one(case, model, batch) as replay:
        other = [state.flip(-1) for state in replay.states[1:]]
        changed = tensors(replay.readout(other))[0]
    assert changed.shape == tensors(replay.output)[0].shape
    assert not torch.equal(changed, tensors(replay.output)[0])


def place(model: nn.Module) -> Any:
    """Everything of a model that a replay touches while it lasts."""
    config = getattr(model, "config", None)
    return (
        [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in m.__dict__) for m in model.modules()],
        getattr(config, "use_cache", None),
    )


@pytest.mark.parametrize("failure", [None, ValueError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_model_is_left_as_it_was(case: Case, failure: BaseException | None) -> None:
    model, batch = case.model().train(), case.batch()
    before, then = Snapshot(model), place(model)

    def go() -> None:
        with one(case, model, batch) as replay:
            replay.readout(replay.states[1:])
            if failure:
                raise failure

    if failure is None:
        go()
    else:
        with pytest.raises(type(failure)):
            go()
    before.require(model)
    assert place(model) == then


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()])
def test_the_model_is_left_as_it_was_if_the_head_fails_in_a_readout(failure: BaseException) -> None:
    class Armed(Chain):
        armed = False

        def forward(self, x: Tensor) -> Tensor:
            x = super().forward(x)
            if self.armed:
                raise failure
            return x

    model = Armed(Tanh(), Tanh(1))
    own = model.blocks[0].forward = model.blocks[0].forward  # one forward is the instance's own, the other the class's
    then = place(model)

    def go() -> None:
        with run(model, states()) as opened:
            replay = next(iter(opened))
            model.armed = True
            replay.readout(replay.states[1:])

    with pytest.raises(RecordError if isinstance(failure, ValueError) else KeyboardInterrupt):
        go()
    assert place(model) == then
    assert model.blocks[0].forward is own


def test_gpt2_keeps_no_cache_while_its_blocks_are_called_again() -> None:
    case = BY_NAME["hf GPT-2"]
    model, batch = case.model(), case.batch()
    assert model.config.use_cache
    with one(case, model, batch) as replay:
        assert not model.config.use_cache
        assert getattr(replay.output, "past_key_values", None) is None
    assert model.config.use_cache


def test_each_sample_keeps_its_own_mask_in_every_copy() -> None:
    case = BY_NAME["hf BERT"]
    model, batch = case.model(), case.batch()
    batch["attention_mask"] = torch.ones(SAMPLES, 7, dtype=torch.long)
    for sample, length in enumerate((3, 5, 7)):
        batch["attention_mask"][sample, length:] = 0
    with one(case, model, batch, tokens=[0]) as replay:
        assert replay.axes, "the mask has an axis of samples"
        before, after = replay.states[1], replay.states[2]
        twice = replay.block(2, torch.cat([before, before])).unflatten(0, (2, SAMPLES))
        np.testing.assert_allclose(twice.numpy(), torch.stack([after, after]).numpy(), **FLOAT32)
        # What is masked in one sample and not in others must not be seen there.
        other = before.clone()
        other[:, 4] += 1
        changed = (replay.block(2, other)[:, 0] - after[:, 0]).abs().amax(-1)
    assert (changed > 0).tolist() == [False, True, True]


def test_batches_with_and_without_a_mask_keep_their_own_axes() -> None:
    case = BY_NAME["hf BERT"]
    model, batch = case.model(), case.batch()
    bare = {"input_ids": batch["input_ids"]}
    with run(model, [batch, bare, batch], tokens=[0]) as opened:
        for replay, masked in zip(opened, (True, False, True), strict=True):
            assert bool(replay.axes) == masked
            before, after = replay.states[1], replay.states[2]
            twice = replay.block(2, torch.cat([before, before])).unflatten(0, (2, SAMPLES))
            np.testing.assert_allclose(twice.numpy(), torch.stack([after, after]).numpy(), **FLOAT32)


def test_weight_tied_blocks_count_each_time() -> None:
    case = BY_NAME["weight-tied"]
    model, batch = case.model(), case.batch()
    with one(case, model, batch) as replay:
        assert [made.module for made in replay.calls] == case.blocks(model)
        assert torch.equal(replay.block(1, replay.states[1]), replay.states[2])
        assert not torch.equal(replay.block(4, replay.states[1]), replay.states[2])


@pytest.mark.parametrize("way", WAYS_TO_COMPILE)
@pytest.mark.parametrize("name", ["timm ViT", "bundled ViT"])
def test_compiled_models_are_called_again_uncompiled(name: str, way: str) -> None:
    case = BY_NAME[name]
    model, batch = case.model().eval(), case.batch()
    with compiled(case, model, way) as fast:
        with torch.no_grad():
            expected = call(fast, batch)
        then = place(model)
        with one(case, fast, batch) as replay:
            np.testing.assert_allclose(replay.readout(replay.states[1:]).numpy(), expected.numpy(), **FLOAT32)
            assert torch.equal(replay.block(2, replay.states[1]), replay.states[2])
        assert place(model) == then


def test_a_hook_that_changes_a_blocks_output_is_part_of_the_block() -> None:
    model = Chain(Tanh(), Tanh(1))
    model.blocks[1].register_forward_hook(lambda module, args, output: 3 * output)
    model.blocks[1].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    x = states()
    with torch.no_grad():
        expected = model(x)
    with run(model, x) as opened:
        replay = next(iter(opened))
        assert torch.equal(replay.states[-1], expected)
        assert torch.equal(replay.block(2, replay.states[0]), 3 * model.blocks[1].forward(replay.states[0] + 1))


def test_a_hook_that_changes_the_first_blocks_input_is_refused() -> None:
    """Depth 0 is what the block is given after such a hook, which would change it again."""
    model = Chain(Tanh(), Tanh(1))
    model.blocks[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    with (
        pytest.raises(RecordError, match=r"'blocks\.0' then returns another state"),
        run(model, states()) as opened,
    ):
        next(iter(opened))


def test_what_a_block_does_to_its_input_in_place_stays_with_it() -> None:
    with run(Chain(*[lambda x: x.mul_(2)] * 2), states()) as opened:
        replay = next(iter(opened))
        given_state = replay.states[0].clone()
        replay.block(1, replay.states[0])
        assert torch.equal(replay.states[0], given_state)
        assert torch.equal(replay.states[2], 4 * given_state)


# refusals


def test_a_model_that_changes_the_states_between_its_blocks() -> None:
    class Between(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return self.blocks[1](1.01 * self.blocks[0](x))

    with (
        pytest.raises(RecordError, match=r"changes the states between 'blocks\.0' and 'blocks\.1'\. Pass blocks="),
        run(Between(Tanh(), Tanh(1)), states()) as opened,
    ):
        next(iter(opened))


def test_an_argument_that_follows_the_state_is_named() -> None:
    class Gated(Chain):
        def forward(self, x: Tensor) -> Tensor:
            gate = x.mean(dim=-1, keepdim=True).sigmoid()
            for block in self.blocks:
                x = block(x, gate=gate)
            return x

    class Block(Tanh):
        def forward(self, x: Tensor, gate: Tensor) -> Tensor:
            return x + gate * (x @ self.weight).tanh()

    class FollowsStates(Gated):
        """The gate is of the states inside the stack."""

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x, gate=x.mean(dim=-1, keepdim=True).sigmoid())
            return x

    with (
        pytest.raises(RecordError, match=r"the argument 'gate' of 'blocks\.1' follows the state"),
        run(FollowsStates(Block(), Block(1)), states()) as opened,
    ):
        next(iter(opened))
    # A gate of the input alone is the model's own business, as a mask is.
    with run(Gated(Block(), Block(1)), states()) as opened:
        replay = next(iter(opened))
        assert torch.equal(replay.block(2, replay.states[1]), replay.states[2])


class Memory:
    """Something that counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def next(self) -> int:
        self.asked += 1
        return self.asked


def test_a_memory_among_the_arguments_is_named() -> None:
    class Remembering(Chain):
        def forward(self, x: Tensor) -> Tensor:
            memory = Memory()
            for block in self.blocks:
                x = block(x, cache=memory)
            return x

    class Block(Tanh):
        def forward(self, x: Tensor, cache: Memory) -> Tensor:
            return x + cache.next() * (x @ self.weight).tanh()

    with (
        pytest.raises(RecordError, match=r"'blocks\.1' then returns another state, off by .*: 'cache' \(Memory\)\."),
        run(Remembering(Block(), Block(1)), states()) as opened,
    ):
        next(iter(opened))


def test_a_block_that_counts_its_own_calls_is_named() -> None:
    class Counting(Tanh):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x + self.calls * (x @ self.weight).tanh()

    with (
        pytest.raises(RecordError, match=r"'blocks\.1' then returns another state, .* Turn off caches and dropout"),
        run(Chain(Tanh(), Counting(1)), states()) as opened,
    ):
        next(iter(opened))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_state_that_is_not_finite_says_where(value: float) -> None:
    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[1, 4, 2] = value
        return x

    with (
        pytest.raises(RecordError, match=r"not finite, first at depth 2, sample 1 of its batch, token 4"),
        run(Chain(Tanh(), spoil), states()) as opened,
    ):
        next(iter(opened))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_where_a_small_change_matters(dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    with run(Chain(Tanh(), Tanh(1)).to(dtype), states()) as opened:
        replay = next(iter(opened))
        with pytest.raises(
            RecordError,
            match=rf"test needs a model in float32 or float64, as .* rounded away in {kind}\. .*deepcopy\(model\)\.f",
        ):
            opened.require_full_precision(replay)
    with run(Chain(Tanh(), Tanh(1)).double(), states()) as opened:
        opened.require_full_precision(next(iter(opened)))


# the session


def test_a_session_counts_samples_and_knows_tokens_labels_and_blocks() -> None:
    model = Chain(Tanh(), Tanh(1))
    with run(model, states(), labels=[4, 5, 6], batch_size=2, tokens=[5, 1]) as opened:
        with pytest.raises(RecordError, match="no batch has been run yet"):
            _ = opened.chosen
        seen = [(opened.count, replay.batch.size, opened.labels[-1].tolist()) for replay in opened]
    assert seen == [(0, 2, [4, 5]), (2, 1, [6])]
    assert (opened.count, opened.n_blocks) == (3, 2)
    found = opened.coords(opened.chosen)
    assert found["token"].tolist() == [5, 1]
    assert found["label"][1].tolist() == [4, 5, 6]
    assert (found["block"].tolist(), found["module"][1].tolist()) == ([1, 2], ["blocks.0", "blocks.1"])
    assert opened.attributes()["family"] == "torch/Chain"


def test_a_depth_that_the_model_does_not_have() -> None:
    with run(Chain(Tanh(), Tanh(1)), states()) as opened:
        next(iter(opened))
        opened.require_depth(1, 1)
        for depth in (-1, 2):
            with pytest.raises(ParameterError, match=rf"depth {depth}, but the model has 2 blocks: 0 to 1"):
                opened.require_depth(depth, 1)


def test_batches_of_other_lengths_are_refused() -> None:
    batches = [states(), states()[:, :5]]
    with (
        pytest.raises(RecordError, match=r"a batch has other tokens than the first: 5 token against 7 token"),
        run(Chain(Tanh(), Tanh(1)), batches) as opened,
    ):
        list(opened)


@pytest.mark.parametrize(
    ("stand_in", "name", "types"),
    [(True, "timm SigLIP", {"patch"}), (True, "plain, dotted path", {"token"}), (True, "hf BERT", {"cls"})],
)
def test_what_stands_in_for_a_class_token(stand_in: bool, name: str, types: set[str]) -> None:
    case = BY_NAME[name]
    model, batch = case.model(), case.batch()
    with run(model, batch, blocks=given(case, model), tokens="cls", stand_in=stand_in) as opened:
        next(iter(opened))
    assert set(opened.chosen.types()) == types
    assert opened.chosen.count == sum(kind in types for kind in case.types)


def test_padding_does_not_stand_in_for_a_class_token_and_without_a_stand_in_there_is_an_error() -> None:
    case = BY_NAME["hf GPT-2"]
    model, batch = case.model(), case.batch()
    with run(model, batch, tokens="cls", stand_in=True) as opened:
        next(iter(opened))
    assert opened.chosen.types() == ["token"] * 5
    with pytest.raises(ParameterError, match="no token of type 'cls'"), run(model, batch, tokens="cls") as opened:
        next(iter(opened))


def test_a_batch_is_let_go_when_the_next_one_is_there() -> None:
    with run(Chain(Tanh(), Tanh(1)), states(), batch_size=1) as opened:
        before = None
        for replay in opened:
            now = weakref.ref(replay.states[1])
            del replay
            gc.collect()
            assert before is None or before() is None
            before = now


# arguments


def test_the_state_is_the_first_tensor_by_position_or_else_by_name() -> None:
    x, mask = torch.zeros(1), torch.ones(1)
    for args, kwargs in [((x, mask), {}), (([x], mask), {}), ((), {"hidden": x, "mask": mask}), ((None,), {"x": x})]:
        state, arguments = take_state(args, kwargs, "b")
        assert state is x
        filled = arguments.map(lambda name, leaf: x if leaf is HERE else leaf)
        assert repr(filled) == repr(Arguments(args, kwargs))
    with pytest.raises(UnsupportedModelError, match=r"the block 'b' is called without a tensor\. Pass blocks="):
        take_state((1,), {"y": "z"}, "b")


def test_arguments_are_named_by_where_they_are() -> None:
    x, cos, sin, mask = torch.zeros(4).unbind()
    _, arguments = take_state((x, None, [1, mask]), {"rope": (cos, sin), "kinds": {"full": mask}}, "b")
    names = {"args[1]", "args[2][0]", "args[2][1]", "rope[0]", "rope[1]", "kinds['full']"}
    assert arguments.leaves().keys() == names
    doubled = arguments.map(lambda name, leaf: f"{name}!" if isinstance(leaf, Tensor) else leaf)
    assert doubled.kwargs == {"rope": ("rope[0]!", "rope[1]!"), "kinds": {"full": "kinds['full']!"}}


def test_the_state_that_a_block_returns_and_its_place() -> None:
    x, y, weights = torch.zeros(3).unbind()
    for output in (x, (x, weights), [x], (x,)):
        assert leaving(output, "b") is x
        again = left_with(output, y)
        assert type(again) is type(output)
        assert leaving(again, "b") is y
    assert left_with((x, weights), y)[1] is weights
    for output in ({"x": x}, [x, weights], None):
        with pytest.raises(UnsupportedModelError, match=rf"the block 'b' returns {type(output).__name__}, not a state"):
            leaving(output, "b")


class Residual(nn.Module):
    """A block that keeps what it made where a later one finds it, other than in its output."""

    def __init__(self, box: dict[str, Tensor], first: bool) -> None:
        super().__init__()
        self.box, self.first = box, first

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            self.box["value"] = x.tanh()
        return x + 0.5 * self.box["value"]


def test_blocks_that_hand_on_more_than_they_return_are_refused() -> None:
    box: dict[str, Tensor] = {}
    chain = Chain(*(Residual(box, first=number == 0) for number in range(3)))
    with (
        pytest.raises(RecordError, match=r"then (fails|returns another state)"),
        run(chain, states()) as opened,
    ):
        next(iter(opened))
    writing = Chain(*(Residual(box, first=True) for _ in range(3)))
    with run(writing, states()) as opened:
        assert next(iter(opened)).n_blocks == 3, "what a block keeps for itself alone does no harm"


@pytest.mark.parametrize(
    "acting",
    [lambda x: x + (x - x.mean(0)).tanh(), lambda x: x + x.tanh() * len(x)],
    ids=["on each other", "by the size of the batch"],
)
def test_samples_that_do_not_go_their_own_way_are_refused(acting: Any) -> None:
    with (
        pytest.raises(RecordError, match=r"'blocks\.1' then returns another state.* Samples act on each other"),
        run(Chain(torch.tanh, acting), states()) as opened,
    ):
        next(iter(opened))


def test_a_state_that_hides_in_a_container_is_refused() -> None:
    class Box(OrderedDict):
        pass

    class Hiding(Chain):
        def forward(self, x: Tensor) -> Tensor:
            first = x
            for block in self.blocks:
                x = block(x, kept=Box(first=first))
            return x

    class Block(nn.Module):
        def forward(self, x: Tensor, kept: Box) -> Tensor:
            return x + kept["first"].tanh()

    with (
        pytest.raises(RecordError, match="on what is not among its arguments"),
        run(Hiding(Block(), Block()), states()) as opened,
    ):
        next(iter(opened))


class Pair(NamedTuple):
    state: Tensor
    extra: Tensor


def test_blocks_that_return_a_named_tuple() -> None:
    class Named(Chain):
        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x).state
            return x

    model = Named(lambda x: Pair(x.tanh(), x), lambda x: Pair(x.sin(), x))
    with run(model, states()) as opened:
        replay = next(iter(opened))
        assert torch.equal(replay.readout(replay.states[1:]), replay.output)


class Half(nn.Module):
    """A block whose weights are in half precision, on a stream that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(states().shape[2], states().shape[2]).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x.bfloat16()).to(x.dtype)


def test_half_precision_inside_a_full_stream_is_seen() -> None:
    with run(Chain(Half()), states()) as opened:
        replay = next(iter(opened))
        with pytest.raises(RecordError, match=r"rounded away in bfloat16.*outside of autocast"):
            opened.require_full_precision(replay)
    with run(Chain(torch.tanh), states()) as opened:
        replay = next(iter(opened))
        opened.require_full_precision(replay)
        with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(RecordError, match="rounded away in autocast"):
            opened.require_full_precision(replay)
