"""Jacobians that are known in closed form, or by finite differences of the model itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

import depthflow
from depthflow.models.vit import VisionTransformer, ViTSettings
from tests.stacks import Chain, linear
from tests.tolerances import FLOAT32, FLOAT64, ITERATIVE, STOCHASTIC

SAMPLES, TOKENS, WIDTH = 2, 3, 10


def states(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SAMPLES, TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(
        dtype
    )


def matrix(seed: int = 0) -> np.ndarray:
    """Return a map that is far from normal, with singular values from 3 down to 0.01."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] for _ in range(2))
    return left @ np.diag(np.geomspace(3, 0.01, WIDTH)) @ right


def take(model: torch.nn.Module, inputs: Any = None, **options: Any) -> Any:
    given = {"tokens": [1], "directional": False, "progress": False, **options}
    return depthflow.jacobian(model, states() if inputs is None else inputs, **given)


def to(reference: np.ndarray, result: Any) -> np.ndarray:
    return np.broadcast_to(reference, result.shape)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, FLOAT64), (torch.float32, FLOAT32)])
def test_a_linear_block(dense: bool, dtype: torch.dtype, tolerance: dict[str, float]) -> None:
    first, second = matrix(0), matrix(1)
    result = take(Chain(linear(first), linear(second)), states(dtype), dense=dense, n_modes=WIDTH)
    for block, m in enumerate((first, second)):
        found = result.isel(span=block)
        values = np.linalg.svd(m, compute_uv=False)
        assert_allclose(found.singular_value, to(values, found.singular_value), **tolerance)
        assert_allclose(found.exponent, to(np.log(values), found.exponent), **tolerance)
        assert_allclose(found.rms_gain, np.linalg.norm(m) / np.sqrt(WIDTH), **tolerance)
        assert found.converged.all()
        assert (found.rms_gain_error <= 1e-6).all(), "with every direction found, nothing is left to chance"
        if dense:
            eigenvalues = np.linalg.eigvals(m)
            departure = np.sqrt(1 - (np.abs(eigenvalues) ** 2).sum() / np.linalg.norm(m) ** 2)
            moduli = np.sort(np.abs(eigenvalues))[::-1]
            assert_allclose(np.abs(found.eigenvalue), to(moduli, found.eigenvalue), **tolerance)
            assert_allclose(found.eigenvalue.sum("eigenmode"), np.trace(m), **tolerance)
            assert_allclose(found.nonnormality, departure, **tolerance)
            symmetric = np.linalg.norm((m + m.T) / 2) ** 2 / np.linalg.norm(m) ** 2
            assert_allclose(found.symmetry, symmetric, **tolerance)


@pytest.mark.parametrize("dense", [True, False])
def test_spans_multiply(dense: bool) -> None:
    maps = [matrix(seed) for seed in range(3)]
    model = Chain(*map(linear, maps))
    products = [maps[0], maps[1] @ maps[0], maps[2] @ maps[1] @ maps[0]]
    result = take(model, span="cumulative", dense=dense, n_modes=4)
    assert result.span.values.tolist() == [1, 2, 3]
    assert result.start.values.tolist() == [0, 0, 0]
    for depth, product in enumerate(products, start=1):
        values = np.linalg.svd(product, compute_uv=False)[:4]
        found = result.sel(span=depth)
        assert_allclose(found.singular_value, to(values, found.singular_value), **ITERATIVE)
        assert_allclose(found.exponent, to(np.log(values) / depth, found.exponent), **ITERATIVE)
    middle = take(model, span=(1, 3), dense=dense, n_modes=4)
    values = np.linalg.svd(maps[2] @ maps[1], compute_uv=False)[:4]
    assert [middle[name].values.tolist() for name in ("start", "stop", "span")] == [[1], [3], [3]]
    assert_allclose(middle.singular_value[:, 0], to(values, middle.singular_value[:, 0]), **ITERATIVE)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("directional", [True, False])
@pytest.mark.parametrize("tokens", [[0], "all"])
def test_a_rotation_keeps_every_change(dense: bool, directional: bool, tokens: Any) -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))[0]
    result = take(Chain(linear(turn)), dense=dense, directional=directional, tokens=tokens)
    assert_allclose(result.singular_value, 1.0, **FLOAT64)
    assert_allclose(result.exponent, 0.0, **FLOAT64)
    assert_allclose(result.rms_gain, 1.0, **FLOAT64)
    if dense:
        assert_allclose(result.nonnormality**2, 0.0, **FLOAT64)
        assert_allclose(np.abs(result.eigenvalue), 1.0, **FLOAT64)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_rescaling_changes_no_direction(dense: bool, factor: float) -> None:
    model = Chain(lambda x: factor * x)
    assert_allclose(take(model, dense=dense, directional=True).singular_value, 1.0, **FLOAT64)
    assert_allclose(take(model, dense=dense, directional=True).rms_gain, 1.0, **FLOAT64)
    plain = take(model, dense=dense)
    assert_allclose(plain.singular_value, factor, **FLOAT64)
    assert_allclose(plain.rms_gain, factor, **FLOAT64)


def test_a_norm_that_each_token_loses_is_no_change_of_direction() -> None:
    result = take(Chain(lambda x: x / x.norm(dim=2, keepdim=True)), directional=True, tokens="all", n_modes=4)
    assert_allclose(result.singular_value, 1.0, **FLOAT64)
    plain = take(Chain(lambda x: x / x.norm(dim=2, keepdim=True)), n_modes=WIDTH)
    norm = states()[:, 1].norm(dim=1).numpy()
    assert_allclose(plain.singular_value[:, 0, :-1], np.repeat(1 / norm[:, None], WIDTH - 1, 1), **FLOAT64)
    assert_allclose(plain.singular_value[:, 0, -1], 0.0, **FLOAT64)


def test_tokens_that_do_not_mix_have_each_value_as_often_as_there_are_tokens() -> None:
    m = matrix()
    values = np.repeat(np.linalg.svd(m, compute_uv=False), TOKENS)
    result = take(Chain(linear(m)), tokens="all", n_modes=8)
    assert_allclose(result.singular_value, to(values[:8], result.singular_value), **FLOAT64)


def test_a_lost_direction_has_an_exponent_of_minus_infinity() -> None:
    keep = np.diag(np.arange(WIDTH) < 4).astype(float)
    for dense in (True, False):
        result = take(Chain(linear(keep)), n_modes=6, dense=dense)
        assert_allclose(result.singular_value, to(np.array([1.0] * 4 + [0.0] * 2), result.singular_value), **FLOAT64)
        assert (result.exponent[..., 4:] < -20).all()
        assert result.converged.all()


def mix(x: Tensor) -> Tensor:
    """Couple tokens and features, far from linear."""
    weights = torch.softmax(x @ x.mT / 3, dim=2)
    return x + torch.tanh(weights @ x).flip(2)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("tokens", [[1], [0, 2], "all"])
def test_against_plain_autograd(dense: bool, tokens: Any) -> None:
    x = states()
    chosen = list(range(TOKENS)) if tokens == "all" else tokens
    size = len(chosen) * WIDTH
    for directional in (False, True):
        result = take(Chain(mix, mix), x, span=(0, 2), tokens=tokens, directional=directional, dense=dense, n_modes=5)
        for sample in range(SAMPLES):

            def end(part: Tensor, sample: int = sample) -> Tensor:
                whole = x[sample].clone()
                whole[chosen] = part.reshape(len(chosen), WIDTH)
                return mix(mix(whole[None]))[0, chosen].flatten()

            before = x[sample, chosen].flatten()
            j = torch.autograd.functional.jacobian(end, before).numpy()
            if directional:
                u, v = (y.reshape(-1, WIDTH).numpy() for y in (before, end(before)))
                inner = np.zeros((size, size))
                outer = np.zeros((size, size))
                for t in range(len(chosen)):
                    part = slice(t * WIDTH, (t + 1) * WIDTH)
                    inner[part, part] = np.linalg.norm(u[t]) * (np.eye(WIDTH) - np.outer(u[t], u[t]) / (u[t] @ u[t]))
                    outer[part, part] = (np.eye(WIDTH) - np.outer(v[t], v[t]) / (v[t] @ v[t])) / np.linalg.norm(v[t])
                j = outer @ j @ inner
            found = result.isel(sample=sample, span=0)
            assert_allclose(found.singular_value, np.linalg.svd(j, compute_uv=False)[:5], **ITERATIVE)
            gain = np.linalg.norm(j) / np.sqrt(size - directional * len(chosen))
            assert abs(found.rms_gain - gain) <= 10 * found.rms_gain_error + 1e-10


@pytest.fixture(scope="module")
def vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(ViTSettings(width=24, depth=4, heads=3)).double()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return depthflow.datasets.digits("test").images[:6].astype(np.float64)


@pytest.mark.parametrize("options", [{}, {"directional": False}, {"tokens": "patch"}, {"span": "cumulative"}])
def test_by_products_equals_formed_within_the_tolerance(
    vit: VisionTransformer, images: np.ndarray, options: Any
) -> None:
    rtol = 1e-3
    options = {"tokens": "cls", "directional": True, "n_modes": 6, "rtol": rtol, **options}
    formed = take(vit, images, dense=True, **options)
    products = take(vit, images, dense=False, **options)
    assert products.converged.all()
    assert_allclose(products.singular_value, formed.singular_value, rtol=rtol)
    np.testing.assert_array_less(np.abs(products.rms_gain - formed.rms_gain), 10 * products.rms_gain_error + 1e-6)


def test_the_standard_error_of_the_gain_is_that_of_its_estimates(vit: VisionTransformer, images: np.ndarray) -> None:
    options = {"tokens": "all", "directional": True, "n_modes": 0, "span": (0, 2)}
    exact = take(vit, images, dense=True, **options).rms_gain
    score = []
    for seed in range(25):
        found = take(vit, images, dense=False, seed=seed, n_probes=16, **options)
        score.append((found.rms_gain - exact) / found.rms_gain_error)
    score = np.stack(score)
    assert abs(score.mean()) < 0.5
    assert 0.7 < score.std() < 1.4


def test_residuals_bound_the_distance_to_a_singular_value_long_before_convergence(
    vit: VisionTransformer, images: np.ndarray
) -> None:
    every = take(vit, images, dense=True, n_modes=24)
    rough = take(vit, images, dense=False, n_modes=3, max_iter=5)
    assert not rough.converged.all()
    distance = np.abs(rough.singular_value.values[..., None] - every.singular_value.values[:, :, None]).min(-1)
    assert (distance <= rough.residual.values * (1 + 1e-9) + 1e-12).all()
    assert (rough.residual > 1e-6).any()


def test_finite_pushes_of_the_model_approach_the_jacobian_at_second_order(
    vit: VisionTransformer, images: np.ndarray
) -> None:
    start, stop = 1, 4
    linear_map = take(vit, images, tokens="cls", directional=True, span=(start, stop), n_modes=1, vectors=True)
    into = linear_map.right.isel(span=0, mode=0)
    out = (linear_map.singular_value * linear_map.left).isel(span=0, mode=0).transpose("sample", "token", "feature")
    errors = []
    for angle in (0.04, 0.02, 0.01):
        pushed = depthflow.perturb(
            vit,
            images,
            depth=start,
            angle=angle,
            tokens="cls",
            directions=into.transpose("sample", "token", "feature").expand_dims("draw"),
            states=True,
            progress=False,
        )
        ends = [pushed[name].isel(depth=-1, token=[0]) for name in ("state", "reference")]
        moved, base = (end / np.sqrt((end**2).sum("feature")) for end in ends)
        change = (moved - base).isel(draw=0).transpose("sample", "token", "feature").values
        errors.append(np.linalg.norm(change / angle - out.values))
    assert errors[-1] < 0.02 * np.linalg.norm(out.values)
    ratio = np.array(errors[:-1]) / np.array(errors[1:])
    # change/angle − A d is first order in the angle, so that the change itself agrees to second order.
    assert np.all((ratio > 1.9) & (ratio < 2.1)), ratio


def test_the_rms_gain_is_that_of_small_random_pushes(vit: VisionTransformer, images: np.ndarray) -> None:
    pushed = depthflow.perturb(vit, images, depth=1, angle=1e-4, n_draws=400, batch_size=500, progress=False)
    gain = np.sqrt((pushed.gain.isel(depth=3) ** 2).mean("draw"))
    exact = take(vit, images, tokens="cls", directional=True, span=(1, 3)).rms_gain.isel(span=0)
    assert_allclose(gain, exact, **STOCHASTIC)
    assert not np.allclose(gain, take(vit, images, tokens="cls", span=(1, 3)).rms_gain.isel(span=0), **STOCHASTIC)
