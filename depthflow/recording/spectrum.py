"""What is measured of a linearised span: leading singular values, gain over all directions, eigenvalues."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from depthflow.recording.memory import require
from depthflow.recording.singular import leading, nothing, orthogonal, unit

if TYPE_CHECKING:
    from depthflow.recording.linearize import Linearization

DIMS = {
    "singular_value": ("mode",),
    "residual": ("mode",),
    "exponent": ("mode",),
    "converged": (),
    "rms_gain": (),
    "rms_gain_error": (),
    "eigenvalue": ("eigenmode",),
    "nonnormality": (),
    "symmetry": (),
    "left": ("mode", "token", "feature"),
    "right": ("mode", "token", "feature"),
}
"""Dims of each variable after ``sample`` and ``span``."""

Found = dict[str, np.ndarray]
"""Each variable of one span and batch, ``sample`` first."""


class Draws:
    """Random vectors, of which each sample has its own stream for each span."""

    def __init__(self, linear: Linearization, seed: int, samples: range) -> None:
        self._linear = linear
        self._rngs = [np.random.default_rng([seed, sample, linear.start, linear.stop]) for sample in samples]

    def normal(self) -> Tensor:
        """Return (sample, dim) of random direction."""
        _, tokens, features = self._linear.shape
        rows = np.stack([rng.standard_normal(tokens * features) for rng in self._rngs])
        state = self._linear.replay.states[0]
        return torch.as_tensor(rows, dtype=state.dtype, device=state.device)


def formed(linear: Linearization, n_modes: int, *, vectors: bool) -> Found:
    """Return everything of the map, from all of its rows.

    Raises
    ------
    RecordError
        If it does not fit into memory.
    """
    samples, count, features = linear.shape
    require(
        6 * samples * (count * features) ** 2 * 8,
        f"a dense Jacobian of {count * features} dimensions for {samples} samples",
        "Leave dense=None, or choose fewer tokens= or a smaller batch_size=.",
    )
    plain = linear.dense().double()
    dense = linear.of_directions(plain)
    left, values, right = torch.linalg.svd(dense)
    eigenvalue = torch.linalg.eigvals(plain).cpu().numpy()
    energy = (plain**2).sum(dim=(1, 2)).cpu().numpy()
    order = np.argsort(-np.abs(eigenvalue), axis=1, kind="stable")
    lacking = np.maximum(energy - (np.abs(eigenvalue) ** 2).sum(axis=1), 0.0)
    symmetric = ((plain + plain.mT) / 2).pow(2).sum(dim=(1, 2)).cpu().numpy()
    zero = torch.zeros_like(values[:, :n_modes])
    with np.errstate(invalid="ignore"):
        found = {
            **_triplets(linear, values[:, :n_modes], zero, left.mT[:, :n_modes], right[:, :n_modes], vectors=vectors),
            "converged": np.ones(samples, dtype=bool),
            "rms_gain": (dense.flatten(1).norm(dim=1) / math.sqrt(linear.dim)).cpu().numpy(),
            "rms_gain_error": np.zeros(samples),
            "eigenvalue": np.take_along_axis(eigenvalue, order, axis=1),
            "nonnormality": np.sqrt(lacking / energy),
            "symmetry": symmetric / energy,
        }
    return found


def by_products(
    linear: Linearization, draws: Draws, n_modes: int, rtol: float, max_iter: int, n_probes: int, *, vectors: bool
) -> Found:
    """Return what can be known of the map without forming it."""
    probes = [draws.normal() for _ in range(n_probes)]
    steps = min(max(max_iter, n_modes), linear.dim)
    top = leading(linear, draws.normal, n_modes, rtol, steps) if n_modes else nothing(probes[0])
    # ‖A‖_F² is Σσ² on the vectors found, and beside them the mean of ‖Aᵀz‖² over unit z times the dimension left. Aᵀ
    # rather than A, as it takes one differentiation.
    beside = top.values.new_zeros(n_probes, len(probes[0]))
    left = linear.dim - n_modes
    for probe, total in zip(probes if left else [], beside, strict=False):
        image = linear.transposed(unit(orthogonal(linear.range(probe), top.left)))
        total += left * image.double().pow(2).sum(dim=1)
    energy = (top.values**2).sum(dim=1) + beside.mean(dim=0)
    error = beside.std(dim=0) / math.sqrt(n_probes)
    return {
        **_triplets(linear, top.values, top.residual, top.left, top.right, vectors=vectors),
        "converged": top.converged(rtol).cpu().numpy(),
        "rms_gain": (energy / linear.dim).sqrt().cpu().numpy(),
        "rms_gain_error": (error / (2 * (energy * linear.dim).sqrt())).cpu().numpy(),
    }


def _triplets(
    linear: Linearization, values: Tensor, residual: Tensor, left: Tensor, right: Tensor, *, vectors: bool
) -> Found:
    found = {"singular_value": values.cpu().numpy(), "residual": residual.cpu().numpy()}
    if vectors:
        shape = (*left.shape[:2], *linear.shape[1:])
        found |= {"left": left.reshape(shape).cpu().numpy(), "right": right.reshape(shape).cpu().numpy()}
    return found
