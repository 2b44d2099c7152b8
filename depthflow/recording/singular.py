"""Leading singular values of maps that are known only by what they and their transposes make of a vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESTART = 100.0
"""A step below this many roundings of the largest singular value found is no direction but rounding."""

CHECK_EVERY = 3
"""Steps from one look at the values to the next."""

STRICTER = 0.1
"""Share of the tolerance to go on to: until then the iteration may stand for two near values at one of them."""

FLOOR = 1e-6
"""Share of the largest singular value below which none is told from zero."""


class LinearMap(Protocol):
    """One linear map a sample, all applied at once to vectors (sample, dim)."""

    def domain(self, vectors: Tensor) -> Tensor:
        """Return the part of any vectors that A acts on."""

    def range(self, vectors: Tensor) -> Tensor:
        """Return the part of any vectors that A can give."""

    def product(self, vectors: Tensor) -> Tensor:
        """Return A v for each sample."""

    def transposed(self, vectors: Tensor) -> Tensor:
        """Return Aᵀ u for each sample."""


@dataclass(frozen=True)
class Singular:
    """Leading singular triplets of each sample's map.

    Attributes
    ----------
    values : torch.Tensor
        (sample, mode) in float64, largest first.
    residual : torch.Tensor
        (sample, mode): ‖Aᵀu − σv‖ while Av = σu holds to rounding; a singular value of A lies within it of σ.
    left, right : torch.Tensor
        (sample, mode, dim) unit vectors.
    """

    values: Tensor
    residual: Tensor
    left: Tensor
    right: Tensor

    def converged(self, rtol: float) -> Tensor:
        """Return for each sample whether every value is within a relative ``rtol`` of one of A, or next to zero."""
        bound = torch.maximum(rtol * self.values, FLOOR * self.values[:, :1])
        return (self.residual <= bound).all(dim=1)


def leading(linear: LinearMap, draw: Callable[[], Tensor], n_modes: int, rtol: float, max_steps: int) -> Singular:
    """Return the ``n_modes`` leading singular triplets by Golub–Kahan–Lanczos bidiagonalisation.

    Both bases are re-orthogonalised in full, and a basis that closes on itself goes on from a new direction. Until it
    closes, values that are equal to rounding are found once, as all that is reached from one vector sees one of them.

    Parameters
    ----------
    linear : LinearMap
        The maps, A of sample i independent of all others.
    draw : callable
        Gives random vectors (sample, dim): where to begin, and where to go on if a basis closed on itself.
    n_modes : int
        At most the dimension of the domain.
    rtol : float
        Relative error of each value at which to stop.
    max_steps : int
        Applications of A and of its transpose at most; the dimension of the domain or less.

    References
    ----------
    Golub & Kahan 1965, doi:10.1137/0702016; the bounds: Parlett, The Symmetric Eigenvalue Problem, 1998,
    doi:10.1137/1.9781611971163.
    """
    right = [unit(linear.domain(draw()))]
    left: list[Tensor] = []
    steps: list[tuple[Tensor, Tensor]] = []
    largest = torch.zeros_like(right[0][:, :1])
    while True:
        image, alpha = _next(linear.product(right[-1]), left, largest, lambda: linear.range(draw()))
        left.append(image)
        largest = torch.maximum(largest, alpha)
        preimage, beta = _next(linear.transposed(image), right, largest, lambda: linear.domain(draw()))
        steps.append((alpha, beta))
        last = len(steps) == max_steps
        if last or (len(steps) >= n_modes and len(steps) % CHECK_EVERY == 0):
            found = _ritz(steps, torch.stack(left, 1), torch.stack(right, 1), n_modes)
            if last or bool(found.converged(STRICTER * rtol).all()):
                return found
        right.append(preimage)


def nothing(start: Tensor) -> Singular:
    """Return no triplets of maps on vectors like ``start`` (sample, dim)."""
    none, vectors = start.new_zeros(len(start), 0, dtype=torch.float64), start[:, None][:, :0]
    return Singular(none, none, vectors, vectors)


def _next(vector: Tensor, basis: list[Tensor], largest: Tensor, draw: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the direction of ``vector`` away from ``basis``, and its length there; another if there is none."""
    vector = orthogonal(vector, basis)
    length = vector.norm(dim=1, keepdim=True)
    closed = length <= RESTART * torch.finfo(vector.dtype).eps * largest
    if bool(closed.any()):
        vector = torch.where(closed, orthogonal(draw(), basis), vector)
        length = torch.where(closed, torch.zeros_like(length), length)
    return unit(vector), length


def unit(vector: Tensor) -> Tensor:
    """Return (sample, dim) with each sample's vector of norm 1."""
    scaled: Tensor = vector / vector.norm(dim=1, keepdim=True)
    return scaled


def orthogonal(vector: Tensor, basis: Sequence[Tensor] | Tensor) -> Tensor:
    """Return (sample, dim) less its parts along an orthonormal ``basis``, to rounding."""
    if len(basis) == 0:
        return vector
    stacked = basis if isinstance(basis, Tensor) else torch.stack(list(basis), dim=1)
    for _ in range(2):  # once leaves as much as it cancels
        vector = vector - torch.einsum("sk,skd->sd", torch.einsum("skd,sd->sk", stacked, vector), stacked)
    return vector


def _ritz(steps: Sequence[tuple[Tensor, Tensor]], left: Tensor, right: Tensor, n_modes: int) -> Singular:
    """Return the triplets of the bidiagonal matrix B of A V = U B, AᵀU = V Bᵀ + β v eᵀ."""
    alpha = torch.cat([alpha for alpha, _ in steps], dim=1).double()
    beta = torch.cat([beta for _, beta in steps], dim=1).double()
    bidiagonal = torch.diag_embed(alpha) + torch.diag_embed(beta[:, :-1], offset=1)
    tall, values, wide = torch.linalg.svd(bidiagonal)
    residual = beta[:, -1:] * tall[:, -1, :].abs()
    kept = slice(0, n_modes)
    return Singular(
        values[:, kept],
        residual[:, kept],
        torch.einsum("skm,skd->smd", tall[:, :, kept].to(left.dtype), left),
        torch.einsum("smk,skd->smd", wide[:, kept].to(right.dtype), right),
    )
