"""Run every benchmark: ``python -m benchmarks [--smoke] [area …]``.

The full run writes ``benchmarks/results/<machine>.json`` and the table in ``docs/benchmarks.md``; the smoke run uses
tiny sizes, checks the answers, and writes nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from benchmarks._harness import Row

AREAS = (
    "convergence",
    "spectra",
    "phases",
    "basins",
    "similarity",
    "dmd",
    "jacobian",
    "recording",
    "streaming",
    "surrogate",
    "importing",
    "out_of_core",
    "demo",
)
HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PACKAGES = ("numpy", "scipy", "numba", "xarray", "scikit-learn", "torch", "timm")


def processor() -> str:
    """Return the processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def shown(row: Row) -> str:
    """Return the row as a line of the Markdown table."""
    bound = "–" if row.target is None else f"{'≥' if row.higher_is_better else '≤'} {row.target:g}"
    verdict = {True: "yes", False: "**no**", None: "context"}[row.reached]
    return f"| {row.name} | {row.size} | {row.against} | {row.ratio:.3g} | {bound} | {verdict} | {row.agreement} |"


def main() -> None:
    """Run the areas asked for, print the table, and keep it unless this is the smoke run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("areas", nargs="*", default=AREAS, help=f"among {AREAS}; all by default")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: answers are checked, times mean nothing")
    arguments = parser.parse_args()
    for area in arguments.areas:
        rows = []
        for row in importlib.import_module(f"benchmarks.{area}").rows(arguments.smoke):
            print(shown(row), flush=True)
            rows.append(row)
        if not arguments.smoke:
            keep({area: rows})


def keep(rows: dict[str, list[Row]]) -> None:
    """Merge the new rows into this machine's results and write the documentation's table anew."""
    machine = f"{processor()}, {os.cpu_count()} cores"
    path = HERE / "results" / f"{machine.lower().replace(', ', '-').replace(' ', '-')}.json"
    path.parent.mkdir(exist_ok=True)
    known = json.loads(path.read_text())["areas"] if path.exists() else {}
    known |= {area: [asdict(row) for row in measured] for area, measured in rows.items()}
    versions = {package: version(package) for package in PACKAGES}
    record = {"machine": machine, "python": platform.python_version(), "versions": versions, "areas": known}
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    stated = ", ".join(f"{package} {number}" for package, number in versions.items())
    lines = [
        "# Benchmarks",
        "",
        "Each number is a ratio of medians of interleaved repeats in one run, and both sides gave the same answer, to",
        "within what the last column says. Written by `make bench`; sizes and ratios to reach were fixed before.",
        "A row with “≥” is the other's time over ours, or the share of the machine's limit; one with “≤” is our time",
        "over the other's. Rows without a ratio to reach are context.",
        "",
        f"Machine: {machine}. Python {platform.python_version()}, {stated}.",
        "",
        "| what | size | against | ratio | to reach | reached | answers |",
        "|---|---|---|---|---|---|---|",
        *[shown(Row(**row)) for area in AREAS if area in known for row in known[area]],
        "",
    ]
    PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
