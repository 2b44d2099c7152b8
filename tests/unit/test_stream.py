"""stream: what record-then-measure gives, without the record."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr

import depthflow
from depthflow.errors import ParameterError, RecordError, TrajectoryError
from depthflow.recording import memory
from depthflow.recording.stream import MEASURES, StreamSink
from tests.stacks import Chain
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import FLOAT64, SINGULAR_VALUE

if TYPE_CHECKING:
    from torch import Tensor, nn

mpl.use("agg")

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
EACH = ("convergence", "coherence", "update_spectra")
SAMPLES = 30
"""17 tokens of 30 samples are 510 values: as many as a sketch holds."""


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return depthflow.datasets.digits_vit()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return depthflow.datasets.digits("test").images[:100]


@pytest.fixture(scope="module")
def traj(model, images) -> xr.DataArray:
    return depthflow.record(model, images, progress=False)


def stream(model: nn.Module, inputs: Any, measures: Any = None, **kwargs: Any) -> dict[str, Any]:
    return depthflow.stream(model, inputs, measures, progress=False, **kwargs)


def means(measured: xr.Dataset) -> xr.Dataset:
    result = measured.mean("sample", keep_attrs=True)
    return result.drop_vars(
        [name for name, coord in measured.coords.items() if "sample" in coord.dims], errors="ignore"
    )


def quantiles(measured: xr.Dataset, name: str) -> np.ndarray:
    """Return NumPy's quantiles (quantile, depth or block, mode, type) of a variable, NaN as larger than any number."""
    array = measured[name].transpose("sample", ...)
    over = ("sample", "token") if "token" in array.dims else ("sample",)
    kinds = list(dict.fromkeys(measured.token_type.values.tolist())) if "token" in array.dims else [None]
    found = []
    for kind in kinds:
        some = array if kind is None else array.isel(token=measured.token_type.values == kind)
        last = some.transpose(..., *over)
        flat = last.values.reshape(*last.shape[: last.ndim - len(over)], -1)
        known = np.where(np.isnan(flat), np.inf, flat)
        with np.errstate(invalid="ignore"):  # between a number and infinity
            middle = np.quantile(known, SHARES, axis=-1)
        found.append(np.where(np.isinf(middle), np.nan, middle))
    return found[0] if kinds == [None] else np.stack(found, axis=-1)


def same(got: xr.Dataset | xr.DataArray, expected: xr.Dataset | xr.DataArray, tolerance: Any = FLOAT64) -> None:
    assert set(got.coords) == set(expected.coords)
    assert got.attrs == expected.attrs
    if isinstance(got, xr.DataArray):
        np.testing.assert_allclose(got, expected, **tolerance)
        return
    assert set(got.data_vars) == set(expected.data_vars)
    for name in expected.variables:
        assert got[name].dims == expected[name].dims
        if got[name].dtype.kind in "fc":
            np.testing.assert_allclose(got[name], expected[name], **tolerance)
        else:
            assert got[name].values.tolist() == expected[name].values.tolist()


def batches(images: Tensor, size: int) -> Any:
    """Return batches one by one, whose number nobody knows."""
    return iter(torch.as_tensor(images).split(size))


# as record, then measure


@pytest.mark.parametrize(("batch", "known"), [(7, False), (64, True)])
def test_everything_that_can_be_streamed(model, images, traj, batch, known):
    inputs = images if known else batches(images, batch)
    got = stream(model, inputs, batch_size=batch)
    assert list(got) == list(MEASURES)
    for name in EACH:
        measured = getattr(depthflow, name)(traj)
        expected = means(measured)
        result = got[name]
        for variable in measured.data_vars:
            np.testing.assert_allclose(result[variable], expected[variable], **FLOAT64)
            assert result[variable].dims == expected[variable].dims
            assert result[variable].attrs == measured[variable].attrs
            error = result[f"{variable}_quantile"].attrs["quantile_rank_error"]
            assert 0 <= error < 0.009
            assert (error == 0) == ("token" not in measured[variable].dims)
        settings = {name: value for name, value in measured.attrs.items() if name != "samplewise"}
        assert result.attrs == {**settings, "samples": 100}
        assert set(expected.coords) | {"quantile", "type"} >= set(result.coords) >= set(expected.coords)
    same(got["similarity"], depthflow.similarity(traj))
    same(got["phases"], depthflow.phases(traj))
    expected = depthflow.dmd(traj)
    assert got["dmd"].attrs.pop("condition") == pytest.approx(expected.attrs.pop("condition"))
    assert np.isnan(got["dmd"].error_per_step).all()
    same(got["dmd"].drop_vars(["error_per_step", "mode_vector"]), expected.drop_vars(["error_per_step", "mode_vector"]))
    operator, vector = got["dmd"].operator.values, got["dmd"].mode_vector.values
    np.testing.assert_allclose(vector @ operator.T, got["dmd"].eigenvalue.values[:, None] * vector, **FLOAT64)


@pytest.mark.parametrize("batch", [7, 64])
@pytest.mark.parametrize("name", EACH)
def test_quantiles_of_few_values_are_numpys(model, images, traj, batch, name):
    measured = getattr(depthflow, name)(traj[:SAMPLES])
    result = stream(model, images[:SAMPLES], name, batch_size=batch)[name]
    for variable in measured.data_vars:
        got = result[f"{variable}_quantile"]
        token = ("type",) if "token" in measured[variable].dims else ()
        rest = tuple(dim for dim in measured[variable].dims if dim not in ("sample", "token"))
        assert got.dims == ("quantile", *rest, *token)
        assert got.attrs["quantile_rank_error"] == 0
        assert got.attrs["units"] == measured[variable].attrs["units"]
        np.testing.assert_allclose(got, quantiles(measured, str(variable)), **FLOAT64)
    assert result["quantile"].values.tolist() == list(SHARES)


def test_paths_that_do_not_settle_make_upper_quantiles_nan(model, images, traj):
    given = {"reference": 4, "tolerance": 0.9}
    settled = depthflow.convergence(traj[:SAMPLES], **given).settling_depth
    share = float(np.isnan(settled[:, 1:]).mean())
    assert 0.05 < share < 0.9
    result = stream(model, images[:SAMPLES], {"convergence": given}, quantiles=[0.0, 1 - share - 0.02, 1.0])[
        "convergence"
    ]
    patches = result.settling_depth_quantile.sel(type="patch")
    assert np.isnan(patches.values).tolist() == [False, False, True]
    np.testing.assert_allclose(result.settling_depth, settled.mean("sample"), **FLOAT64)


@pytest.mark.parametrize(("center", "batch"), [(False, 7), (True, 64)])
def test_pooled_spectra(model, images, traj, center, batch):
    given = {"pool": True, "center": center, "n_modes": 9}
    got = stream(model, images, {"update_spectra": given}, batch_size=batch)["update_spectra"]
    same(got, depthflow.update_spectra(traj, **given), SINGULAR_VALUE)
    exact = {**given, "exact": True}
    got = stream(model, images, {"update_spectra": exact}, batch_size=batch)["update_spectra"]
    same(got, depthflow.update_spectra(traj, **exact))


def test_fewer_rows_than_features_and_spectra_that_a_gram_matrix_loses(model):
    x = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0)).double()
    scale = torch.from_numpy(np.geomspace(1, 1e-7, 40))
    for samples in (3, 3000):
        many = x.repeat(samples // 3, 1, 1) * (1 + torch.arange(samples)[:, None, None] % 17)
        chain = Chain(lambda state: state + torch.tanh(state.roll(1, 2)) * scale, lambda state: state * scale)
        recorded = depthflow.record(chain, many, progress=False, dtype="float64")
        got = stream(chain, many, {"update_spectra": {"pool": True}}, dtype="float64")["update_spectra"]
        same(got, depthflow.update_spectra(recorded, pool=True), SINGULAR_VALUE | {"atol": 1e-12})


def test_arguments_reach_the_measures(model, images, traj):
    given: dict[str, dict[str, Any]] = {
        "convergence": {"tokens": "cls", "reference": 6},
        "similarity": {"tokens": "patch", "include_input": True},
        "phases": {"n_phases": 3, "method": "bisection", "n_null": 49, "seed": 3, "tokens": "cls"},
        "dmd": {"span": (2, 9), "rank": 20, "ridge": 1e-4, "tokens": "patch", "horizons": [1, 4]},
    }
    got = stream(model, images, given)
    same(got["similarity"], depthflow.similarity(traj, **given["similarity"]))
    same(got["phases"], depthflow.phases(traj, **given["phases"]))
    expected = depthflow.dmd(traj, **given["dmd"])
    for name in ("operator", "eigenvalue", "amplitude", "error", "error_identity", "error_endpoint", "skill"):
        np.testing.assert_allclose(got["dmd"][name], expected[name], **FLOAT64)
    assert got["dmd"].attrs["span"] == [2, 9]
    measured = depthflow.convergence(traj, **given["convergence"])
    np.testing.assert_allclose(got["convergence"].angle, measured.angle.mean("sample"), **FLOAT64)
    assert got["convergence"].type.values.tolist() == ["cls"]
    assert got["convergence"].attrs["reference"] == 6


def test_a_linear_flow_has_no_error_but_rounding(model):
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(11, 11)))[0]
    block = torch.from_numpy(turn @ np.diag(np.linspace(0.6, 1.1, 11)) @ turn.T)
    chain = Chain(*[lambda x: x @ block.T] * 4)
    found = stream(chain, torch.from_numpy(rng.normal(size=(40, 7, 11))), "dmd", dtype="float64", tokens="all")["dmd"]
    np.testing.assert_allclose(found.operator, block, **FLOAT64)
    assert (found.error < 1e-7).all()
    assert (found.error_endpoint < 1e-7).all()
    assert (found.error_identity > 0.05).all()


def test_an_operator_that_is_not_determined_is_an_error_at_the_end(model, images):
    with pytest.raises(
        ParameterError, match=r"do not determine the operator. The 24 pairs \(samples 2 × tokens 1 × bl"
    ):
        stream(model, images[:2], {"dmd": {"tokens": "cls"}}, batch_size=1)


# other models, other tokens


def test_tokens_kept_and_types_absent(model, images):
    recorded = depthflow.record(model, images[:9], tokens="cls+mean", progress=False)
    with pytest.warns(UserWarning, match=r"stream leaves out coherence: .*tokens of type 'patch'.*\['cls', 'mean'\]"):
        got = stream(model, images[:9], tokens="cls+mean", batch_size=4)
    assert list(got) == [name for name in MEASURES if name != "coherence"]
    assert got["convergence"].type.values.tolist() == ["cls", "mean"]
    np.testing.assert_allclose(
        got["convergence"].speed, depthflow.convergence(recorded).speed.mean("sample"), **FLOAT64
    )
    with pytest.raises(ParameterError, match="tokens of type 'patch'"):
        stream(model, images[:9], ["coherence"], tokens="cls+mean")


def test_models_without_a_class_token_and_with_unknown_tokens():
    x = torch.randn(20, 7, 11, generator=torch.Generator().manual_seed(1))
    chain = Chain(torch.sin, lambda state: state + torch.cos(state.roll(1, 2)), torch.tanh)
    recorded = depthflow.record(chain, x, progress=False)
    with pytest.warns(UserWarning, match="leaves out coherence"):
        got = stream(chain, batches(x, 3))
    assert got["convergence"].type.values.tolist() == ["token"]
    same(got["similarity"], depthflow.similarity(recorded))


def test_patches_alone(model, images, traj):
    got = stream(model, batches(images, 40), tokens="patch")
    assert list(got) == list(MEASURES)
    assert got["convergence"].type.values.tolist() == got["dmd"].token_type.values.tolist() == ["patch"]
    measured = depthflow.coherence(traj)
    np.testing.assert_allclose(got["coherence"].angle_to_mean, measured.angle_to_mean.mean("sample"), **FLOAT64)


def test_what_fits_at_the_start_and_not_at_the_end_is_left_out_by_default_only(model, images):
    with pytest.warns(UserWarning, match="leaves out dmd: dmd: the states do not determine the operator"):
        got = stream(model, images[:1], tokens=[0, 1])
    assert "dmd" not in got
    assert "phases" in got


def test_labels_and_dicts_of_inputs_are_let_pass(model, images):
    loader = torch.utils.data.DataLoader(list(zip(images[:20], range(20), strict=True)), batch_size=6)
    got = stream(model, loader, ["similarity", "convergence"])
    same(got["similarity"], stream(model, images[:20], "similarity", labels=range(20))["similarity"])
    assert "label" not in got["convergence"].coords


def test_half_precision_states_are_rounded_as_recorded_ones(model, images):
    recorded = depthflow.record(model, images[:9], dtype="float16", progress=False)
    got = stream(model, images[:9], ["similarity", "dmd"], dtype="float16")
    same(got["similarity"], depthflow.similarity(recorded))
    np.testing.assert_allclose(got["dmd"].error, depthflow.dmd(recorded).error, **FLOAT64)


def test_results_can_be_stored_and_drawn(model, images, tmp_path):
    got = stream(model, images[:40])
    for name, result in got.items():
        dataset = result.to_dataset() if isinstance(result, xr.DataArray) else result
        dataset.to_zarr(tmp_path / name, zarr_format=3, consolidated=False)
        with xr.open_zarr(tmp_path / name, consolidated=False) as stored:
            assert stored.load().identical(dataset)
    curves = depthflow.plot.convergence(got["convergence"]).lines
    assert [curve.get_label() for curve in curves] == ["cls", "patch"]
    assert "map of each block" not in [curve.get_label() for curve in depthflow.plot.dmd(got["dmd"]).lines]


# memory


def test_every_batch_lies_in_the_same_memory(model, images):
    seen = []

    class Look:
        def add(self, part: xr.DataArray) -> None:
            seen.append((part.values.ctypes.data, part.sizes["sample"], part.sample.values.tolist()))

        def result(self) -> xr.Dataset:
            return xr.Dataset()

    from depthflow.recording.feed import Feed
    from depthflow.recording.forward import recordable, run

    sink = StreamSink({"look": Look()})
    settings = {"tokens": "all", "depths": None, "dtype": "float32", "device": None, "progress": False}
    run(recordable(model, None, "all"), Feed(images[:10], 4), sink, "stream", **settings)
    assert len({address for address, _, _ in seen}) == 1
    assert [samples for *_, samples in seen] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_that_does_not_fit_is_said(model, images, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 9000)
    with pytest.raises(RecordError, match=r"a batch of 8 × 13 × 17 × 64 states .* needs .* are free. Take a smaller"):
        stream(model, images[:8], "similarity")


# refusals, before the model runs


class Never(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("the model was run")


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        (
            "basins",
            r"stream: cannot take basins in one pass, which clusters all samples. Record with tokens='cls' and st",
        ),
        ("convergense", r"knows the measures \('convergence', .*got 'convergense'. Did you mean 'convergence'\?"),
        (["dmd", "speed"], r"got 'speed'\.$"),
        (
            {"convergence": {"tolerances": 3}},
            r"arguments \('reference', .*got 'tolerances'. Did you mean 'tolerance'\?",
        ),
        ({"convergence": {"traj": 3}}, r"of convergence; got 'traj'"),
        (
            {"similarity": {"metric": "cka"}},
            r"similarity in one pass with metric='cka', which compares samples with one a",
        ),
        ({"phases": {"metric": "procrustes"}}, r"phases in one pass with metric='procrustes'.*tokens='cls\+mean'"),
        ({"phases": {"n_boot": 9}}, r"with n_boot, which resamples each sample's similarity.*or leave it out"),
        ({"dmd": {"test": 1}}, r"dmd in one pass with test, as its errors come from sums"),
        ({"convergence": {"reference": xr.DataArray(np.ones((2, 3)), dims=("sample", "feature"))}}, "for each sample"),
        ({"dmd": {"rnk": 2}, "basins": {}}, r"2 faults"),
        ({}, r"needs measures as names, or as a mapping .*; got \{\}"),
        ([], r"needs measures as names"),
        (3, r"got 3"),
        ({"dmd": 3}, r"needs measures as names"),
    ],
)
def test_what_cannot_be_streamed_is_said_before_the_model_runs(measures, message):
    with pytest.raises(ParameterError, match=message):
        stream(Never(), torch.zeros(2, 3, 4), measures)


@pytest.mark.parametrize("shares", [[], [0.5, 1.1], [np.nan], "half", 0.5, [-0.1]])
def test_quantiles_are_shares(shares):
    with pytest.raises(ParameterError, match=r"stream: needs quantiles as shares in \[0, 1\], at least one; got"):
        stream(Never(), torch.zeros(2, 3, 4), "convergence", quantiles=shares)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"dtype": "int8"}, "stream: needs dtype"), ({"batch_size": 0}, "stream: needs batch_size")],
)
def test_bad_options(kwargs, message):
    with pytest.raises(ParameterError, match=message):
        stream(Never(), torch.zeros(2, 3, 4), "similarity", **kwargs)


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({"convergence": {"tolerance": -1}}, "needs a tolerance that is a positive angle"),
        (
            {"update_spectra": {"pool": True, "n_modes": 65}},
            "n_modes=65, but a matrix of 64 rows and 64 features has 64",
        ),
        ({"update_spectra": {"pool": True, "energy": 2}}, r"energy is a share in \(0, 1\]; got 2"),
        ({"phases": {"n_phases": 13}}, "room for 1 to 12 phases"),
        ({"phases": {"n_null": -1}}, "needs n_null as a number"),
        ({"dmd": {"span": (3, 99)}}, "names depth 99"),
        ({"dmd": {"horizons": 13}}, "horizons are numbers of blocks from 1 to the span's 12; got 13"),
        ({"similarity": {"metric": "cosin"}}, "knows the metrics"),
    ],
)
def test_arguments_that_do_not_fit_are_said_after_the_first_batch(model, images, measures, message):
    ran = []
    handle = model.register_forward_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(ParameterError, match=message):
            stream(model, images[:60], measures, batch_size=5)
    finally:
        handle.remove()
    assert len(ran) == 1


def test_states_without_direction_say_which_sample():
    x = torch.ones(8, 3, 4)
    x[5] = 0
    with pytest.raises(TrajectoryError, match=r"zero-norm state.*first at sample 5, depth 1, token 0"):
        stream(Chain(torch.tanh, torch.sin), x, "similarity", batch_size=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = stream(Chain(torch.tanh, torch.sin), x, {"convergence": {"allow_nan": True}}, batch_size=3)
    assert np.isfinite(found["convergence"].norm).all()
