"""Put what was measured onto one page."""

from __future__ import annotations

import base64
import math
import zlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from depthflow.reporting import tables
from depthflow.reporting.readings import READINGS
from depthflow.reporting.settings import settings
from depthflow.reporting.sphere import sample_names, sphere
from depthflow.reporting.still import panels, uri
from depthflow.schema import labels
from depthflow.summary import INTERVALS, QUESTIONS, answers

if TYPE_CHECKING:
    import xarray as xr
    from jinja2 import Environment

    from depthflow.reporting.measured import Measured
    from depthflow.reporting.sources import Sources

CSV = "text/csv;charset=utf-8"
MOST_BYTES = 1_500_000
"""Of a file with a row a sample; it is named, with a larger one, but not in the page."""


def render(sources: Sources, found: Measured, *, images: Any, title: str | None, seed: int) -> str:
    """Return the page."""
    analysis, traj = found.analysis, sources.case.traj
    said = answers(analysis)
    view = sphere(sources, analysis, images)
    page = _environment().get_template("page.html")
    text: str = page.render(
        title=title or _title(traj),
        account=_account(traj),
        null_name=analysis.null_name,
        answers=said,
        intervals=INTERVALS,
        sections=[_section(found, name, traj) for name in (answer.measure for answer in said)],
        left_out=_left_out(found),
        view=view,
        settings=settings(
            sources.case, sources.null, null_name=analysis.null_name, seed=seed, measures=[one.measure for one in said]
        ),
        plotly=_plotly() if view.data is not None else "",
    )
    return text


def _section(found: Measured, name: str, traj: xr.DataArray) -> dict[str, Any]:
    analysis = found.analysis
    files = [_file(f"{name}.csv", "all numbers", tables.csv_of(analysis, name))]
    if name == "basins":
        text = tables.csv_of_samples(analysis.results[name], sample_names(traj))
        files.append(_file("samples.csv", "each sample's basin", text, MOST_BYTES))
    return {
        "name": name,
        "question": QUESTIONS[name][0],
        "reading": READINGS[name],
        "panels": panels(analysis, name),
        "files": files,
    }


def _file(name: str, says: str, text: str, most: float = math.inf) -> dict[str, Any]:
    """Return a file to download, or what is said in its place where it has more than ``most`` bytes."""
    data = text.encode()
    size = f"{max(1, round(len(data) / 1000)):,} kB"
    if len(data) > most:
        return {
            "name": name,
            "says": f"{says}, {size}: too much for this page, see depthflow analyze",
        }
    return {"name": name, "says": f"{says}, {size}", "href": uri(data, CSV)}


def _left_out(found: Measured) -> list[tuple[str, str]]:
    """Return the questions without an answer and their reasons, those of the same reason together."""
    reasons: dict[str, list[str]] = {}
    for name, reason in found.left_out.items():
        reasons.setdefault(reason, []).append(QUESTIONS[name][0])
    return [(" ".join(questions), reason) for reason, questions in reasons.items()]


def _title(traj: xr.DataArray) -> str:
    model = traj.attrs.get("model")
    return f"{model}: depth as time" if model else "Depth as time"


def _account(traj: xr.DataArray) -> str:
    depths = labels(traj, "depth")
    sizes = ", ".join(
        f"{traj.sizes[dim]:,} {dim}{'s' if traj.sizes[dim] != 1 else ''}"
        for dim in ("sample", "token", "feature")
        if dim in traj.dims
    )
    return f"{sizes}; depths {depths[0]} to {depths[-1]}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("depthflow.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["inline"] = _inline
    # Names keep their letters, which would each be six as escapes.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "ensure_ascii": False}
    return environment


def _inline(name: str) -> Any:
    """Return a style sheet or a script of ours as it is."""
    from markupsafe import Markup

    return Markup((resources.files("depthflow.reporting") / "templates" / name).read_text(encoding="utf-8"))


@cache
def _plotly() -> str:
    """Return plotly.js as it comes with plotly, compressed, in base64: a third of its size."""
    script = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(zlib.compress(script, 9)).decode()
