"""recurrence_curve: one fit and one score for each number of phases and seed, and nothing done twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import depthflow
from depthflow import schema
from depthflow.errors import ParameterError, SurrogateError
from depthflow.surrogate import curve
from depthflow.surrogate.optimizer import Optimizer
from tests.snapshot import Snapshot
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import EXACT

SAMPLES, BLOCKS, CLASSES = 9, 4, 6
SETTINGS = depthflow.SurrogateSettings(steps=(1, 3), batch_size=4)

pytestmark = pytest.mark.filterwarnings("ignore:fit_surrogate. the surrogate ends no nearer:UserWarning")


def images_of(seed: int, samples: int = SAMPLES) -> Tensor:
    return torch.randn(samples, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> Any:
    return vit(classes=CLASSES)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_of(1)


def answers(model: nn.Module, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(images).argmax(1).numpy()
    return found


def trace(model: Any, inputs: Any, **options: Any) -> xr.Dataset:
    return depthflow.recurrence_curve(model, inputs, **{"settings": SETTINGS, "progress": False, **options})


@pytest.fixture(scope="module")
def got(model, images) -> xr.Dataset:
    return trace(model, images, n_phases=[3, 1], seeds=[5, 0], labels=answers(model, images))


def test_dims_coords_units_and_attributes(model, images, got):
    grid = ("n_phases", "seed")
    scores = {
        "r2": ("depth", "token_type"),
        "baseline_cosine": ("baseline", "depth", "token_type"),
        "baseline_epsilon": ("baseline",),
        **dict.fromkeys(["epsilon", "epsilon_depth", "recovery", "recovery_low", "agreement", "seconds"], ()),
    }
    assert {name: got[name].dims for name in scores} == {name: (*grid, *dims) for name, dims in scores.items()}
    assert all(array.dims[:2] == grid for array in got.data_vars.values())
    assert (got.n_phases.values.tolist(), got.seed.values.tolist()) == ([1, 3], [0, 5])
    assert got.phase.dims == (*grid, "depth")
    assert "phase" in got.coords
    assert [len(set(got.phase.sel(n_phases=count, seed=5).values)) for count in (1, 3)] == [1, 3]
    known = {**schema.VARIABLES, **schema.VARIABLES_OF["recurrence_curve"]}
    assert all(
        got[name].attrs == {"long_name": known[name].long_name, "units": known[name].units} for name in got.data_vars
    )
    assert got.seconds.attrs["units"] == "s"
    assert (got.seconds > 0).all()
    assert got.attrs["family"] == "torch/VisionTransformer"
    told = ("n_phases", "scored_on", "phases", "contiguous", "samples")
    assert [got.attrs[name] for name in told] == [[1, 3], "inputs", "optimal", 1, SAMPLES]


def test_each_entry_is_that_of_its_own_fit(model, images, got):
    labels = answers(model, images)
    for count, seed in [(1, 0), (3, 5)]:
        surrogate = depthflow.fit_surrogate(model, images, n_phases=count, seed=seed, settings=SETTINGS, progress=False)
        expected = depthflow.score_surrogate(surrogate, model, images, labels=labels, progress=False)
        one = got.sel(n_phases=count, seed=seed)
        for name, values in expected.data_vars.items():
            np.testing.assert_allclose(one[name], values, **EXACT, err_msg=name)
        np.testing.assert_array_equal(one.phase, surrogate.phases)
    assert len(np.unique(got.epsilon)) == 4


def test_a_result_is_written_and_read_again(got, tmp_path):
    got.to_zarr(tmp_path / "curve.zarr", consolidated=False)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "curve.zarr", consolidated=False).load(), got)


def test_other_samples_are_scored_with_probes_of_those_learnt_from(model, images):
    others, names = images_of(2, 12), [f"c{label}" for label in range(2)]
    options: dict[str, Any] = {"n_phases": [2], "test_inputs": others}
    got = trace(model, images, **options, test_labels=answers(model, others))
    surrogate = depthflow.fit_surrogate(model, images, n_phases=2, settings=SETTINGS, progress=False)
    expected = depthflow.score_surrogate(
        surrogate, model, others, labels=answers(model, others), train_inputs=images, progress=False
    )
    one = got.isel(n_phases=0, seed=0)
    np.testing.assert_allclose(one.baseline_r2, expected.baseline_r2, **EXACT)
    assert (one.teacher_accuracy, one.recovery) == (1, expected.recovery)
    assert (got.attrs["scored_on"], got.attrs["linear_fit"], got.attrs["samples"]) == (
        "test_inputs",
        "train_inputs",
        12,
    )
    probed = trace(model, images, **options, labels=(names * 5)[:SAMPLES], test_labels=names * 6)
    assert "probe_recovery" in probed
    assert "recovery" not in probed


def test_recorded_states_are_learnt_from_and_inputs_scored():
    torch.manual_seed(0)
    teacher, x = Chain(*(nn.Linear(8, 8) for _ in range(3))), torch.randn(SAMPLES, 5, 8)
    traj = depthflow.record(teacher, x, progress=False)
    got = trace(teacher, traj, n_phases=[1], test_inputs=x)
    assert got.attrs["linear_fit"] == "the other half of the inputs"
    xr.testing.assert_allclose(got.r2, trace(teacher, x, n_phases=[1], test_inputs=x).r2)
    with pytest.raises(ParameterError, match=r"was given recorded states, .* Give test_inputs= to score it on"):
        trace(teacher, traj, n_phases=[1])


def test_random_phases_are_drawn_for_each_seed(model, images):
    got = trace(model, images, n_phases=[2], seeds=range(4), phases="random", contiguous=False)
    assert len({tuple(phase) for phase in got.phase.values[0]}) > 1
    runs = (np.diff(got.phase.values[0], axis=1) != 0).sum(axis=1)
    assert (runs > 1).all(), "scattered phases have more runs than there are phases"
    assert (got.attrs["phases"], got.attrs["contiguous"]) == ("random", 0)


def test_a_finished_fit_is_not_repeated(model, images, got, tmp_path, monkeypatch):
    labels = answers(model, images)
    options: dict[str, Any] = {"seeds": [0, 5], "labels": labels, "checkpoint": tmp_path}
    trace(model, images, n_phases=[1], **options)
    stepped: list[None] = []
    step = Optimizer.step
    monkeypatch.setattr(Optimizer, "step", lambda self: (stepped.append(None), step(self))[1])
    again = trace(model, images, n_phases=[1, 3], **options)
    assert len(stepped) == 2 * sum(SETTINGS.steps), "of three phases only"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k1-seed0", "k1-seed5", "k3-seed0", "k3-seed5"]
    xr.testing.assert_identical(again.drop_vars("seconds"), got.drop_vars("seconds"))


def test_a_killed_curve_goes_on(model, images, got, tmp_path, monkeypatch):
    labels = answers(model, images)
    options: dict[str, Any] = {"n_phases": [1, 3], "seeds": [0, 5], "labels": labels, "checkpoint": tmp_path}
    fits: list[int] = []
    fit = curve.fit_surrogate

    def killed(*args: Any, **kwargs: Any) -> Any:
        if len(fits) == 3:
            raise KeyboardInterrupt
        fits.append(kwargs["n_phases"])
        return fit(*args, **kwargs)

    before = Snapshot(model)
    monkeypatch.setattr(curve, "fit_surrogate", killed)
    with pytest.raises(KeyboardInterrupt):
        trace(model, images, **options)
    before.require(model)
    monkeypatch.setattr(curve, "fit_surrogate", fit)
    xr.testing.assert_identical(trace(model, images, **options).drop_vars("seconds"), got.drop_vars("seconds"))


def test_more_phases_than_blocks_are_refused_before_anything_is_fitted(model, images, monkeypatch):
    monkeypatch.setattr(curve, "fit_surrogate", lambda *_, **__: pytest.fail("fitted"))
    with pytest.raises(SurrogateError, match=r"asked for 6 phases of a model with 4 blocks\. Ask for at most 4"):
        trace(model, images)
    with pytest.raises(SurrogateError, match=r"asked for 3 phases of a model with 2 blocks"):
        trace(model, images, n_phases=[1, 3], blocks=list(model.blocks[:2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_phases": 3}, r"needs n_phases as different whole numbers from 1, at least one; got 3"),
        ({"n_phases": [0, 1]}, r"whole numbers from 1, at least one; got \[0, 1\]"),
        ({"n_phases": [1, 1]}, r"got \[1, 1\]"),
        ({"n_phases": []}, r"got \[\]"),
        ({"n_phases": [1.0]}, r"got \[1\.0\]"),
        ({"seeds": [-1]}, r"needs seeds as different whole numbers from 0, at least one; got \[-1\]"),
        ({"phases": [1, 1, 2, 2]}, r"draws them with phases='random'; got \[1, 1, 2, 2\]\. For phases of your own"),
        ({"contiguous": False}, r"With contiguous=False pass phases='random'"),
        ({"test_labels": [0]}, r"was given test_labels= without test_inputs="),
        ({"phases": "optimal", "test_labels": [0]}, r"2 faults"),
    ],
)
def test_arguments_that_do_not_fit(model, images, options, message):
    with pytest.raises(ParameterError, match=message):
        trace(model, images, **{"n_phases": [1], **options})
