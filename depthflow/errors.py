"""Every error that depthflow raises on purpose.

Each is a :class:`DepthflowError` and also the built-in error that a caller would expect, so both
``except DepthflowError`` and ``except ValueError`` work.
"""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class DepthflowError(Exception):
    """The parent of all of depthflow's errors."""


class TrajectoryError(DepthflowError, ValueError):
    """The states given are not a trajectory that the call can use."""


class ParameterError(DepthflowError, ValueError):
    """An argument is out of its range, or does not fit the trajectory."""


class ModelError(DepthflowError, TypeError):
    """The model cannot be found, loaded or understood."""


class UnsupportedModelError(ModelError):
    """The model was understood, and its states are not alike in shape; see ``reason`` and ``remedy``."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason, self.remedy = reason, remedy


class RecordError(DepthflowError, RuntimeError):
    """A recording could not be made or finished."""


class StoreError(DepthflowError, RuntimeError):
    """A store on disk is missing, foreign, newer, or of other settings."""


class SurrogateError(DepthflowError, RuntimeError):
    """A surrogate could not be fitted, loaded or scored."""


def is_whole_number(value: object) -> bool:
    """Return whether ``value`` is an integer of Python's or NumPy's, which True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole_number_fault(name: str, value: Any, least: int = 1, most: int | None = None) -> list[str]:
    """Return the fault of an argument that is not a whole number from ``least`` to ``most``."""
    if is_whole_number(value) and value >= least and (most is None or value <= most):
        return []
    upward = "" if most is None else f" to {most}"
    return [f"needs {name} as a whole number from {least}{upward}; got {value!r}."]


def raise_faults(error: type[DepthflowError], what: str, faults: Sequence[str]) -> None:
    """Raise ``error`` once, naming every fault found in ``what``; return if there is none."""
    if not faults:
        return
    if len(faults) == 1:
        raise error(f"{what}: {faults[0]}")
    listed = "\n".join(f"  - {fault}" for fault in faults)
    raise error(f"{what}: {len(faults)} faults.\n{listed}")
