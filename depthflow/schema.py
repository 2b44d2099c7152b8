"""The data model: names of dims, coords and variables, their units, and the validation of a trajectory.

A trajectory is an ``xarray.DataArray`` of residual-stream states with the dims ``("sample", "depth", "token",
"feature")``. Depth 0 is the input of the first block and depth ℓ the output of block ℓ, before the model's final norm.
Quantities of an update live on the dim ``block``: block ℓ maps depth ℓ−1 to depth ℓ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from depthflow.errors import TrajectoryError, raise_faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA_VERSION = 1

DIMS = ("sample", "depth", "token", "feature")
REQUIRED_DIMS = ("depth", "feature")
STATE = "state"

CLS, REGISTER, DISTILLATION, PATCH, PAD, MEAN, TOKEN = "cls", "reg", "dist", "patch", "pad", "mean", "token"
TOKEN_TYPES = (CLS, REGISTER, DISTILLATION, PATCH, PAD, MEAN, TOKEN)
"""Kinds of token: class, register, distillation, image patch, padding, mean of the patches, unknown."""

OFF_GRID = -1
"""``row`` and ``col`` of a token that has no place on the image."""


class Variable(NamedTuple):
    """What a variable of a result means; ``categorical`` ones are labels, whose mean says nothing."""

    long_name: str
    units: str
    categorical: bool = False


VARIABLES: Mapping[str, Variable] = {
    STATE: Variable("residual-stream state", "state unit"),
    "update": Variable("residual update", "state unit"),
    # convergence
    "alignment": Variable("cosine to the reference direction", "1"),
    "angle": Variable("angle to the reference direction", "rad"),
    "speed": Variable("angular speed", "rad/block"),
    "turning": Variable("turning angle between successive updates", "rad"),
    "norm": Variable("norm of the state", "state unit"),
    "update_norm": Variable("norm of the update", "state unit"),
    "radial_fraction": Variable("radial share of the update", "1"),
    "path_length": Variable("angular path length", "rad"),
    "straightness": Variable("angle between the ends over path length", "1"),
    "settling_depth": Variable("first depth from which the angle stays within tolerance", "1"),
    # coherence
    "coherence": Variable("mean resultant length of the tokens' directions", "1"),
    "update_coherence": Variable("mean resultant length of the updates' directions", "1"),
    "angle_to_mean": Variable("angle to the tokens' mean direction", "rad"),
    "clusters_energy": Variable("interaction energy of the tokens", "1"),
    # update_spectra
    "singular_value": Variable("singular value of the update matrix", "state unit"),
    "stable_rank": Variable("stable rank of the update matrix", "1"),
    "effective_rank": Variable("effective rank of the update matrix", "1"),
    "participation_ratio": Variable("participation ratio of the update matrix", "1"),
    "energy_rank": Variable("number of modes that hold the given share of energy", "1"),
    # similarity and phases
    "similarity": Variable("similarity of blocks", "1"),
    "phase": Variable("phase of the block, counted from 1", "1", categorical=True),
    "boundary": Variable("last block of the phase", "1"),
    "cut_weight": Variable("total dissimilarity between phases", "1"),
    "gain": Variable("cut weight gained by the last phase added", "1"),
    "contrast": Variable("mean similarity within minus between phases", "1"),
    "contrast_low": Variable("lower end of the contrast's interval", "1"),
    "contrast_high": Variable("upper end of the contrast's interval", "1"),
    "boundary_probability": Variable("share of resamples in which a phase ends at the block", "1"),
    "null_contrast": Variable("contrast of shuffled depths", "1"),
    "p_value": Variable("share of shuffles with at least this contrast", "1"),
    # basins
    "basin": Variable("basin of the sample's final direction", "1", categorical=True),
    "direction": Variable("final direction of the sample", "1"),
    "center": Variable("unit direction of the basin's center", "1"),
    "concentration": Variable("von Mises-Fisher concentration of the basin", "1"),
    "silhouette": Variable("silhouette of the sample, by cosine distance", "1"),
    "basin_at_depth": Variable("basin whose center is nearest", "1", categorical=True),
    "margin": Variable("angle to the second-nearest minus angle to the nearest center", "rad"),
    "commitment_depth": Variable("first depth from which the nearest center never changes", "1"),
    "occupancy": Variable("share of the samples in the basin", "1"),
    "purity": Variable("purity of the basins with respect to the labels", "1"),
    "nmi": Variable("normalised mutual information with the labels", "1"),
    "ari": Variable("adjusted Rand index with the labels", "1"),
    "within_angle": Variable("mean angle between samples of the same label", "rad"),
    "between_angle": Variable("mean angle between samples of different labels", "rad"),
    "bic": Variable("Bayesian information criterion of the mixture (lower is better)", "1"),
    # perturb
    "recovery": Variable("one minus the mean gain at the last depth", "1"),
    "growth_rate": Variable("growth rate of the angle between the paths", "1/block"),
    "final_direction": Variable("final direction of the perturbed path", "1"),
    "carried_gain": Variable("gain if no later block answered to the push", "1"),
    "carried_direction": Variable("final direction if no later block answered to the push", "1"),
    "reference_direction": Variable("final direction of the unperturbed path", "1"),
    "reference": Variable("residual-stream state of the unperturbed path", "state unit"),
    # basin_stability
    "basin_stability": Variable("share of perturbed paths that end in the basin of the unperturbed one", "1"),
    "stable_share": Variable("share of the sample's draws that end in its basin", "1"),
    "carried_stability": Variable("basin stability if no later block answered to the push", "1"),
    "carried_share": Variable("share of the sample's draws in its basin if no later block answered", "1"),
    "low": Variable("lower end of the interval", "1"),
    "high": Variable("upper end of the interval", "1"),
    "n_samples": Variable("number of samples", "1"),
    # jacobian and finite_jacobian
    "exponent": Variable("finite-depth Lyapunov exponent", "1/block"),
    "residual": Variable("distance within which a singular value lies", "1"),
    "converged": Variable("whether the singular values are within the tolerance", "1", categorical=True),
    "rms_gain": Variable("root-mean-square growth of a small change", "1"),
    "rms_gain_error": Variable("standard error of the root-mean-square growth", "1"),
    "nonnormality": Variable("departure of the Jacobian from normality (Henrici)", "1"),
    "symmetry": Variable("share of the Jacobian's energy in its symmetric part", "1"),
    "left": Variable("unit singular vector, outgoing", "1"),
    "right": Variable("unit singular vector, ingoing", "1"),
    "rank": Variable("number of directions that the deviations span", "1"),
    # swap_blocks
    "effect": Variable("change of the final direction by the swap", "rad"),
    "accuracy": Variable("share of samples classified rightly with the swap", "1"),
    "accuracy_unswapped": Variable("share of samples classified rightly by the model as it is", "1"),
    "within_effect": Variable("mean effect of swaps within a phase", "rad"),
    "between_effect": Variable("mean effect of swaps between phases", "rad"),
    "difference": Variable("effect between minus within phases", "rad"),
    "difference_low": Variable("lower end of the difference's interval", "rad"),
    "difference_high": Variable("upper end of the difference's interval", "rad"),
    "matched_difference": Variable("effect between minus within phases at equal distance in depth", "rad"),
    "matched_difference_low": Variable("lower end of the matched difference's interval", "rad"),
    "matched_difference_high": Variable("upper end of the matched difference's interval", "rad"),
    # dmd
    "eigenvalue": Variable("eigenvalue of the operator", "1"),
    "mode_vector": Variable("unit right eigenvector of the operator", "1"),
    "amplitude": Variable("root mean square of the initial states' coordinate along the mode", "state unit"),
    "growth": Variable("growth rate of the mode", "1/block"),
    "frequency": Variable("angular frequency of the mode", "rad/block"),
    "operator": Variable("linear operator of one block", "1"),
    "error": Variable("relative error of the prediction", "1"),
    "error_identity": Variable("relative error of leaving the state as it is", "1"),
    "error_endpoint": Variable("relative error of the best map for the horizon", "1"),
    "error_per_step": Variable("relative error of the best maps of each block", "1"),
    "skill": Variable("share of the squared error of the identity that the prediction removes", "1"),
    # score_surrogate and recurrence_curve
    "r2": Variable("explained share of the states' variance (R²)", "1"),
    "cosine": Variable("cosine to the teacher's state", "1"),
    "relative_error": Variable("relative error of the states", "1"),
    "epsilon": Variable("largest relative error over depths (ε)", "1"),
    "epsilon_depth": Variable("depth of the largest relative error", "1"),
    "agreement": Variable("share of samples that surrogate and teacher classify alike", "1"),
    "teacher_accuracy": Variable("share of samples that the teacher classifies rightly", "1"),
    "surrogate_accuracy": Variable("share of samples that the surrogate classifies rightly", "1"),
    "recovery_low": Variable("lower end of the recovery's interval", "1"),
    "recovery_high": Variable("upper end of the recovery's interval", "1"),
    "teacher_probe_accuracy": Variable("accuracy of a linear probe on the teacher's final states", "1"),
    "surrogate_probe_accuracy": Variable("accuracy of a linear probe on the surrogate's final states", "1"),
    "probe_recovery": Variable("surrogate's over teacher's probe accuracy", "1"),
    "baseline_r2": Variable("explained share of the states' variance (R²), baseline", "1"),
    "baseline_cosine": Variable("cosine to the teacher's state, baseline", "1"),
    "baseline_relative_error": Variable("relative error of the states, baseline", "1"),
    "baseline_epsilon": Variable("largest relative error over depths (ε), baseline", "1"),
    "baseline_accuracy": Variable("share of samples that the baseline classifies rightly", "1"),
    "baseline_recovery": Variable("baseline's over teacher's accuracy", "1"),
    "seconds": Variable("seconds of training", "s"),
}
"""Every variable that a measure returns, with its long name and units."""

VARIABLES_OF: Mapping[str, Mapping[str, Variable]] = {
    "perturb": {
        "angle": Variable("angle between the perturbed and the unperturbed state", "rad"),
        "gain": Variable("angle of the pushed tokens over that of the push", "1"),
        "state": Variable("residual-stream state of the perturbed path", "state unit"),
    },
    "jacobian": {
        "singular_value": Variable("singular value of the Jacobian", "1"),
        "eigenvalue": Variable("eigenvalue of the Jacobian", "1"),
    },
    "finite_jacobian": {"singular_value": Variable("singular value of the Jacobian", "1")},
    "score_surrogate": {"recovery": Variable("surrogate's over teacher's accuracy", "1")},
    "recurrence_curve": {"recovery": Variable("surrogate's over teacher's accuracy", "1")},
}
"""What a variable means in the result of one measure, where another measure's variable has the same name."""


def labels(array: xr.DataArray, dim: str) -> np.ndarray:
    """Return the labels along ``dim``: its coord's values, or the positions where it has none.

    Read from the variables, as building a DataArray for each would cost more than a small measure.
    """
    coord = array.coords.variables.get(dim)
    values: np.ndarray = np.arange(array.sizes[dim]) if coord is None else coord.values
    return values


def token_types(array: xr.DataArray | xr.Dataset) -> list[str]:
    """Return the type of each token, ``"token"`` where they are not known."""
    coord = array.coords.variables.get("token_type")
    if coord is None:
        return [TOKEN] * array.sizes.get("token", 0)
    return [str(kind) for kind in np.ravel(coord.values).tolist()]


def leading_tokens(types: Sequence[str]) -> str | np.ndarray:
    """Return which of tokens of these ``types`` stand for a sample: a type, or positions.

    That is the class token, else the patches, else their recorded mean, else all tokens but padding.
    """
    kind = next((kind for kind in (CLS, PATCH, MEAN) if kind in types), None)
    return np.flatnonzero(np.array(types) != PAD) if kind is None else kind


def describe(result: xr.Dataset, measure: str = "") -> xr.Dataset:
    """Attach to each variable of ``result`` its ``long_name`` and ``units`` in ``measure``, in place, and return it."""
    meanings = {**VARIABLES, **VARIABLES_OF.get(measure, {})}
    for name, variable in result.variables.items():
        known = meanings.get(str(name))
        if known is not None:
            variable.attrs.update(long_name=known.long_name, units=known.units)
    return result


def check(traj: object, what: str) -> xr.DataArray:
    """Return ``traj`` if it is a trajectory by dims, sizes, dtype and coords; else raise every fault at once.

    The states' values are not read: a state that is not finite is found by the measures as they go.

    Parameters
    ----------
    traj : xarray.DataArray
        With the dims ``depth`` (at least two) and ``feature``, optionally ``sample`` and ``token``.
    what : str
        The caller's name, which opens the message.

    Raises
    ------
    TrajectoryError
        What was expected, what came, and the remedy, for every fault.
    """
    if not isinstance(traj, xr.DataArray):
        raise TrajectoryError(
            f"{what} needs a trajectory, an xarray.DataArray; got {type(traj).__name__}. "
            "Build one with `depthflow.trajectory(states)`."
        )
    raise_faults(TrajectoryError, what, [*_dim_faults(traj), *_value_faults(traj), *_coord_faults(traj)])
    return traj


def check_consecutive(traj: xr.DataArray, what: str) -> None:
    """Raise unless the depths follow one another, so that each step is one block."""
    depth = labels(traj, "depth")
    gap = np.flatnonzero(np.diff(depth) != 1)
    if len(gap):
        raise TrajectoryError(
            f"{what} needs consecutive depths, as each step is one block; got depth {depth[gap[0]]} followed by "
            f"{depth[gap[0] + 1]}. Record all depths, or select a contiguous range."
        )


def _dim_faults(traj: xr.DataArray) -> list[str]:
    faults = []
    missing = [dim for dim in REQUIRED_DIMS if dim not in traj.dims]
    unknown = [str(dim) for dim in traj.dims if dim not in DIMS]
    if missing:
        fault = f"needs the dims {REQUIRED_DIMS}; got {tuple(map(str, traj.dims))}."
        if len(unknown) >= len(missing):
            renames = ", ".join(f"{old}={new!r}" for old, new in zip(unknown, missing, strict=False))
            fault += f" Rename, perhaps with `.rename({renames})`."
        faults.append(fault)
    elif unknown:
        faults.append(f"knows the dims {DIMS}; got {unknown[0]!r} too. Select or average over it first.")
    if "depth" in traj.dims and traj.sizes["depth"] < 2:
        faults.append(f"needs at least two depths, the input of a block and its output; got {traj.sizes['depth']}.")
    faults += [f"dim {dim!r} is empty." for dim in DIMS if dim != "depth" and traj.sizes.get(dim) == 0]
    return faults


def _value_faults(traj: xr.DataArray) -> list[str]:
    if np.issubdtype(traj.dtype, np.floating):
        return []
    remedy = "Take the real part or the modulus." if traj.dtype.kind == "c" else "Convert with `.astype('float32')`."
    return [f"needs real floating-point states; got dtype {traj.dtype}. {remedy}"]


def _coord_faults(traj: xr.DataArray) -> list[str]:
    faults = []
    if "depth" in traj.indexes:
        depth = labels(traj, "depth")
        if not np.issubdtype(depth.dtype, np.integer) or np.any(np.diff(depth) <= 0) or depth[0] < 0:
            faults.append(f"needs depths that are increasing integers from 0; got {depth.tolist()}.")
    if "token_type" in traj.coords:
        strange = sorted(set(token_types(traj)) - set(TOKEN_TYPES))
        if strange:
            faults.append(f"knows the token types {TOKEN_TYPES}; got {strange}.")
    return faults
