"""One operator of a span of depth in one pass: its modes, and the errors that follow from sums of products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from depthflow.measures._dmd_arguments import NAME, ends, judged_horizons, states_within
from depthflow.measures._linear_maps import Maps, Sums
from depthflow.measures._operator import described, fitted, token_kinds
from depthflow.measures._prediction import PREDICTIONS, relative_errors
from depthflow.measures._streams import Pooled
from depthflow.measures._ufunc import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from depthflow.measures._streams import Stream
    from depthflow.trajectories import Tokens


class SumsByType:
    """:class:`Sums` of the tokens of each type, and the squares of the states at the span's last depth."""

    def __init__(
        self, of_token: np.ndarray, kinds: Sequence[str], blocks: int, features: int, horizons: list[int]
    ) -> None:
        self.of_token, self.kinds, self.horizons = of_token, kinds, horizons
        self.sums = [self._empty(blocks, features) for _ in kinds]
        self.last = np.zeros(len(kinds))

    def add(self, part: xr.DataArray) -> None:
        """Take in some samples, of the span's depths."""
        for kind, sums in enumerate(self.sums):
            some = part if len(self.kinds) == 1 else part.isel(token=self.of_token == kind)
            sums.add(some)
            self.last[kind] += np.sum(np.square(some[:, -1].values, dtype=np.float64))

    def merge(self, later: SumsByType) -> None:
        """Take in the samples of ``later``."""
        for sums, other in zip(self.sums, later.sums, strict=True):
            sums.merge(other)
        self.last += later.last

    def together(self) -> Sums:
        """Return the sums of all types, as a new object."""
        total = self._empty(*self.sums[0].gram.shape[:2])
        for sums in self.sums:
            total.merge(sums)
        return total

    def errors(self, maps: Maps) -> dict[str, np.ndarray]:
        """Return the relative errors (horizon, token_type) of the operator, the identity and the endpoint maps.

        Of a map M over p blocks, Σ‖M x_ℓ − x_{ℓ+p}‖² = tr(M G Mᵀ) − 2 tr(C Mᵀ) + Σ‖x_{ℓ+p}‖², with G = Σ x_ℓ x_ℓᵀ
        and C = Σ x_{ℓ+p} x_ℓᵀ over all starts: what the sums hold. Differences of large numbers leave of an error e
        a rounding of some 1e-15/e. The maps of each block would need C of every pair of depths; their error is NaN.
        """
        shape = (len(self.horizons), len(self.kinds))
        missed = {name: np.zeros(shape) for name in PREDICTIONS}
        missed["error_per_step"][:] = np.nan
        reached = np.zeros(shape)
        identity = np.eye(len(maps.operator))
        for at, horizon in enumerate(self.horizons):
            power = np.linalg.matrix_power(maps.operator, horizon)
            judged = {"error": power, "error_identity": identity, "error_endpoint": maps.far[horizon]}
            for kind, sums in enumerate(self.sums):
                starts = len(sums.gram) - horizon + 1
                gram = sums.gram[:starts].sum(0)
                cross = sums.step.sum(0) if horizon == 1 else sums.far[horizon]
                squares = np.append(np.trace(sums.gram, axis1=1, axis2=2), self.last[kind])
                reached[at, kind] = squares[horizon:].sum()
                for name, far in judged.items():
                    if far is not None:
                        left = np.sum((far @ gram - 2 * cross) * far) + reached[at, kind]
                        missed[name][at, kind] = max(0.0, left)
        return relative_errors(missed, reached, maps, self.horizons)

    def _empty(self, blocks: int, features: int) -> Sums:
        return Sums(blocks, features, self.horizons, NAME)


def dmd_stream(
    *,
    span: tuple[int, int] | None = None,
    rank: int | None = None,
    ridge: float = 0.0,
    tokens: Tokens = None,
    horizons: int | Sequence[int] | None = None,
) -> Stream:
    """Return :func:`depthflow.dmd` batch by batch, less what needs the states a second time."""

    def within(part: xr.DataArray) -> xr.DataArray:
        prepared, _ = prepare(part, NAME, tokens=tokens)
        return states_within(prepared, *ends(prepared, span), NAME)

    def start(first: xr.DataArray) -> SumsByType:
        blocks, features = first.sizes["depth"] - 1, first.sizes["feature"]
        chosen = judged_horizons(horizons, rank, ridge, blocks, features)
        return SumsByType(*token_kinds(first), blocks, features, chosen)

    def finish(total: SumsByType, like: xr.DataArray) -> xr.Dataset:
        fit = fitted(total.together(), total.horizons, rank, ridge, like.sizes["token"])
        first, _ = ends(like, None)
        return described(fit, total.errors(fit.maps), total.kinds, first, ridge, held_out=False)

    return Pooled(within, start, finish)
