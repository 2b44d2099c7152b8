"""swap_blocks on stacks whose blocks have known effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import depthflow
from depthflow.recording.pairs import weights
from tests.stacks import Chain, linear
from tests.threads import one_thread  # noqa: F401
from tests.tolerances import EXACT, FLOAT32, FLOAT64

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLES, TOKENS, WIDTH = 3, 7, 4
ANGLES = np.array([0.1, -0.4, 1.2, 0.10001, 0.7])


def rotations(angles: Sequence[float] | np.ndarray) -> Chain:
    """Return a stack whose blocks turn the first two features by the angles."""
    turns = np.tile(np.eye(WIDTH), (len(angles), 1, 1))
    turns[:, :2, :2] = np.moveaxis([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]], 2, 0)
    return Chain(*map(linear, turns))


def plane_states() -> Tensor:
    x = torch.zeros(SAMPLES, TOKENS, WIDTH, dtype=torch.float64)
    x[..., :2] = torch.randn(SAMPLES, TOKENS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x


def swap(model: nn.Module, x: Tensor, **kwargs):
    return depthflow.swap_blocks(model, x, progress=False, **kwargs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, FLOAT64), (torch.float32, FLOAT32)])
def test_a_swap_of_rotations_turns_the_end_by_the_difference_of_their_angles(dtype, tolerance):
    got = swap(rotations(ANGLES), plane_states().to(dtype)).effect
    np.testing.assert_allclose(got, np.abs(ANGLES[:, None] - ANGLES), **tolerance)
    np.testing.assert_array_equal(np.diag(got), 0.0)


def test_scalings_have_no_effect():
    model = Chain(lambda x: 2 * x, lambda x: x / 2, lambda x: 8 * x)
    np.testing.assert_allclose(swap(model, plane_states()).effect, 0.0, **EXACT)


def test_a_reversal_has_the_greatest_effect():
    model = Chain(lambda x: x, lambda x: -x)
    np.testing.assert_allclose(swap(model, plane_states()).effect, np.pi * (1 - np.eye(2)), **FLOAT64)


@pytest.mark.parametrize("tied", [True, False])
def test_equal_blocks_have_no_effect_at_all(tied):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True)
    twins = [nn.TransformerEncoderLayer(12, 3, 16, batch_first=True) for _ in range(4)]
    for twin in twins:
        twin.load_state_dict(layer.state_dict())
    model = Chain(*([layer] * 4 if tied else twins))
    got = swap(model, torch.randn(SAMPLES, TOKENS, 12))
    assert got.sizes["block"] == 4
    np.testing.assert_array_equal(got.effect, 0.0)


def test_a_permutation_of_tokens_that_are_compared_is_rms_over_tokens():
    """One block turns the first token alone, by a right angle: rms over 7 tokens."""

    def turn_first(x: Tensor) -> Tensor:
        turned = x.clone()
        turned[:, 0, 0], turned[:, 0, 1] = -x[:, 0, 1], x[:, 0, 0]
        return turned

    model = Chain(turn_first, lambda x: x)
    right_angle = np.pi / 2 * (1 - np.eye(2))
    np.testing.assert_allclose(swap(model, plane_states()).effect, right_angle / np.sqrt(TOKENS), **FLOAT64)
    np.testing.assert_allclose(swap(model, plane_states(), tokens=0).effect, right_angle, **FLOAT64)
    np.testing.assert_allclose(swap(model, plane_states(), tokens=[1, 5]).effect, 0.0, **EXACT)


def test_within_between_and_matched_by_hand():
    """Rotations of phases [1 1 1 2 2] whose effects are |θ_i − θ_j|, the same for every sample."""
    angles = [0.0, 0.1, 0.3, 1.0, 1.5]
    got = swap(rotations(angles), plane_states(), phases=[1, 1, 1, 2, 2])
    within = [0.1, 0.3, 0.2, 0.5]
    between = [1.0, 1.5, 0.9, 1.4, 0.7, 1.2]
    np.testing.assert_allclose(got.within_effect, np.mean(within), **FLOAT64)
    np.testing.assert_allclose(got.between_effect, np.mean(between), **FLOAT64)
    np.testing.assert_allclose(got.difference, np.mean(between) - np.mean(within), **FLOAT64)
    # Distance 1: within 0.1, 0.2, 0.5, between 0.7; distance 2: within 0.3, between 0.9 and 1.2; 3 and 4: between only.
    near, far = 0.7 - np.mean([0.1, 0.2, 0.5]), np.mean([0.9, 1.2]) - 0.3
    np.testing.assert_allclose(got.matched_difference, (3 / 4 * near + 2 / 3 * far) / (3 / 4 + 2 / 3), **FLOAT64)
    for name in ("difference", "matched_difference"):  # equal samples leave no doubt
        np.testing.assert_allclose([got[f"{name}_low"], got[f"{name}_high"]], [got[name]] * 2, **FLOAT64)


@pytest.mark.parametrize("phase", [[1, 1, 2, 2, 3, 3, 3], [1, 2, 1, 1, 2, 2, 2], [5, 5, 5, 5, 5, 0, 0]])
def test_the_matched_difference_is_the_least_squares_coefficient_beside_a_constant_for_each_distance(phase):
    phase = np.array(phase)
    effect = np.random.default_rng(0).uniform(size=(7, 7))
    i, j = np.nonzero(~np.eye(7, dtype=bool))
    distance = np.abs(i - j)
    design = np.column_stack([phase[i] != phase[j], *(distance == apart for apart in range(1, 7))]).astype(float)
    coefficient = np.linalg.lstsq(design, effect[i, j], rcond=None)[0][0]
    np.testing.assert_allclose(np.sum(effect * weights(phase)["matched_difference"]), coefficient, **FLOAT64)


def test_an_effect_of_distance_alone_leaves_no_matched_difference():
    got = swap(rotations(0.2 * np.arange(6)), plane_states(), phases=[1, 1, 1, 2, 2, 2])
    assert got.difference > 0.3
    np.testing.assert_allclose(got.matched_difference, 0.0, **FLOAT64)
