"""The demo writes what it says, and its summary states the numbers of its results."""

from __future__ import annotations

import xarray as xr

from depthflow.demo import demo
from depthflow.schema import VARIABLES

MEASURES = {"convergence", "coherence", "update_spectra", "phases", "basins"}


def test_demo(tmp_path):
    text = " ".join(demo(tmp_path / "out", progress=False).split())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"results.zarr", "summary.txt"} | {f"{measure}.png" for measure in MEASURES}
    tree = xr.open_datatree(tmp_path / "out" / "results.zarr", engine="zarr", consolidated=False)
    assert set(tree["results"].children) == set(tree["null"].children) == MEASURES
    for group in ("results", "null"):
        for result in tree[group].children.values():
            for name, variable in result.data_vars.items():
                assert variable.attrs["units"] == VARIABLES[name].units, name
    basins, phases = tree["results/basins"], tree["results/phases"]
    assert f"{float(basins.ari[-1]):.2f} [" in text
    assert f"{float(basins.nmi[6]):.2f}, {float(basins.nmi[-1]):.2f}" in text
    assert f"{phases.sizes['phase']} phases" in text
    assert text.count("· untrained twin:") >= len(MEASURES)
