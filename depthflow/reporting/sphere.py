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
GREY = "#8a8a8a"
DARK = {"#0072b2": "#5aaef0", "#914370": "#d88abb", "#c75904": "#f08a3c", "#181818": "#f0f0f0"}
"""What stands for a colour where the page is dark."""


class Sphere(NamedTuple):
    """What the page's script draws, a still picture of the same, and remarks; or only remarks."""

    data: dict[str, Any] | None
    still: str
    remarks: list[str]


def sphere(sources: Sources, analysis: Analysis, images: Any) -> Sphere:
    """Return the view of the trajectory and, where it fits, of its null."""
    traj = sources.case.traj
    kinds = directions.shown_types(traj)
    if not kinds:
        return Sphere(None, "", ["All tokens are padding, so there is nothing to show."])
    samples = directions.shown_samples(traj, 2 * len(kinds))
    try:
        views = directions.views(traj, kinds, samples)
    except DepthflowError as error:
        return Sphere(None, "", [f"The directions cannot be shown. {error}"])
    remarks = []
    total = traj.sizes["sample"]
    if len(samples) < total:
        remarks.append(
            f"{len(samples):,} of {total:,} samples are shown, evenly spaced, so that the file stays small; the "
            "numbers above are of all."
        )
    cases = [_case("this trajectory", views, _basins(analysis.results, samples, total))]
    others = _of_null(sources.null.traj, traj, kinds, samples, remarks)
    if others:
        cases.append(_case(analysis.null_name, others, _basins(analysis.null, samples, total)))
    sheet, why = (None, "") if images is None else thumbnails.sheet(images, samples, _preprocessing(traj))
    if images is None:
        remarks.append("Without the inputs there are no small pictures beside the samples.")
    elif sheet is None:
        remarks.append(f"There are no small pictures beside the samples: {why}.")
    classes = _groups(traj["label"].values[samples], "class") if _per_sample(traj, "label") else None
    first = cases[0]["basins"] or classes or _groups(np.zeros(len(samples), dtype=int), "sample")
    names = sample_names(traj)
    data = {
        "depths": directions.depths(traj),
        "positions": samples.tolist(),
        "ids": [names[position] for position in samples],
        "classes": classes,
        "cases": cases,
        "sheet": sheet and {**sheet._asdict(), "data": still.uri(sheet.data, sheet.mime)},
        "colors": {"light": [*GROUP_COLORS], "dark": [DARK.get(one, one) for one in GROUP_COLORS], "other": GREY},
    }
    colors = [GROUP_COLORS[index % len(GROUP_COLORS)] for index in range(len(first["names"]))]
    if first["others"]:
        colors[-1] = GREY
    picture = still.sphere(views[0], first["of"], colors, data["depths"])
    for groups in filter(None, [classes, *(case["basins"] for case in cases)]):
        groups["of"] = _encoded(groups["of"].astype("<u2"))
    return Sphere(data, picture, remarks)


def sample_names(traj: xr.DataArray) -> list[str]:
    """Return what the samples are called: their ids, else their labels along ``sample``."""
    if _per_sample(traj, "sample_id"):
        return [str(one) for one in traj["sample_id"].values.tolist()]
    return [str(one) for one in labels(traj, "sample").tolist()]


def _of_null(
    null: xr.DataArray, traj: xr.DataArray, kinds: Sequence[str], samples: np.ndarray, remarks: list[str]
) -> list[View]:
    """Return the null's views of the same kinds and samples, or none and a remark."""
    alike = directions.shown_types(null) == list(kinds) and directions.depths(null) == directions.depths(traj)
    if not alike or null.sizes["sample"] != traj.sizes["sample"]:
        remarks.append("The null has other samples, depths or tokens, and is not shown here.")
        return []
    try:
        return directions.views(null, kinds, samples)
    except DepthflowError as error:
        remarks.append(f"The null's directions cannot be shown. {error}")
        return []


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
    return _groups(found["basins"]["basin"].values[samples], "basin")


def _groups(values: np.ndarray, noun: str) -> dict[str, Any]:
    """Return the names of the groups, how many samples each holds, and the number of each sample's group.

    The largest groups come in order of their names; the smaller ones are one last group.
    """
    names, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(names) <= MOST_GROUPS:
        kept = np.arange(len(names))
    else:
        kept = np.sort(np.argsort(-counts, kind="stable")[: MOST_GROUPS - 1])
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    listed = [str(names[index]) for index in kept.tolist()]
    sizes = [int(counts[index]) for index in kept]
    others = len(names) > len(kept)
    if others:
        listed, sizes = [*listed, OTHERS], [*sizes, int(counts.sum() - sum(sizes))]
    exact = [str(value) for value in values.tolist()] if others else None
    return {"noun": noun, "names": listed, "counts": sizes, "of": place[number], "others": others, "exact": exact}


def _encoded(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _preprocessing(traj: xr.DataArray) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(traj.attrs.get("preprocessing", "{}"))
    return kept


def _per_sample(traj: xr.DataArray, name: str) -> bool:
    return name in traj.coords and traj[name].dims == ("sample",)
