"""Say in plain words, with numbers and intervals, what an analysis found, each finding beside its null."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthflow.resample import CONFIDENCE, mean_interval
from depthflow.schema import CLS, PATCH, token_types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import xarray as xr

    from depthflow.analysis import Analysis

WIDTH = 100
LEADING_TYPES = (CLS, PATCH)
GROUPS = 100
NORMAL_QUANTILE = 1.96
MOST = 0.9
"""Share of the samples that the basins worth naming hold."""
INTERVALS = f"Square brackets: {CONFIDENCE:.0%} intervals over samples, by the bootstrap (ari: by the jackknife)."


class Answer(NamedTuple):
    """A measure's question, and what the trajectory and its null say to it, a sentence an entry."""

    measure: str
    question: str
    found: list[str]
    null: list[str]


def answers(analysis: Analysis) -> list[Answer]:
    """Return the answer of each measure of the analysis."""
    return [
        Answer(name, question, sentences(analysis.results[name]), sentences(analysis.null[name]))
        for name, (question, sentences) in QUESTIONS.items()
        if name in analysis.results
    ]


def summarize(analysis: Analysis) -> str:
    """Return one paragraph a measure: the question, the trajectory's answer, and the null's."""
    parts = []
    for answer in answers(analysis):
        found = [f"- {sentence}" for sentence in answer.found]
        found += [f"· {analysis.null_name}: {sentence}" for sentence in answer.null]
        lines = [fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in found]
        parts.append("\n".join([answer.question, *lines]))
    parts.append(f"{INTERVALS} What begins with · is the null.")
    return "\n\n".join(parts)


def _shown(values: xr.DataArray, digits: int = 2) -> str:
    """Return the mean over samples with its interval; other dims are averaged first.

    A single sample has no interval.
    """
    per_sample = values.mean([dim for dim in values.dims if dim != "sample"]).values
    mean, low, high = mean_interval(np.atleast_1d(per_sample))
    if np.isnan(mean):
        return "undefined"
    if np.size(per_sample) < 2:
        return f"{mean:z.{digits}f}"
    return f"{mean:z.{digits}f} [{low:z.{digits}f}, {high:z.{digits}f}]"


def _by_type(result: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Return the result's part for cls and for patches, or all of it where there is neither."""
    types = token_types(result)
    if not types:
        return [("the only token", result)]
    parts = [
        (kind, result.isel(token=[index for index, one in enumerate(types) if one == kind]))
        for kind in LEADING_TYPES
        if kind in types
    ]
    return parts or [("all tokens", result)]


def _convergence(result: xr.Dataset) -> list[str]:
    depth, block = result["depth"].values, result["block"].values
    return [
        f"{kind}: the angle to the final direction is {_shown(part.angle.isel(depth=0))} rad at depth {depth[0]}, "
        f"{_shown(part.angle.isel(depth=len(depth) // 2))} at depth {depth[len(depth) // 2]}, "
        f"{_shown(part.angle.isel(depth=-2))} at depth {depth[-2]}; "
        f"speed {_shown(part.speed.isel(block=0))} rad/block at block {block[0]}, "
        f"{_shown(part.speed.isel(block=-1))} at block {block[-1]}; straightness {_shown(part.straightness)}"
        for kind, part in _by_type(result)
    ]


def _coherence(result: xr.Dataset) -> list[str]:
    depth = result["depth"].values
    return [
        f"mean resultant length {_shown(result.coherence.isel(depth=0))} at depth {depth[0]}, "
        f"{_shown(result.coherence.isel(depth=-1))} at depth {depth[-1]}; "
        f"of the updates {_shown(result.update_coherence)} on average over blocks"
    ]


def _update_spectra(result: xr.Dataset) -> list[str]:
    block, modes = result["block"].values, result.sizes["mode"]
    return [
        f"stable rank {_shown(result.stable_rank.isel(block=0))} at block {block[0]}, "
        f"{_shown(result.stable_rank.isel(block=-1))} at block {block[-1]}, of at most {modes}; "
        f"{_shown(result.energy_rank, 1)} modes hold {result.attrs['energy']:.0%} of an update's energy"
    ]


def _phases(result: xr.Dataset) -> list[str]:
    ends = result["boundary"].values.tolist()
    starts = [int(result["block"].values[0]), *(end + 1 for end in ends[:-1])]
    listed = " ".join(f"[{start}–{end}]" for start, end in zip(starts, ends, strict=True))
    if len(ends) == 1:
        return [f"one phase, {listed}: no cut weighs more than the threshold"]
    if np.isnan(result["contrast"]):
        return [f"{len(ends)} phases {listed}; no phase holds two blocks to compare with those of others"]
    inner = result["boundary_probability"].sel(block=ends[:-1]).values
    return [
        f"{len(ends)} phases {listed}; similarity within minus between {float(result['contrast']):.2f} "
        f"[{float(result['contrast_low']):.2f}, {float(result['contrast_high']):.2f}], p = "
        f"{float(result['p_value']):.3f} against shuffled depths; the inner boundaries recur in "
        + ", ".join(f"{share:.0%}" for share in inner)
        + " of the resamples"
    ]


def _basins(result: xr.Dataset) -> list[str]:
    count, depth = result.sizes["basin"], result["depth"].values
    if count == 1:
        return ["one basin by the mixture's BIC: the final directions form no clusters"]
    tried = " (as many as were tried)" if count == result.sizes["n_basins"] else ""
    most = int(np.searchsorted(np.cumsum(result.occupancy.values), MOST) + 1)
    lines = [
        f"{count} basins by the mixture's BIC{tried}, of which {most} hold {MOST:.0%} of the samples; silhouette "
        f"{_shown(result.silhouette)}; a sample commits at depth {np.median(result.commitment_depth.values):g} of "
        f"{depth[-1]} (median)"
    ]
    if "ari" in result:
        shown = [0, len(depth) // 2, len(depth) - 1]
        lines.append(
            f"agreement with the classes at depths {', '.join(str(depth[index]) for index in shown)}: "
            f"ari {', '.join(_ari(result, index) for index in shown)}; "
            f"nmi {', '.join(f'{float(result.nmi[index]):z.2f}' for index in shown)}"
        )
    return lines


def _ari(result: xr.Dataset, index: int) -> str:
    """Return the adjusted Rand index at a depth, with its interval for these clusters.

    By the delete-a-group jackknife: to a resample, a sample drawn twice is a pair that agrees, which lifts the index.
    """
    from sklearn.metrics import adjusted_rand_score

    basin, label = result["basin_at_depth"].values[:, index], np.unique(result["label"].values, return_inverse=True)[1]
    groups = min(GROUPS, len(label) // 2)
    group = np.arange(len(label)) % groups
    left = np.array([adjusted_rand_score(label[group != out], basin[group != out]) for out in range(groups)])
    margin = NORMAL_QUANTILE * np.sqrt((groups - 1) * left.var())
    estimate = float(result.ari[index])
    return f"{estimate:z.2f} [{estimate - margin:z.2f}, {min(estimate + margin, 1.0):z.2f}]"


def _dmd(result: xr.Dataset) -> list[str]:
    horizons = result["horizon"].values
    shown = sorted({0, len(horizons) // 2, len(horizons) - 1})
    held = "held-out samples" if result.attrs["held_out"] else "the same samples"
    held += f" (map fitted to {result.attrs['n_pairs']:,} steps)"
    lines = []
    for kind in _leading(token_types(result)):
        part = result.sel(token_type=kind)
        errors = [
            f"{float(part.error[index]):.2f} at {horizons[index]} (unchanged states: "
            f"{float(part.error_identity[index]):.2f})"
            for index in shown
        ]
        lines.append(
            f"{kind}: the relative error of one linear map for all blocks is {', '.join(errors)} blocks ahead; {held}"
        )
    return lines


def _leading(kinds: Sequence[str]) -> list[str]:
    """Return cls and patch as far as they are there, else every kind."""
    return [kind for kind in LEADING_TYPES if kind in kinds] or list(kinds)


def _perturb(result: xr.Dataset) -> list[str]:
    depth, angle = result.attrs["pushed_depth"], result.attrs["pushed_angle"]
    kinds = ", ".join(
        dict.fromkeys(kind for kind, pushed in zip(token_types(result), result.pushed, strict=True) if pushed)
    )
    last, carried = (result[name].isel(depth=-1) for name in ("gain", "carried_gain"))
    nearer, many = float((last.mean("draw") < carried.mean("draw")).mean()), _counted(result.sizes["sample"])
    return [
        f"a push of the direction of {kinds} by {angle:g} rad at depth {depth}, in {many}, is {_shown(last)} times as "
        f"wide at the last depth; {_shown(carried)} if no later block answered to it, and {nearer:.0%} of the samples "
        "come nearer than that"
    ]


def _basin_stability(result: xr.Dataset) -> list[str]:
    known = result.where(result.n_samples > 0, drop=True)
    least = known.isel(basin=int(known.basin_stability.values.argmin()))
    return [
        f"{_shown(result.stable_share)} of the pushed paths end in the basin of the path that was not pushed; "
        f"{_shown(result.carried_share)} if no later block answered to the push; the least stable basin keeps "
        f"{float(least.basin_stability):.2f} [{float(least.low):.2f}, {float(least.high):.2f}]"
    ]


def _jacobian(result: xr.Dataset) -> list[str]:
    stop, top = result["stop"].values, result.singular_value.isel(mode=0)
    steps = sorted({0, len(stop) // 2, len(stop) - 1})
    return [
        f"the most that a block stretches a small change of direction, in {_counted(result.sizes['sample'])}, is "
        + ", ".join(f"{_shown(top.isel(span=step))} at block {stop[step]}" for step in steps)
        + "; the root mean square over directions "
        + ", ".join(f"{_shown(result.rms_gain.isel(span=step))} at block {stop[step]}" for step in steps),
        f"every small change of direction shrinks in {float((top < 1).mean()):.0%} of all blocks and samples",
    ]


def _swap_blocks(result: xr.Dataset) -> list[str]:
    off = ~np.eye(result.sizes["block"], dtype=bool)
    effect, many = float(result.effect.values[off].mean()), _counted(result.attrs["samples"])
    lines = [f"one block in another's place, in {many}, turns the final state by {effect:.2f} rad"]
    if "difference" in result and np.isfinite(result.difference):
        lines[0] += (
            f", by {float(result.within_effect):.2f} within and {float(result.between_effect):.2f} between phases: "
            f"difference {_with_interval(result, 'difference')}; among pairs equally far apart in depth "
            f"{_with_interval(result, 'matched_difference')}"
        )
    if "accuracy" in result:
        lines.append(
            f"accuracy {float(result.accuracy_unswapped):.1%} as it is, "
            f"{float(result.accuracy.values[off].mean()):.1%} on average over swaps, "
            f"{float(result.accuracy.values[off].min()):.1%} after the worst"
        )
    return lines


def _counted(samples: int) -> str:
    return f"{samples} sample{'s' * (samples != 1)}"


def _with_interval(result: xr.Dataset, name: str) -> str:
    low, high = (float(result[f"{name}_{end}"]) for end in ("low", "high"))
    return f"{float(result[name]):z.3f} [{low:z.3f}, {high:z.3f}]"


QUESTIONS: Mapping[str, tuple[str, Callable[[xr.Dataset], list[str]]]] = {
    "convergence": ("Do directions converge?", _convergence),
    "coherence": ("Do tokens move together?", _coherence),
    "update_spectra": ("Along how many directions do updates move?", _update_spectra),
    "phases": ("Is depth made of a few phases?", _phases),
    "basins": ("Into which basins do the final directions fall?", _basins),
    "dmd": ("Is depth one linear map, applied again and again?", _dmd),
    "perturb": ("Do pushed paths come back?", _perturb),
    "basin_stability": ("Do pushed paths end in their basin?", _basin_stability),
    "jacobian": ("Do blocks shrink small changes of direction?", _jacobian),
    "swap_blocks": ("Can one block stand in for another?", _swap_blocks),
}
"""Each measure's question, and how its result is put into sentences."""
