"""dmd: labels, units, what is not determined, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import depthflow
from depthflow.errors import ParameterError, TrajectoryError
from depthflow.measures._dmd_arguments import states_within
from depthflow.measures._modes import modes
from tests.tolerances import EXACT, FLOAT64

ERRORS = ("error", "error_identity", "error_endpoint", "error_per_step", "skill")


def test_dims_coords_units_and_attrs(traj):
    result = depthflow.dmd(traj, ridge=0.5)
    assert dict(result.sizes) == {"mode": 11, "feature": 11, "feature_out": 11, "horizon": 5, "token_type": 2}
    assert result.mode.values.tolist() == list(range(1, 12))
    assert result.horizon.values.tolist() == [1, 2, 3, 4, 5]
    assert result.token_type.values.tolist() == ["cls", "patch"]
    assert result.mode_vector.dims == ("mode", "feature")
    assert result.operator.dims == ("feature_out", "feature")
    for name in ERRORS:
        assert result[name].dims == ("horizon", "token_type")
    assert result.growth.attrs["units"] == "1/block"
    assert result.frequency.attrs["units"] == "rad/block"
    assert result.amplitude.attrs["units"] == "state unit"
    assert all(result[name].attrs["long_name"] for name in result.data_vars)
    condition = result.attrs.pop("condition")
    assert 1 <= condition < 100
    assert result.attrs == {
        "span": [0, 5],
        "rank": 11,
        "ridge": 0.5,
        "n_pairs": 3 * 7 * 5,
        "held_out": 0,
        "unresolved_blocks": [],
        "unresolved_horizons": [],
    }
    assert depthflow.dmd(traj, rank=2, test=traj).attrs["held_out"] == 1
    assert dict(depthflow.dmd(traj, rank=2).mode_vector.sizes) == {"mode": 2, "feature": 11}


def test_span_by_labels_of_depth_and_tokens_by_type(traj):
    later = traj.assign_coords(depth=np.arange(3, 9))
    result = depthflow.dmd(later, span=[4, 7], tokens="patch", ridge=0.5)
    assert result.attrs["span"] == [4, 7]
    assert result.attrs["n_pairs"] == 3 * 6 * 3
    assert result.horizon.values.tolist() == [1, 2, 3]
    assert result.token_type.values.tolist() == ["patch"]
    same = depthflow.dmd(traj.isel(depth=slice(1, 5), token=slice(1, None)), ridge=0.5)
    np.testing.assert_allclose(result.operator, same.operator, **EXACT)
    gap = traj.isel(depth=[0, 2, 3, 4, 5])
    np.testing.assert_allclose(
        depthflow.dmd(gap, span=(2, 5), rank=3).error, depthflow.dmd(traj, span=(2, 5), rank=3).error, **EXACT
    )


def test_without_samples_or_tokens(traj):
    pooled = traj.stack(path=("sample", "token")).drop_vars(["path", "sample", "token", "token_type", "row", "col"])
    one_token = depthflow.trajectory(pooled.rename(path="sample").drop_vars("label", errors="ignore"))
    result = depthflow.dmd(one_token)
    assert result.token_type.values.tolist() == ["token"]
    np.testing.assert_allclose(result.operator, depthflow.dmd(traj).operator, **FLOAT64)
    alone = depthflow.dmd(traj.isel(sample=0, token=0), rank=2)
    assert alone.token_type.values.tolist() == ["cls"]
    assert alone.attrs["n_pairs"] == 5
    single = depthflow.dmd(traj.isel(sample=0, token=0, drop=True), rank=2)
    assert single.token_type.values.tolist() == ["token"]
    np.testing.assert_allclose(single.error, alone.error, **EXACT)


def test_one_horizon_as_a_number(traj):
    assert depthflow.dmd(traj, ridge=0.5, horizons=2).horizon.values.tolist() == [2]
    assert depthflow.dmd(traj, ridge=0.5, horizons=np.array([4, 2])).horizon.values.tolist() == [2, 4]


def test_input_is_left_as_it_was_and_results_can_be_stored(traj, tmp_path):
    before = traj.copy(deep=True)
    result = depthflow.dmd(traj, ridge=0.5, test=traj)
    assert traj.identical(before)
    result.to_zarr(tmp_path / "dmd.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "dmd.zarr", consolidated=False) as stored:
        assert stored.load().identical(result)


def test_bootstrap_takes_it():
    states = np.cumsum(np.random.default_rng(0).normal(size=(9, 6, 7, 4)), axis=1)
    interval = depthflow.bootstrap(depthflow.dmd, depthflow.trajectory(states), n=5)
    assert (interval.error_low <= interval.error_high).all()


def test_a_baseline_that_the_states_do_not_determine_is_nan_and_named(traj):
    """All of the first depth's states are one, as those of a class token are."""
    flat = traj.copy(deep=True)
    flat[:, 0] = traj[0, 0, 0]
    result = depthflow.dmd(flat)
    assert result.attrs["unresolved_blocks"] == [1]
    assert result.attrs["unresolved_horizons"] == [5]
    assert np.isnan(result.error_per_step).all()
    assert np.isnan(result.error_endpoint).all("token_type").values.tolist() == [False] * 4 + [True]
    assert np.isfinite(result.error).all()
    later = depthflow.dmd(flat, span=(1, 5))
    assert later.attrs["unresolved_blocks"] == later.attrs["unresolved_horizons"] == []
    assert np.isfinite(depthflow.dmd(flat, ridge=1e-6).error_per_step).all()


def test_a_feature_of_any_scale_costs_nothing(traj):
    scale = np.geomspace(1, 1e-9, 11)
    plain, scaled = depthflow.dmd(traj), depthflow.dmd(traj * scale)
    np.testing.assert_allclose(scaled.operator / scale[:, None] * scale, plain.operator, **FLOAT64)
    np.testing.assert_allclose(scaled.attrs["condition"], plain.attrs["condition"], **FLOAT64)


def test_a_defective_eigenvalue_has_no_amplitude():
    found = modes(np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 2.0]]), None, np.eye(3))
    np.testing.assert_allclose(found.eigenvalue, [2.0, 0.5, 0.5], **FLOAT64)
    np.testing.assert_allclose(found.amplitude, [1.0, np.nan, np.nan], **FLOAT64)


@pytest.mark.parametrize("settings", [{}, {"rank": 4}])
def test_the_zero_operator_has_modes_all_the_same(settings):
    states = np.zeros((9, 2, 11))
    states[:, 0] = np.random.default_rng(0).normal(size=(9, 11))
    result = depthflow.dmd(
        depthflow.trajectory(np.concatenate([states, -states]), dims=("sample", "depth", "feature")),
        **settings,
        ridge=1,
    )
    np.testing.assert_allclose(result.eigenvalue, 0.0, **EXACT)
    assert (result.growth == -np.inf).all()
    assert np.isnan(result.error).all()
    np.testing.assert_allclose(np.linalg.norm(result.mode_vector, axis=1), 1.0, **FLOAT64)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_named(traj, value):
    broken = traj.copy(deep=True)
    broken[2, 4, 5, 9] = value
    expected = rf"finite states; got {value} first at sample 2, depth 4, token 5, feature 9 \(1 in this part\)"
    for states in (broken, broken.chunk(sample=1)):
        with pytest.raises(TrajectoryError, match=expected):
            depthflow.dmd(states, ridge=0.5)
        with pytest.raises(TrajectoryError, match=expected):
            depthflow.dmd(traj, ridge=0.5, test=states)
    assert np.isfinite(depthflow.dmd(broken, span=(0, 3), ridge=0.5).error).all()


def test_states_too_large_to_square_are_refused(traj):
    last = traj.copy(deep=True)
    last[:, 5] *= 1e200
    for kwargs in ({"traj": traj * 1e200}, {"traj": last}, {"traj": traj, "test": traj * 1e200}):
        with pytest.raises(TrajectoryError, match=r"dmd: the squares of the states overflow. Divide the states"):
            depthflow.dmd(**kwargs)


@pytest.mark.parametrize(
    ("chosen", "kwargs", "message"),
    [
        (
            {"sample": [0], "token": [0, 1]},
            {},
            r"The 10 pairs \(samples 1 × tokens 2 × blocks 5\) have 10 independent inputs; all 11 features need as many"
            r". Record more samples, pass a ridge \(such as ridge=1e-6\), or ask for rank=10 or less",
        ),
        ({"sample": [0], "token": [0]}, {"rank": 7}, "have 5 independent inputs; rank=7 need as many"),
        ({"sample": [0, 0, 0]}, {"span": (0, 1)}, "The 21 pairs .* have 7 independent inputs"),
        ({}, {"tokens": "cls", "span": (0, 3)}, "The 9 pairs .* have 9 independent inputs"),
        ({}, {"tokens": "cls", "span": (0, 3), "ridge": 1e-15}, "have 9 independent inputs"),
    ],
)
def test_states_that_do_not_determine_the_operator(traj, chosen, kwargs, message):
    with pytest.raises(ParameterError, match=message):
        depthflow.dmd(traj.isel(chosen), **kwargs)
    assert np.isfinite(depthflow.dmd(traj.isel(chosen), **(kwargs | {"ridge": 1e-6})).error).all()


def test_states_of_zeros_or_without_one_feature_determine_nothing(traj):
    with pytest.raises(
        ParameterError, match=r"have 0 independent inputs; all 11 features need as many. Record more sam"
    ):
        depthflow.dmd(traj * 0)
    with pytest.raises(ParameterError, match="have 0 independent inputs; rank=2 need"):
        depthflow.dmd(traj * 0, rank=2, ridge=0.5)
    without = traj.copy(deep=True)
    without[..., 3] = 0
    with pytest.raises(ParameterError, match="have 10 independent inputs; all 11 features"):
        depthflow.dmd(without)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"span": (4, 1)}, r"span=\(4, 1\) runs backwards; .* as in span=\(1, 4\)"),
        ({"span": (2, 2)}, r"span=\(2, 2\) holds no block"),
        ({"span": (1, 9)}, r"span=\(1, 9\) names depth 9, which is not among \[0, 1, 2, 3, 4, 5\]"),
        ({"span": (-3, -1)}, "names depth -3"),
        ({"span": (8, 7)}, "3 faults"),
        ({"span": 3}, r"span is \(first, last\), two depths; got 3"),
        ({"span": (0, 1, 2)}, "two depths; got"),
        ({"span": (0, 2.5)}, "two depths; got"),
        ({"rank": 0}, "rank is a number of modes from 1 to the 11 features; got 0"),
        ({"rank": 12}, "from 1 to the 11 features; got 12"),
        ({"rank": 2.0}, "got 2.0"),
        ({"rank": True}, "got True"),
        ({"ridge": -0.1}, "ridge is a share of the inputs' mean square, at least 0; got -0.1"),
        ({"ridge": np.nan}, "at least 0; got nan"),
        ({"ridge": np.inf}, "at least 0; got inf"),
        ({"horizons": [0, 1]}, "horizons are numbers of blocks from 1 to the span's 5; got 0"),
        ({"horizons": 4, "span": (1, 4)}, "from 1 to the span's 3; got 4"),
        ({"horizons": [1.5]}, "got 1.5"),
        ({"horizons": []}, "span's 5; got none"),
        ({"horizons": [2, 2]}, r"horizons are distinct; got \[2, 2\]"),
        ({"rank": 0, "ridge": -1, "horizons": 7}, "3 faults"),
        ({"tokens": "reg"}, r"dmd was asked for tokens of type 'reg', which this trajectory lacks"),
    ],
)
def test_parameters_out_of_range(traj, kwargs, message):
    with pytest.raises(ParameterError, match=message):
        depthflow.dmd(traj, **kwargs)


def test_trajectories_that_cannot_be_used(traj):
    with pytest.raises(TrajectoryError, match="dmd needs a trajectory"):
        depthflow.dmd(traj.values)
    with pytest.raises(TrajectoryError, match=r"consecutive depths.*got depth 0 followed by 2"):
        depthflow.dmd(traj.isel(depth=[0, 2, 3]))
    with pytest.raises(TrajectoryError, match="dmd with test needs a trajectory"):
        depthflow.dmd(traj, test=traj.values)
    with pytest.raises(TrajectoryError, match="dmd with test: test has 10 features, and the operator 11"):
        depthflow.dmd(traj, test=traj.isel(feature=slice(10)))
    with pytest.raises(TrajectoryError, match=r"the span runs from depth 0 to 5; test has the depths \[0, 1, 2\]"):
        depthflow.dmd(traj, test=traj.isel(depth=slice(3)))
    with pytest.raises(TrajectoryError, match=r"dmd with test needs consecutive depths"):
        depthflow.dmd(traj, test=traj.isel(depth=[0, 1, 3, 5]))
    with pytest.raises(TrajectoryError, match="2 faults"):
        depthflow.dmd(traj, test=traj.isel(depth=slice(3), feature=slice(10)))
    with pytest.raises(ParameterError, match="dmd with test was asked for tokens of type 'cls'"):
        depthflow.dmd(traj, tokens="cls", test=traj.isel(token=slice(1, None)), ridge=1)


def test_the_span_is_a_view_of_the_states(traj):
    """A copy of all states would be most of the memory."""
    for first, last in ((0, 5), (2, 4)):
        within = states_within(traj, first, last, "dmd")
        assert within.depth.values.tolist() == list(range(first, last + 1))
        assert np.shares_memory(within.values, traj.values)
