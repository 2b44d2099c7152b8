"""The demo writes what it says, and its summary states the numbers of its results."""

from __future__ import annotations

import xarray as xr

from depthflow.demo import demo
from depthflow.schema import VARIABLES, VARIABLES_OF

PICTURES = {"convergence", "coherence", "update_spectra", "phases", "basins", "dmd"}
PICTURES |= {"perturb", "basin_stability", "jacobian", "swap_blocks"}


def test_demo(tmp_path):
    text = " ".join(demo(tmp_path / "out", progress=False).split())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {f"{measure}.png" for measure in PICTURES | {"surrogate"}}
    assert names == {"report.html", "results.zarr", "scores.zarr", "summary.txt"} | pictures
    tree = xr.open_datatree(tmp_path / "out" / "results.zarr", engine="zarr", consolidated=False)
    assert set(tree["results"].children) == set(tree["null"].children) == PICTURES
    for group in ("results", "null"):
        for measure, result in tree[group].children.items():
            meanings = {**VARIABLES, **VARIABLES_OF.get(measure, {})}
            for name, variable in result.data_vars.items():
                assert variable.attrs["units"] == meanings[name].units, (measure, name)
    basins, phases = tree["results/basins"], tree["results/phases"]
    assert f"{float(basins.ari[-1]):.2f} [" in text
    assert f"{float(basins.nmi[6]):.2f}, {float(basins.nmi[-1]):.2f}" in text
    assert f"{phases.sizes['phase']} phases" in text
    assert f"{float(tree['results/swap_blocks'].matched_difference):.3f} [" in text
    assert (
        f"{float((tree['results/jacobian'].singular_value[..., 0] < 1).mean()):.0%} of all blocks and samples" in text
    )
    assert f"{float(tree['results/dmd'].error.sel(token_type='cls')[0]):.2f} at 1 " in text
    assert "99.2% of them rightly" in text
    scores = xr.open_zarr(tmp_path / "out" / "scores.zarr", consolidated=False)
    assert f"ε = {float(scores.epsilon):.2f}" in text
    assert f"{float(scores.surrogate_accuracy):.1%} of the images are classified rightly" in text
    assert text.count("· untrained twin:") >= len(PICTURES)
