"""Results with the dims, coords and attrs of the measures' own, whose pictures the plot tests look at."""

import matplotlib as mpl
import numpy as np
import xarray as xr

from depthflow.schema import describe

mpl.use("agg")

SAMPLES, DEPTHS, TOKENS, FEATURES = 3, 6, 7, 11
BLOCKS = DEPTHS - 1
TYPES = ["cls", "reg", "patch", "patch", "patch", "patch", "patch"]


def convergence_result(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    at_depth, at_block = ("sample", "depth", "token"), ("sample", "block", "token")
    turning = rng.uniform(1, 2, size=(SAMPLES, BLOCKS, TOKENS))
    turning[:, 0] = np.nan
    result = xr.Dataset(
        {
            "angle": (at_depth, rng.uniform(0, 1.5, size=(SAMPLES, DEPTHS, TOKENS))),
            "alignment": (at_depth, rng.uniform(-1, 1, size=(SAMPLES, DEPTHS, TOKENS))),
            "speed": (at_block, rng.uniform(0, 0.5, size=(SAMPLES, BLOCKS, TOKENS))),
            "turning": (at_block, turning),
            "straightness": (("sample", "token"), rng.uniform(size=(SAMPLES, TOKENS))),
        },
        {
            "depth": np.arange(DEPTHS),
            "block": np.arange(1, DEPTHS),
            "token_type": ("token", np.array(TYPES, dtype=np.dtypes.StringDType())),
            "label": ("sample", [4, 9, 4]),
        },
    )
    return describe(result)


def coherence_result(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    result = xr.Dataset(
        {
            "coherence": (("sample", "depth"), rng.uniform(size=(SAMPLES, DEPTHS))),
            "update_coherence": (("sample", "block"), rng.uniform(size=(SAMPLES, BLOCKS))),
            "angle_to_mean": (("sample", "depth", "token"), rng.uniform(size=(SAMPLES, DEPTHS, TOKENS))),
        },
        {"depth": np.arange(DEPTHS), "block": np.arange(1, DEPTHS)},
    )
    return describe(result)


def spectra_result(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    values = np.sort(rng.uniform(0.1, 9, size=(SAMPLES, BLOCKS, TOKENS)), axis=-1)[..., ::-1]
    result = xr.Dataset(
        {
            "singular_value": (("sample", "block", "mode"), values),
            "stable_rank": (("sample", "block"), (values**2).sum(-1) / values[..., 0] ** 2),
        },
        {"block": np.arange(1, DEPTHS)},
    )
    return describe(result)


def phases_result() -> xr.Dataset:
    matrix = np.random.default_rng(0).uniform(0.2, 0.8, size=(BLOCKS, BLOCKS))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    blocks = np.arange(1, DEPTHS)
    result = xr.Dataset(
        {
            "similarity": (("block", "block_other"), matrix),
            "phase": ("block", [1, 1, 2, 2, 2]),
            "boundary_probability": ("block", [0.1, 0.9, 0.0, 0.3, 1.0]),
            "contrast": ((), 0.31),
            "contrast_low": ((), 0.21),
            "contrast_high": ((), 0.42),
            "p_value": ((), 0.005),
        },
        {"block": blocks, "block_other": blocks},
    )
    return describe(result)


def basins_result() -> xr.Dataset:
    rng = np.random.default_rng(0)
    centers = np.linalg.qr(rng.normal(size=(FEATURES, 4)))[0].T
    basin = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3])
    directions = centers[basin] + 0.1 * rng.normal(size=(len(basin), FEATURES))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    result = xr.Dataset(
        {
            "direction": (("sample", "feature"), directions),
            "center": (("basin", "feature"), centers),
            "ari": ("depth", np.linspace(-0.1, 0.9, DEPTHS)),
            "nmi": ("depth", np.linspace(0.1, 0.95, DEPTHS)),
            "commitment_depth": ("sample", [0, 2, 2, 3, 3, 3, 5, 5, 5]),
        },
        {
            "basin": ("sample", basin),
            "depth": np.arange(DEPTHS),
            "label": ("sample", ["a", "b", "c", "a", "b", "c", "a", "b", "c"]),
        },
    )
    return describe(result)


def scores_result(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    axes, names = ("depth", "token_type"), ["all", "cls", "pad", "patch"]
    baselines = ["identity", "linear", "truncated", "repeated"]
    relative = rng.uniform(0.1, 0.4, size=(BLOCKS, len(names)))
    others = rng.uniform(0.3, 0.9, size=(len(baselines), BLOCKS, len(names)))
    result = xr.Dataset(
        {
            "r2": (axes, 1 - relative**2),
            "cosine": (axes, 1 - relative**2 / 2),
            "relative_error": (axes, relative),
            "baseline_r2": (("baseline", *axes), 1 - 2 * others),
            "baseline_cosine": (("baseline", *axes), 1 - others),
            "baseline_relative_error": (("baseline", *axes), others),
            "epsilon": ((), relative[:, 0].max()),
            "epsilon_depth": ((), int(relative[:, 0].argmax()) + 1),
            "teacher_accuracy": ((), 0.992),
            "surrogate_accuracy": ((), 0.943),
            "recovery": ((), 0.951),
            "recovery_low": ((), 0.93),
            "recovery_high": ((), 0.97),
        },
        {
            "depth": np.arange(1, DEPTHS),
            "token_type": np.array(names, dtype=np.dtypes.StringDType()),
            "baseline": np.array(baselines, dtype=np.dtypes.StringDType()),
            "phase": ("depth", [1, 1, 2, 2, 3]),
        },
    )
    return describe(result, "score_surrogate")


def curve_result(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    grid = ("n_phases", "seed")
    result = xr.Dataset(
        {
            "epsilon": (grid, rng.uniform(0.1, 0.9, size=(4, 3))),
            "recovery": (grid, rng.uniform(0.5, 1, size=(4, 3))),
            "baseline_epsilon": ((*grid, "baseline"), rng.uniform(0.5, 1.2, size=(4, 3, 2))),
            "baseline_recovery": ((*grid, "baseline"), rng.uniform(0.1, 0.9, size=(4, 3, 2))),
        },
        {"n_phases": [1, 2, 3, 6], "seed": [0, 1, 5], "baseline": ["identity", "repeated"]},
    )
    return describe(result, "recurrence_curve")
