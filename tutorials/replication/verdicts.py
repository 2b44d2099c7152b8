"""What a published claim is checked by: conditions on measured numbers, from which its verdict follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AGREES, IN_PART, DISAGREES, NOT_MEASURED = "agrees", "agrees in part", "does not agree", "not measured"


@dataclass(frozen=True)
class Condition:
    """What a claim implies, and whether the measured numbers have it."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Claim:
    """A published claim, where it stands, what was published, what of it holds here, and why it may differ."""

    claim: str
    where: str
    published: str
    conditions: tuple[Condition, ...]
    why: str

    @property
    def verdict(self) -> str:
        """All, some or none of the conditions hold; or there is none."""
        if not self.conditions:
            return NOT_MEASURED
        held = [condition.holds for condition in self.conditions]
        return AGREES if all(held) else IN_PART if any(held) else DISAGREES


def number(value: float, digits: int = 2) -> str:
    """Return a number with a true minus sign, and none before a zero."""
    return f"{value:z.{digits}f}".replace("-", "−")


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return mean and range of several seeds, or the one value there is."""
    array = np.asarray(values, dtype=float)
    if len(array) == 1:
        return number(array[0], digits)
    return interval((array.mean(), array.min(), array.max()), digits)


def interval(triple: Sequence[float], digits: int = 2) -> str:
    """Return a mean and its interval."""
    return "{} [{}, {}]".format(*(number(value, digits) for value in triple))


def extent(values: Sequence[float], digits: int = 2) -> str:
    """Return the least and the greatest."""
    return f"{number(min(values), digits)} to {number(max(values), digits)}"


def third(curve: Sequence[float], which: int) -> float:
    """Return the mean of the first, middle or last third of the blocks (0, 1, 2)."""
    size = len(curve) // 3
    return sum(curve[which * size : (which + 1) * size]) / size


def twins(values: Mapping[str, Any]) -> list[Any]:
    """Return what was measured of the untrained models."""
    return [found for name, found in values.items() if name.startswith("untrained")]


def above(values: Sequence[float], others: Sequence[float]) -> bool:
    """Return whether every one of the values is above every one of the others."""
    return min(values) > max(others)


def difference(values: Sequence[float], others: Sequence[float], n: int = 2000) -> tuple[float, float, float]:
    """Return the difference of two means over seeds, and its 95 % percentile interval over resampled seeds."""
    rng = np.random.default_rng(0)
    left, right = np.asarray(values, dtype=float), np.asarray(others, dtype=float)
    draws = left[rng.integers(len(left), size=(n, len(left)))].mean(1) - right[
        rng.integers(len(right), size=(n, len(right)))
    ].mean(1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(left.mean() - right.mean()), float(low), float(high)


def ranks_agree(values: Sequence[float], others: Sequence[float], n: int = 5000) -> tuple[float, float]:
    """Return Spearman's rank correlation, and the share of shuffles whose correlation is as large in size."""
    left, right = (np.argsort(np.argsort(array)).astype(float) for array in (values, others))
    rng = np.random.default_rng(0)
    found = float(np.corrcoef(left, right)[0, 1])
    null = [abs(np.corrcoef(left, rng.permutation(right))[0, 1]) for _ in range(n)]
    return found, float((1 + sum(value >= abs(found) - 1e-12 for value in null)) / (1 + n))
