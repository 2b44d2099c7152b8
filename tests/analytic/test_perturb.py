"""Pushes whose fate is known in closed form: turns, scales, a sink of known rate, any linear map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

import depthflow
from tests.stacks import Chain, linear
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import FLOAT32, FLOAT64, STOCHASTIC

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES, BLOCKS, TOKENS, WIDTH = 3, 5, 7, 11


def states(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SAMPLES, TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(
        dtype
    )


def push(function: Callable[[Tensor], Tensor], x: Tensor | None = None, **options: Any) -> Any:
    given = {"depth": 2, "tokens": [1, 4], "n_draws": 3, "progress": False, **options}
    return depthflow.perturb(Chain(*[function] * BLOCKS), states() if x is None else x, **given)


TURN = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]


@pytest.mark.parametrize("angle", [1e-4, 0.01, 1.0, np.pi])
@pytest.mark.parametrize("function", [linear(TURN), lambda x: 3 * x, lambda x: x], ids=["turn", "scale", "same"])
def test_a_deviation_that_blocks_keep_has_gain_one(function: Callable[[Tensor], Tensor], angle: float) -> None:
    result = push(function, angle=angle)
    assert_allclose(result.gain[:, :, 2:], 1.0, **FLOAT64)
    assert (result.gain[:, :, :2] == 0).all()
    assert_allclose(1 - result.recovery, 1.0, **FLOAT64)
    assert_allclose(np.exp(result.growth_rate), [np.nan] * 2 + [1.0] * 3, **FLOAT64)
    assert_allclose(result.angle[:, :, 2:, [1, 4]], angle, **FLOAT64)
    assert (result.angle[:, :, :2] == 0).all()
    assert (result.angle[:, :, 2, [0, 2, 3, 5, 6]] == 0).all()
    assert_allclose(result.angle[..., [0, 2, 3, 5, 6]], 0.0, **FLOAT64)


def test_blocks_that_do_not_answer_to_a_push_carry_it_along() -> None:
    result = push(lambda x: x + torch.linspace(1, 2, WIDTH, dtype=x.dtype), angle=0.3)
    assert_allclose(result.gain, result.carried_gain, **FLOAT64)
    assert_allclose(result.final_direction, result.carried_direction, **FLOAT64)
    assert (result.gain[:, :, -1] < 0.7).all(), "growing states are part of the test"


def test_a_push_carried_along_by_plain_numpy() -> None:
    result = push(linear(3 * TURN), angle=0.3, states=True)
    path, start = result.state.values, result.reference.values

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    carried = unit(start + (path - start)[:, :, 2:3])
    angle = 2 * np.arcsin(np.linalg.norm(carried - unit(start), axis=-1) / 2)[..., [1, 4]]
    gain = np.sqrt((angle**2).mean(-1)) / 0.3
    assert_allclose(result.carried_gain[:, :, 2:], gain[:, :, 2:], rtol=1e-8)
    assert (result.carried_gain[:, :, :2] == 0).all()
    assert_allclose(result.carried_direction, unit(carried[:, :, -1].mean(2)), **FLOAT64)
    assert (abs(result.gain[:, :, -1] - 1) < 1e-9).all()
    assert (result.carried_gain[:, :, -1] < 0.1).all()


def sink(rate: float) -> Callable[[Tensor], Tensor]:
    """Turn each state towards the first axis by the share ``rate`` of its angle to it, along the great circle."""
    axis = torch.eye(WIDTH, dtype=torch.float64)[0]

    def towards(x: Tensor) -> Tensor:
        norm = x.norm(dim=-1, keepdim=True)
        along = (x @ axis)[..., None]
        across = x - along * axis
        away = across / across.norm(dim=-1, keepdim=True)
        left = (1 - rate) * torch.atan2(across.norm(dim=-1, keepdim=True), along)
        return norm * (torch.cos(left) * axis + torch.sin(left) * away)

    return towards


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_push_towards_a_sink_or_away_from_it_dies_out_at_the_rate_of_the_sink(rate: float, sign: float) -> None:
    result = push(sink(rate), directions=sign * np.eye(WIDTH)[0])
    assert dict(result.gain.sizes) == {"draw": 1, "sample": SAMPLES, "depth": BLOCKS + 1}
    gain = (1 - rate) ** np.arange(BLOCKS - 1)
    assert_allclose(result.gain[0, :, 2:], np.tile(gain, (SAMPLES, 1)), **FLOAT64)
    assert_allclose(result.recovery, 1 - (1 - rate) ** 3, **FLOAT64)
    assert_allclose(result.growth_rate, [np.nan] * 2 + [np.log(1 - rate)] * 3, **FLOAT64)


def test_any_linear_map_by_plain_numpy() -> None:
    """The push by hand and angles by the arccosine, which is accurate at an angle of half a radian."""
    matrix = np.random.default_rng(2).normal(size=(WIDTH, WIDTH)) / 3 + np.eye(WIDTH)
    wanted = np.random.default_rng(3).normal(size=(2, SAMPLES, TOKENS, WIDTH))
    result = push(linear(matrix.T), depth=1, tokens="token", angle=0.5, directions=wanted, states=True)
    base = states().numpy() @ matrix
    norm = np.linalg.norm(base, axis=-1, keepdims=True)
    unit = base / norm
    tangent = wanted - np.einsum("wstf,stf->wst", wanted, unit)[..., None] * unit
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    pushed = norm * (np.cos(0.5) * unit + np.sin(0.5) * tangent)
    for depth in range(1, BLOCKS + 1):
        assert_allclose(result.state[:, :, depth], pushed, **FLOAT64)
        assert_allclose(result.reference[:, depth], base, **FLOAT64)
        cosine = (pushed * base).sum(-1) / np.linalg.norm(pushed, axis=-1) / np.linalg.norm(base, axis=-1)
        angle = np.arccos(cosine)
        assert_allclose(result.angle[:, :, depth], angle, **FLOAT64)
        assert_allclose(result.gain[:, :, depth], np.sqrt((angle**2).mean(-1)) / 0.5, **FLOAT64)
        pushed, base = pushed @ matrix, base @ matrix
    gain = result.gain.values
    assert_allclose(result.recovery, 1 - (gain[0, :, -1] + gain[1, :, -1]) / 2, **FLOAT64)
    size = np.sqrt((gain**2).reshape(-1, BLOCKS + 1).mean(0))
    assert_allclose(result.growth_rate[1:], np.log(size[2:] / size[1:-1]), **FLOAT64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float64, FLOAT64)])
def test_the_push_has_its_angle_and_keeps_the_norm(dtype: torch.dtype, tolerance: dict[str, float]) -> None:
    result = push(lambda x: x, states(dtype), states=True, angle=0.01)
    assert_allclose(result.angle[:, :, 2, [1, 4]], 0.01, **tolerance)
    norm = np.linalg.norm(result.reference[:, 2], axis=-1)
    assert_allclose(np.linalg.norm(result.state[:, :, 2], axis=-1), np.tile(norm, (3, 1, 1)), **tolerance)


def test_random_pushes_are_isotropic_in_the_tangent_space() -> None:
    """Of n unit vectors in d = 10 dimensions the mean of d·v·vᵀ is the identity, up to chance."""
    x = torch.zeros(1, 1, WIDTH, dtype=torch.float64)
    x[..., 0] = 2.0
    result = push(lambda x: x, x, tokens=[0], n_draws=6000, angle=np.pi / 2, states=True, batch_size=1000)
    tangent = result.state.values[:, 0, 2, 0] / 2
    assert_allclose(tangent[:, 0], 0.0, **FLOAT64)
    moments = (WIDTH - 1) * tangent[:, 1:].T @ tangent[:, 1:] / 6000
    assert_allclose(moments, np.eye(WIDTH - 1), **STOCHASTIC)
    assert_allclose(tangent.mean(axis=0), 0.0, **STOCHASTIC)


def test_paths_that_become_one_have_no_growth_rate_after() -> None:
    result = push(lambda x: x * 0 + torch.arange(1.0, WIDTH + 1, dtype=x.dtype))
    assert_allclose(result.recovery, 1.0, **FLOAT64)
    assert result.growth_rate.values.tolist()[2] == -np.inf
    assert np.isnan(result.growth_rate[3:]).all()
