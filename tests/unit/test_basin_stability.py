"""Shares of pushed paths that stay in their basin, Wilson's interval against SciPy's, and mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.stats import binomtest

import depthflow
from depthflow.errors import ParameterError
from depthflow.measures.stability import wilson
from tests.tolerances import EXACT, FLOAT64, STOCHASTIC

DRAWS, SAMPLES, FEATURES, BASINS = 4, 9, 6, 5


def centers() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(0).normal(size=(FEATURES, FEATURES)))[0][:BASINS]


@pytest.fixture
def basins() -> xr.Dataset:
    attrs = {"tokens": "cls", "clustered_depth": 3}
    return xr.Dataset({"center": (("basin", "feature"), centers())}, attrs=attrs)


@pytest.fixture
def perturbed() -> xr.Dataset:
    rng = np.random.default_rng(1)
    return xr.Dataset(
        {
            "final_direction": (("draw", "sample", "feature"), unit(rng.normal(size=(DRAWS, SAMPLES, FEATURES)))),
            "reference_direction": (("sample", "feature"), unit(rng.normal(size=(SAMPLES, FEATURES)))),
            "growth_rate": ("block", [np.nan, 0.1, 0.2]),
        },
        {"label": ("sample", np.arange(SAMPLES) % 2), "depth": np.arange(4), "token_type": ("token", ["cls"])},
        {"final_direction_tokens": "cls", "pushed_depth": 1, "pushed_angle": 0.01},
    )


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_shares_are_those_of_plain_numpy(perturbed: xr.Dataset, basins: xr.Dataset) -> None:
    result = depthflow.basin_stability(perturbed, basins)
    own = (perturbed.reference_direction.values @ centers().T).argmax(-1)
    there = (perturbed.final_direction.values @ centers().T).argmax(-1)
    assert result.basin.values.tolist() == own.tolist()
    for basin in range(BASINS):
        mine = own == basin
        assert result.n_samples[basin] == mine.sum()
        share = (there[:, mine] == basin).mean() if mine.any() else np.nan
        assert_allclose(result.basin_stability[basin], share, **FLOAT64)
    assert_allclose(result.stable_share, (there == own).mean(0), **EXACT)
    assert 0 < result.stable_share.mean() < 1
    assert 0 in result.n_samples, "a basin without samples is part of the test"
    empty = result.n_samples.values == 0
    for name in ("basin_stability", "low", "high"):
        assert (np.isnan(result[name]).values == empty).all()


def test_the_null_is_the_same_of_paths_that_carry_the_push_along(perturbed: xr.Dataset, basins: xr.Dataset) -> None:
    ends = unit(np.random.default_rng(2).normal(size=(DRAWS, SAMPLES, FEATURES)))
    plain = depthflow.basin_stability(perturbed, basins)
    assert not {"carried_share", "carried_stability"} & set(plain)
    carried = ("draw", "sample", "feature"), ends
    result = depthflow.basin_stability(perturbed.assign(carried_direction=carried), basins)
    other = depthflow.basin_stability(perturbed.assign(final_direction=carried), basins)
    assert_allclose(result.carried_share, other.stable_share, **EXACT)
    assert_allclose(result.carried_stability, other.basin_stability, **EXACT)
    assert (result.carried_share != result.stable_share).any()
    xr.testing.assert_identical(result.drop_vars(["carried_share", "carried_stability"]), plain)


def test_labels_units_and_attrs(perturbed: xr.Dataset, basins: xr.Dataset) -> None:
    result = depthflow.basin_stability(perturbed, basins)
    assert {name: variable.dims for name, variable in result.data_vars.items()} == {
        "basin_stability": ("basin",),
        "low": ("basin",),
        "high": ("basin",),
        "n_samples": ("basin",),
        "stable_share": ("sample",),
    }
    assert all(result[name].attrs["units"] == "1" and result[name].attrs["long_name"] for name in result.data_vars)
    assert set(result.coords) == {"label", "basin"}
    assert result.attrs == {"n_draws": DRAWS, "pushed_depth": 1, "pushed_angle": 0.01}


@pytest.mark.parametrize(("count", "hits"), [(1, 0), (1, 1), (7, 3), (40, 40), (1000, 990)])
def test_the_interval_is_scipys(count: int, hits: int) -> None:
    expected = binomtest(hits, count).proportion_ci(0.95, "wilson")
    low, high = wilson(np.array([hits / count]), np.array([count]))
    assert_allclose([low[0], high[0]], [expected.low, expected.high], **FLOAT64)


def test_the_interval_is_by_samples_so_that_more_draws_do_not_narrow_it(
    perturbed: xr.Dataset, basins: xr.Dataset
) -> None:
    once = depthflow.basin_stability(perturbed, basins)
    again = depthflow.basin_stability(xr.concat([perturbed[["final_direction"]]] * 50, "draw").merge(
        perturbed[["reference_direction"]]
    ), basins)  # fmt: skip
    for name in ("basin_stability", "low", "high", "stable_share"):
        assert_allclose(again[name], once[name], **FLOAT64)


def test_the_interval_covers_even_when_draws_of_a_sample_agree() -> None:
    """A sample either keeps all of its draws or loses all of them, with probability 0.8, in 400 experiments."""
    rng = np.random.default_rng(2)
    kept = rng.uniform(size=(400, 30)) < 0.8
    low, high = wilson(kept.mean(axis=1), np.full(400, 30))
    assert_allclose(((low <= 0.8) & (high >= 0.8)).mean(), 0.95, **STOCHASTIC)


def test_a_perfect_return_and_the_order_of_dims(perturbed: xr.Dataset, basins: xr.Dataset) -> None:
    perturbed["final_direction"] = perturbed.final_direction * 0 + perturbed.reference_direction
    result = depthflow.basin_stability(perturbed.transpose(), basins.transpose())
    some = result.n_samples > 0
    assert_allclose(result.stable_share, 1.0, **EXACT)
    assert_allclose(result.high[some], 1.0, **EXACT)
    assert (result.low[some] < 1).all()


def test_with_the_model_that_comes_along() -> None:
    model, data = depthflow.datasets.digits_vit(), depthflow.datasets.digits("test")
    images, labels = data.images[:30], data.labels[:30]
    traj = depthflow.record(model, images, labels=labels, tokens="cls", progress=False)
    basins = depthflow.basins(traj, 4)
    small, large = (
        depthflow.perturb(model, images, depth=8, angle=angle, n_draws=1, progress=False) for angle in (0.01, 2.5)
    )
    stable = depthflow.basin_stability(small, basins)
    assert_allclose(stable.stable_share, 1.0, **EXACT)
    assert (stable.basin.values == basins.basin.values).all()
    assert depthflow.basin_stability(large, basins).stable_share.mean() < 1
    with pytest.raises(ParameterError, match=r"those of depth 6, and the final directions of depth 12"):
        depthflow.basin_stability(small, depthflow.basins(traj, 4, depth=6))


def test_what_does_not_belong_together(perturbed: xr.Dataset, basins: xr.Dataset) -> None:
    with pytest.raises(ParameterError, match="have 6 features and the centers 5"):
        depthflow.basin_stability(perturbed, basins.isel(feature=slice(5)))
    with pytest.raises(ParameterError, match="of the tokens 'patch', and the final directions of 'cls'"):
        depthflow.basin_stability(perturbed, basins.assign_attrs(tokens="patch"))
    with pytest.raises(ParameterError, match="those of depth 2, and the final directions of depth 3"):
        depthflow.basin_stability(perturbed, basins.assign_attrs(clustered_depth=2))
    same = depthflow.basin_stability(perturbed, basins.assign_attrs(tokens="[0]"))
    xr.testing.assert_identical(same, depthflow.basin_stability(perturbed, basins))


def test_what_is_missing(perturbed: xr.Dataset, basins: xr.Dataset) -> None:
    with pytest.raises(
        ParameterError, match=r"'perturbed' the Dataset that `depthflow.perturb` returns.*'draw'.*growth"
    ):
        depthflow.basin_stability(perturbed[["growth_rate"]], basins)
    with pytest.raises(ParameterError, match=r"'basins' the Dataset that `depthflow.basins` returns.*got DataArray"):
        depthflow.basin_stability(perturbed, basins.center)
    with pytest.raises(ParameterError, match=r"got 'final_direction' with the dims \('sample', 'feature'\)"):
        depthflow.basin_stability(perturbed.isel(draw=0), basins)
    for value in (0.0, np.nan):
        broken = perturbed.copy(deep=True)
        broken.final_direction[1, 2] = value
        with pytest.raises(ParameterError, match="'final_direction' has empty, zero or not finite ones"):
            depthflow.basin_stability(broken, basins)
