"""What a fit learns from: the order of samples, and states that are the teacher's, whatever they are read from."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import depthflow
from depthflow.errors import RecordError, SurrogateError, TrajectoryError
from depthflow.models.detect import adapt
from depthflow.recording.mode import undisturbed
from depthflow.recording.replayer import Replayer
from depthflow.recording.share import Share
from depthflow.surrogate import lessons
from depthflow.surrogate import stored as storing
from depthflow.surrogate.lessons import LiveSource, Order, repeatable, seeded
from depthflow.surrogate.stored import StoredSource
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import FLOAT32

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLES, BATCH = 11, 4
PER_EPOCH = 2
SEED = 5
ALONE = Share()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return vit()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def states(model, images) -> np.ndarray:
    """Of each image, by the recorder."""
    return depthflow.record(model, images, progress=False).values


@pytest.fixture
def live(model):
    """Make sources of a model that is run undisturbed as long as the test lasts."""
    with ExitStack() as stack:
        home = stack.enter_context(undisturbed(model))
        replayer = stack.enter_context(Replayer(adapt(model), home, "fit_surrogate"))
        yield lambda inputs, share=ALONE, **kwargs: LiveSource(replayer, inputs, BATCH, SEED, share, **kwargs)


def stored(model: nn.Module, traj: Any, share: Share = ALONE, batch_size: int = BATCH) -> StoredSource:
    return StoredSource(traj, adapt(model), torch.device("cpu"), batch_size, SEED, share)


def joined(parts: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


def who(lesson: lessons.Lesson, states: np.ndarray) -> list[int]:
    """Return which samples a lesson holds, and require its states at every depth to be theirs."""
    found = torch.stack(lesson.states, dim=1).numpy()
    index = [int(np.abs(states[:, 0] - one[0]).sum(axis=(1, 2)).argmin()) for one in found]
    np.testing.assert_allclose(found, states[index], **FLOAT32)
    return index


# order


def grains(count: int, size: int) -> list[int]:
    """Return the sizes of grains of ``size`` samples, the last one what is left."""
    return [min(size, count - start) for start in range(0, count, size)]


@pytest.mark.parametrize("of", [1, 2, 3])
@pytest.mark.parametrize(("grain", "window"), [(1, None), (3, 2), (4, 1)])
def test_every_sample_comes_once_an_epoch_and_to_one_process(of, grain, window):
    count, size = 37, 4
    orders = [Order(count, size, SEED, Share(rank, of), grains(count, grain), window) for rank in range(of)]
    steps = count // (size * of)
    seen = []
    for epoch in range(3):
        given = [order.at(1, epoch * steps + step) for step in range(steps) for order in orders]
        assert {len(part) for part in given} == {size}
        every = np.concatenate(given)
        assert len(np.unique(every)) == len(every) == steps * size * of
        assert 0 <= every.min() <= every.max() < count
        seen.append(every.tolist())
    assert seen[0] != seen[1] != seen[2]
    assert set(np.concatenate(seen)) == set(range(count))  # what is left of one epoch comes in another


def test_two_processes_see_what_one_with_twice_the_batch_sees():
    whole = Order(37, 8, SEED, Share())
    for step in range(9):
        parts = [Order(37, 4, SEED, Share(rank, 2)).at(2, step) for rank in (0, 1)]
        assert np.concatenate(parts).tolist() == whole.at(2, step).tolist()


def test_the_order_is_the_stage_s_and_the_seed_s_and_no_history_s():
    order = Order(37, 4, SEED, Share())
    forward = {(stage, step): order.at(stage, step).tolist() for stage in (1, 2) for step in range(25)}
    for stage, step in [(2, 24), (1, 3), (1, 24), (2, 0), (1, 0)]:
        assert order.at(stage, step).tolist() == forward[stage, step]
        assert Order(37, 4, SEED, Share()).at(stage, step).tolist() == forward[stage, step]
    assert forward[1, 0] != forward[2, 0]
    assert Order(37, 4, SEED + 1, Share()).at(1, 0).tolist() != forward[1, 0]


def test_a_window_holds_whole_grains_and_is_shuffled_within():
    grain, window, count = 4, 3, 40
    order = np.concatenate(
        [Order(count, 4, SEED, Share(), grains(count, grain), window).at(1, step) for step in range(10)]
    )
    for start in range(0, count, grain * window):
        part = np.sort(order[start : start + grain * window])
        assert np.all(np.bincount(part // grain, minlength=10)[np.unique(part // grain)] == grain)
        assert order[start : start + grain * window].tolist() != part.tolist()
    assert order.tolist() != sorted(order)


def test_a_batch_larger_than_the_samples_is_all_of_them():
    assert sorted(Order(3, 64, SEED, Share()).at(1, 7)) == [0, 1, 2]
    assert sorted(np.concatenate([Order(7, 64, SEED, Share(rank, 2)).at(1, 0) for rank in (0, 1)])).__len__() == 6


def test_more_processes_than_samples_are_refused():
    with pytest.raises(SurrogateError, match=r"3 processes cannot share 2 samples\. Give more samples"):
        Order(2, 4, SEED, Share(0, 3))


# the teacher on the fly


def batches(images: Tensor) -> list[Tensor]:
    return list(images.split(BATCH))


def test_lessons_of_an_array_are_the_samples_of_the_order(live, images, states):
    source = live(images)
    order = Order(SAMPLES, BATCH, SEED, Share())
    for stage, step in [(1, 0), (1, 1), (1, 2), (2, 7), (1, 5), (1, 0)]:
        assert who(source.at(stage, step), states) == order.at(stage, step).tolist()
    assert source.count == SAMPLES
    assert source.token_types == ["cls"] + ["patch"] * 9


@pytest.mark.parametrize("kind", ["array", "dict", "dataset", "labelled dataset", "list", "loader", "shuffled loader"])
def test_a_step_s_lesson_is_the_same_each_time_it_is_asked(live, images, states, kind):
    labels = torch.arange(SAMPLES)
    inputs = {
        "array": images.numpy(),
        "dict": {"images": images, "labels": labels},
        "dataset": TensorDataset(images),
        "labelled dataset": TensorDataset(images, labels),
        "list": batches(images),
        "loader": DataLoader(TensorDataset(images, labels), BATCH),
        "shuffled loader": DataLoader(TensorDataset(images, labels), BATCH, shuffle=True),
    }[kind]
    source = live(inputs)
    forward = {(stage, step): who(source.at(stage, step), states) for stage in (1, 2) for step in range(5)}
    for stage, step in [(2, 4), (1, 1), (1, 0), (1, 4), (2, 3), (2, 4)]:
        torch.manual_seed(stage * step)  # the caller's random numbers are the caller's
        assert who(source.at(stage, step), states) == forward[stage, step]
        assert who(live(inputs).at(stage, step), states) == forward[stage, step]
    assert [who(lesson, states) for lesson in source.through(BATCH)] == [
        who(lesson, states) for lesson in source.through(BATCH)
    ]
    assert sorted(joined(who(lesson, states) for lesson in source.through(3))) == list(range(SAMPLES))


def test_batches_come_in_their_own_order_with_the_short_one(live, images, states):
    source = live(batches(images))
    assert [who(source.at(1, step), states) for step in range(4)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10],
        [0, 1, 2, 3],
    ]
    assert source.count == SAMPLES


def test_processes_take_turns_at_batches_and_drop_what_is_left(live, images, states):
    ranks = [live(batches(images), Share(rank, 2)) for rank in (0, 1)]
    found = [[who(source.at(1, step), states) for source in ranks] for step in range(2)]
    assert found == [[[0, 1, 2, 3], [4, 5, 6, 7]]] * 2
    with pytest.raises(SurrogateError, match="the inputs hold fewer than 4 batches, one for each process"):
        live(batches(images), Share(0, 4)).at(1, 0)


def test_all_samples_in_order_or_the_first_of_them(live, images, states):
    for inputs in (images, batches(images)):
        source = live(inputs)
        for most, expected in [(None, SAMPLES), (6, 6), (8, 8), (99, SAMPLES)]:
            found = [who(lesson, states) for lesson in source.through(BATCH, most)]
            assert joined(found) == list(range(expected))
        assert torch.equal(source.replay(BATCH).batch.call.args[0], images[:BATCH])


def test_augmentation_is_the_step_s_own_and_leaves_the_inputs_as_they_are(live, images):
    def brighten(x: Tensor) -> Tensor:
        return x.add_(torch.rand(len(x), 1, 1, 1))

    before = images.clone()
    for inputs in (images, batches(images)):
        source = live(inputs, augment=brighten)
        forward = [source.at(1, step).states[0].clone() for step in range(4)]
        again = [source.at(1, step).states[0] for step in (3, 0, 2, 1)]
        assert all(torch.equal(forward[step], again[place]) for place, step in enumerate((3, 0, 2, 1)))
        assert torch.equal(images, before)
    plain = live(batches(images)).at(1, 0).states[0]
    assert not torch.equal(source.at(1, 0).states[0], plain)
    assert not torch.equal(source.at(1, 0).states[0], source.at(1, 3).states[0])  # the same batch, an epoch later
    assert torch.equal(next(source.through(BATCH)).states[0], plain)


def test_augmentation_differs_between_processes(live, images):
    def noise(x: Tensor) -> Tensor:
        return torch.randn_like(x)

    first, second = (live(images, Share(rank, 2), augment=noise).at(1, 0).states[0] for rank in (0, 1))
    assert not torch.equal(first, second)


def test_augmentation_sees_no_labels(live, images):
    seen = []

    def look(given: Any) -> Any:
        seen.append(set(given) if isinstance(given, dict) else type(given))
        return given

    labels = torch.arange(SAMPLES)
    live({"images": images, "labels": labels}, augment=look).at(1, 0)
    live(list(zip(batches(images), labels.split(BATCH), strict=True)), augment=look).at(1, 0)
    assert seen == [{"images"}, Tensor]


def test_augmentation_must_keep_the_samples(live, images):
    with pytest.raises(RecordError, match="needs a batch of 4 samples after the change; got 3"):
        live(images, augment=lambda x: x[:3]).at(1, 0)


def test_the_caller_s_random_numbers_are_left_alone(live, images):
    loader = DataLoader(TensorDataset(images), BATCH, shuffle=True)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for inputs in (images, TensorDataset(images), loader):
        source = live(inputs, augment=torch.rand_like)
        source.at(1, 0)
        list(source.through(BATCH))
        source.replay(BATCH)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_changes_in_a_dataset_are_the_step_s(live, images):
    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            return images[index] + torch.randn(1)

    source = live(Noisy(images))
    forward = [source.at(1, step).states[0] for step in range(4)]
    for step in (2, 0, 3):
        assert torch.equal(live(Noisy(images)).at(1, step).states[0], forward[step])


def test_workers_read_the_same_samples(live, images, states):
    plain, parallel = (live(TensorDataset(images), workers=workers) for workers in (0, 1))
    for step in (0, 1, 2):
        assert who(plain.at(1, step), states) == who(parallel.at(1, step), states)


def test_what_can_be_gone_through_once_is_refused(live, images):
    with pytest.raises(SurrogateError, match=r"goes through its inputs many times.*Give an array, a dataset, a list"):
        live(iter(batches(images)))


def test_batches_of_other_tokens_are_refused(live, images):

    source = live([images[:4], images[4:7, :, :4, :4]])
    source.at(1, 0)
    with pytest.raises(RecordError):
        source.at(1, 1)


def test_seeded_is_its_entropy_s_alone():
    torch.manual_seed(9)
    before = torch.get_rng_state()
    with seeded(1, 2):
        first = torch.rand(3)
    torch.rand(1)
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), first)
    with seeded(2, 1):
        assert not torch.equal(torch.rand(3), first)
    torch.set_rng_state(before)
    assert list(repeatable([], 1)) == []


# a recorded trajectory


@pytest.fixture(scope="module")
def traj(model, images):
    return depthflow.record(model, images, progress=False)


def test_stored_lessons_are_the_samples_of_the_order_with_nothing_beside(model, traj, states):
    source = stored(model, traj)
    order = Order(SAMPLES, BATCH, SEED, Share())
    for stage, step in [(1, 0), (1, 1), (2, 7), (1, 5), (1, 0)]:
        lesson = source.at(stage, step)
        assert who(lesson, states) == order.at(stage, step).tolist()
        assert len(lesson.arguments) == len(lesson.states) - 1 == 4
        assert all(not made.leaves() for made in lesson.arguments)
    assert source.token_types == ["cls"] + ["patch"] * 9
    assert joined(who(lesson, states) for lesson in source.through(3, 8)) == list(range(8))


def test_a_store_in_chunks_is_read_by_windows(model, traj, states, tmp_path, monkeypatch):
    monkeypatch.setattr(storing, "WINDOW_BYTES", 2 * 2 * traj.nbytes // SAMPLES)  # two chunks of two samples
    monkeypatch.setattr("depthflow.store.CHUNK_BYTES", 2 * traj.nbytes // SAMPLES)
    depthflow.save_trajectory(traj, tmp_path / "states.zarr")
    source = stored(model, depthflow.open_trajectory(tmp_path / "states.zarr"))
    epoch = [who(source.at(1, step), states) for step in range(PER_EPOCH)]
    assert len(set(joined(epoch))) == PER_EPOCH * BATCH
    for batch in epoch:
        assert len({sample // 2 for sample in batch}) <= 3  # two chunks, or with the last odd one three


def test_dims_in_another_order_and_selected_samples_are_the_same(model, traj, states):
    turned = traj.transpose("token", "depth", "feature", "sample")
    assert who(stored(model, turned).at(1, 0), states) == who(stored(model, traj).at(1, 0), states)
    picked = traj.isel(sample=[9, 2, 4, 7])
    assert sorted(who(stored(model, picked).at(1, 0), states)) == [2, 4, 7, 9]


def test_states_in_half_precision_are_taken(model, traj):
    source = stored(model, traj.astype(np.float16))
    assert source.replay(BATCH).n_blocks == 4
    assert {state.dtype for state in source.at(1, 0).states} == {torch.float32}


def test_states_of_other_weights_are_refused(model, traj):
    other = vit()
    with torch.no_grad():
        other.blocks[2].mlp[2].weight.add_(0.01)
    with undisturbed(other), pytest.raises(SurrogateError, match=r"not what this model makes: its block 'blocks\.2' r"):
        stored(other, traj).replay(BATCH)
    with undisturbed(model):
        assert stored(model, traj).replay(BATCH).n_blocks == 4


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 12)

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return x + self.linear(x) + by


class Positions(Chain):
    """Blocks that take more than the state."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, torch.ones(7, 12))
        return x


def test_states_of_blocks_that_take_more_than_a_state_are_refused():
    torch.manual_seed(0)
    model, x = Positions(Shifted(), Shifted()), torch.randn(SAMPLES, 7, 12)
    traj = depthflow.record(model, x, progress=False)
    with undisturbed(model), pytest.raises(SurrogateError, match=r"fails \(.*then give the inputs, and the model runs"):
        stored(model, traj).replay(BATCH)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda t: t.isel(depth=[0, 1, 2, 4]), SurrogateError, r"every depth of the model, 0 to 4; got \[0, 1, 2, 4\]"),
        (lambda t: t.isel(depth=slice(1, None)), SurrogateError, r"needs every depth of the model, 0 to 4"),
        (lambda t: depthflow.select_tokens(t, "patch"), SurrogateError, r"every token as the blocks see it; got 9 \("),
        (lambda t: t.isel(token=0), SurrogateError, r"needs the dims .*got \('sample', 'depth', 'feature'\)"),
        (lambda t: t.isel(sample=0), SurrogateError, r"needs the dims .*got \('depth', 'token', 'feature'\)"),
        (lambda t: t.astype(int), TrajectoryError, r"needs real floating-point states; got dtype int64"),
    ],
)
def test_parts_of_a_recording_are_refused(model, traj, change, error, text):
    with pytest.raises(error, match=text):
        stored(model, change(traj))


def test_a_recording_of_means_is_refused(model, images):
    with pytest.raises(SurrogateError, match=r"as the blocks see it; got 2 \(cls, mean\)\. Record with tokens='all'"):
        stored(model, depthflow.record(model, images, tokens="cls+mean", progress=False))


def test_all_faults_of_a_recording_come_at_once(model, traj):
    with pytest.raises(SurrogateError, match=r"(?s)2 faults.*needs every depth.*needs every token"):
        stored(model, traj.isel(depth=[0, 1], token=[1, 2]))
