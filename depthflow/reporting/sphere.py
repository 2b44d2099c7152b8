"""The interactive view: directions of every sample at every depth, groups to colour by, and pictures of the inputs."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from depthflow.errors import DepthflowError
from depthflow.plot._style import GROUP_COLORS
from depthflow.reporting import directions, still, thumbnails
from depthflow.schema import labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from depthflow.analysis import Analysis
    from depthflow.reporting.directions import View
    from depthflow.reporting.sources import Sources

MOST_GROUPS = 20
"""Groups that are told apart; the smaller ones of more are one grey group."""
OTHERS = "all others"
PLURAL = {"basin": "basins", "class": "classes"}
GREY = "#8a8a8a"
DARK = {"#0072b2": "#5aaef0", "#914370": "#d88abb", "#c75904": "#f08a3c", "#181818": "#f0f0f0"}
"""What stands for a colour where the page is dark."""


LETTERS = 600_000
"""Of all names of samples; of many long ones the middle is left out."""


class Sphere(NamedTuple):
    """What the page's script draws, a still picture of the same and what that shows, and remarks; or only remarks."""

    data: dict[str, Any] | None
    still: str
    shows: str
    remarks: list[str]


def sphere(sources: Sources, analysis: Analysis, images: Any) -> Sphere:
    """Return the view of the trajectory and, where it fits, of its null."""
    traj = sources.case.traj
    kinds = directions.shown_types(traj)
    if not kinds:
        return Sphere(None, "", "", ["All tokens are padding, so there is nothing to show."])
    samples = directions.shown_samples(traj, 2 * len(kinds))
    remarks: list[str] = []
    views = _views(traj, kinds, samples, "", remarks)
    if not views:
        return Sphere(None, "", "", remarks)
    total = traj.sizes["sample"]
    if len(samples) < total:
        remarks.append(
            f"{len(samples):,} of {total:,} samples are shown, evenly spaced, so that the file stays small. "
            "The numbers are of all, but for the share of the squared length."
        )
    cases = [_case("this trajectory", views, _basins(analysis.results, samples, total))]
    others = _of_null(sources.null.traj, traj, [view.kind for view in views], samples, analysis.null_name, remarks)
    if others:
        cases.append(_case(analysis.null_name, others, _basins(analysis.null, samples, total)))
    sheet, why = (None, "") if images is None else thumbnails.sheet(images, samples, total, _preprocessing(traj))
    if images is None:
        remarks.append("Without the inputs there are no small pictures beside the samples.")
    elif sheet is None:
        remarks.append(f"There are no small pictures beside the samples: {why}.")
    classes = _groups(traj["label"].values, samples, "class") if _per_sample(traj, "label") else None
    first = cases[0]["basins"] or classes or _groups(np.zeros(total, dtype=int), samples, "sample")
    names = sample_names(traj)
    data = {
        "depths": directions.depths(traj),
        "positions": samples.tolist(),
        "ids": [_clipped(names[position], len(samples)) for position in samples],
        "classes": classes,
        "cases": cases,
        "sheet": sheet and {**sheet._asdict(), "data": still.uri(sheet.data, sheet.mime)},
        "colors": {"light": [*GROUP_COLORS], "dark": [DARK.get(one, one) for one in GROUP_COLORS], "other": GREY},
    }
    colors = [GROUP_COLORS[index % len(GROUP_COLORS)] for index in range(len(first["names"]))]
    if first["others"]:
        colors[-1] = GREY
    picture = still.sphere(views[0], first["of"], colors, data["depths"])
    shows = f"The same view of this trajectory ({directions.SHOWN_TYPES[views[0].kind]}) at three depths"
    if len(first["names"]) > 1:
        shows += f", in the colours of the {PLURAL[first['noun']]}"
    for groups in filter(None, [classes, *(case["basins"] for case in cases)]):
        groups["of"] = _encoded(groups["of"].astype("<u2"))
    return Sphere(data, picture, shows, remarks)


def sample_names(traj: xr.DataArray) -> list[str]:
    """Return what the samples are called: their ids, else their labels along ``sample``."""
    if _per_sample(traj, "sample_id"):
        return [str(one) for one in traj["sample_id"].values.tolist()]
    return [str(one) for one in labels(traj, "sample").tolist()]


def _of_null(
    null: xr.DataArray,
    traj: xr.DataArray,
    kinds: Sequence[str],
    samples: np.ndarray,
    null_name: str,
    remarks: list[str],
) -> list[View]:
    """Return the null's views of the same kinds and samples, or none and a remark."""
    alike = (
        null.sizes["sample"] == traj.sizes["sample"]
        and directions.depths(null) == directions.depths(traj)
        and set(kinds) <= set(directions.shown_types(null))
        and all(_same(null, traj, name) for name in ("sample_id", "label"))
    )
    if not alike:
        remarks.append("The null has other samples, depths or tokens, and is not shown here.")
        return []
    views = _views(null, kinds, samples, f"Of {null_name}: ", remarks)
    return views if len(views) == len(kinds) else []


def _views(traj: xr.DataArray, kinds: Sequence[str], samples: np.ndarray, whose: str, remarks: list[str]) -> list[View]:
    """Return the views of the kinds that can be shown, and a remark on each other one."""
    views = []
    for kind in kinds:
        try:
            views.append(directions.view(traj, kind, samples))
        except DepthflowError as error:
            remarks.append(f"{whose}the directions cannot be shown ({directions.SHOWN_TYPES[kind]}). {error}")
    return views


def _same(null: xr.DataArray, traj: xr.DataArray, name: str) -> bool:
    """Return False where both say of each sample what it is, and differ."""
    both = [[str(value) for value in one[name].values.tolist()] for one in (null, traj) if _per_sample(one, name)]
    return len(both) < 2 or both[0] == both[1]


def _clipped(name: str, count: int) -> str:
    """Return one of ``count`` names as long as there is room for."""
    half = LETTERS // (2 * count)
    return name if len(name) <= 2 * half else f"{name[:half]}…{name[-half:]}"


def _case(name: str, views: Sequence[View], basins: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": name,
        "basins": basins,
        "views": [
            {
                "kind": directions.SHOWN_TYPES[view.kind],
                "points": _encoded(view.points.astype("<i2")),
                "kept": [round(float(share), 4) for share in view.kept],
            }
            for view in views
        ],
    }


def _basins(found: Any, samples: np.ndarray, total: int) -> dict[str, Any] | None:
    if "basins" not in found or found["basins"].sizes["sample"] != total:
        return None
    return _groups(found["basins"]["basin"].values, samples, "basin")


def _groups(values: np.ndarray, samples: np.ndarray, noun: str) -> dict[str, Any]:
    """Return the groups' names, how many of all samples each holds, and the number of each shown sample's group.

    The largest groups come in order of their names; the smaller ones are one last group.
    """
    names, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    kept = np.arange(len(names))
    if len(names) > MOST_GROUPS:
        kept = np.sort(np.argsort(-counts, kind="stable")[: MOST_GROUPS - 1])
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    listed = [str(names[index]) for index in kept.tolist()]
    sizes = [int(counts[index]) for index in kept]
    others = len(names) > len(kept)
    if others:
        listed, sizes = [*listed, OTHERS], [*sizes, int(counts.sum() - sum(sizes))]
    exact = [_clipped(str(value), len(samples)) for value in values[samples].tolist()] if others else None
    of = place[number[samples]]
    return {"noun": noun, "names": listed, "counts": sizes, "of": of, "others": others, "exact": exact}


def _encoded(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _preprocessing(traj: xr.DataArray) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(traj.attrs.get("preprocessing", "{}"))
    return kept


def _per_sample(traj: xr.DataArray, name: str) -> bool:
    return name in traj.coords and traj[name].dims == ("sample",)
