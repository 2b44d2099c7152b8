"""
How do I get all of it on one page?
===================================

The other tutorials ask one question each. :func:`depthflow.report` asks all of them, of a model or of recorded
states, and writes one file to read, to send and to keep: the answers first, each beside its null, then the pictures
and numbers, and the settings last.
"""

# %%
# A model, some images and a place to write are enough; labels add what can be said about classes. The untrained twin
# is built and measured along.

import html
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import depthflow

data = depthflow.datasets.digits("test")
images, labels = data.images[:120], data.labels[:120]
model = depthflow.datasets.digits_vit()

# %%

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "report.html"
depthflow.report(model, images, labels=labels, path=path, progress=False)
page = path.read_text(encoding="utf-8")
print(f"one file, {path.stat().st_size / 1e6:.0f} MB, that loads nothing from elsewhere")

# %%
# Here it is, as it opens in any browser. Further down, drag the sphere, move the slider through the depths, and point
# at a sample.


class Frame:
    """Shows a whole page inside another one."""

    def _repr_html_(self):
        inside = html.escape(page).replace("\n", "&#10;").replace("\t", "&#9;")
        style = "width: 100%; height: 44rem; border: 1px solid #8888"
        return f'<iframe title="The report" style="{style}" srcdoc="{inside}"></iframe>'


Frame()

# %%
# How to read it
# --------------
# Go down the answers, and compare what was found with the twin's, which stands beside it or, where the page is narrow,
# under it. Where both say the same, it is a property of the architecture, however small its p-value or narrow its
# interval. Square brackets are 95 % intervals over the samples: they speak of other images, not of another model
# trained anew.
#
# What stands out in the trained model alone is worth a closer look, in code. One answer was on no other page of these
# tutorials: is depth one *linear* map, applied again and again? :func:`depthflow.dmd` fits that map to the states,
# here on half of the images, and predicts the others.

twin = depthflow.datasets.digits_vit(trained=False)
results = []
for one in (model, twin):
    traj = depthflow.record(one, data.images, progress=False)
    results.append(depthflow.dmd(traj[::2], tokens="cls", ridge=1e-6, test=traj[1::2]))

# %%

fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
names = {"label": "trained", "null_label": "untrained twin"}
depthflow.plot.dmd(results[0], null=results[1], ax=ax, **names)
plt.show()

# %%
# One linear map predicts the *untrained* model well and this trained one several times worse: what it does differently
# to different images is not one linear map repeated.

for name, one in (("trained", results[0]), ("untrained twin", results[1])):
    errors = one.error.isel(token_type=0)
    ahead = ", ".join(f"{float(errors.sel(horizon=h)):.2f} for {h}" for h in (1, 6))
    print(f"{name}: relative error {ahead} blocks ahead")

# %%
# Other ways to the same page
# ---------------------------
# From states alone, in memory or in a store, the report has every answer that needs no model, with random directions
# as its null; ``measures=`` takes a few of them.

traj = depthflow.record(model, images, labels=labels, progress=False)
chosen = ["convergence", "basins"]
small = Path(folder.name) / "small.html"
print(depthflow.report(traj, path=small, measures=chosen, progress=False).name)
folder.cleanup()

# %%
# What to take away
# -----------------
# - One call and one file, which needs no network and no Python to be read.
# - Read across: what the twin shows as well is no finding about training.
# - Every answer is one function; its page says how it fails.
#
# More: :doc:`/report`, :doc:`/measures/dmd`, :doc:`/command-line`.
