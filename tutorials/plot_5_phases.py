"""
Is depth made of a few phases?
==============================

In large vision transformers, blocks of neighbouring depths are reported to do similar work, and depth to fall into a
few contiguous phases (arXiv:2512.19941). This tutorial finds phases in the digits model, gets a p-value of a few in a
thousand for them, and then shows why that proves nothing. It is the story of a null that was too easy, and of what to
ask in its place.
"""

# %%
# The model, and four untrained twins.

import matplotlib.pyplot as plt
import numpy as np

import depthflow

data = depthflow.datasets.digits("test")
model = depthflow.datasets.digits_vit()
twins = [depthflow.datasets.digits_vit(trained=False, seed=seed) for seed in range(4)]
traj = depthflow.record(model, data.images, progress=False)
nulls = [depthflow.record(twin, data.images, progress=False) for twin in twins]

# %%
# Cut the similarity of blocks
# ----------------------------
# The similarity of two depths is the mean cosine of a token's states there. :func:`depthflow.phases` cuts depth into
# contiguous phases so that the dissimilarity between them is as large as it can be, exactly, and resamples the images
# to see how firm each boundary is. With ``n_null`` it also cuts matrices of shuffled depths.

found = depthflow.phases(traj, n_boot=100, n_null=999)
fig, ax = plt.subplots(figsize=(5.4, 4.8), layout="constrained")
depthflow.plot.similarity(found, ax=ax)
plt.show()

# %%
# There they are: squares along the diagonal, boundaries that hardly a resample moves, and a small p-value. One could
# write this up.

contrast, low, high = (float(found[f"contrast{end}"]) for end in ("", "_low", "_high"))
print(f"phases end at blocks {found.boundary.values.tolist()}")
print(f"contrast {contrast:.2f} [{low:.2f}, {high:.2f}], p = {float(found.p_value):.3f}")

# %%
# Ask the twins
# -------------
# The twins have learned nothing, so phases that come from training cannot be in them.

null_found = [depthflow.phases(null, n_boot=100, n_null=999) for null in nulls]
for number, one in enumerate(null_found):
    ends = one.boundary.values.tolist()
    contrast, p = float(one.contrast), float(one.p_value)
    print(f"twin {number}: phases end at {ends}, contrast {contrast:.2f}, p = {p:.3f}")

# %%
# Yet they are, at much the same blocks and with p-values just as small. Side by side, in the same colours:

fig, axes = plt.subplots(1, 2, figsize=(8, 3.9), layout="constrained")
pairs = zip(axes, (found, null_found[0]), ("trained", "untrained twin"), strict=True)
for ax, one, name in pairs:
    depthflow.plot.similarity(one, ax=ax)
    ax.images[0].set_clim(0, 1)
    ax.set_title(f"{name}\n{ax.get_title()}", fontsize="medium")
plt.show()

# %%
# The shuffled null asks whether depth is *ordered*, and any path made of small steps is: neighbours resemble one
# another more than strangers. Cutting such a band into blocks must give a contrast. The picture below has all three:
# shuffled depths in grey, the twins, and the trained model.

fig, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
ax.hist(found.null_contrast, bins=40, color="0.8", label="shuffled depths")
for number, one in enumerate(null_found):
    name = "untrained twins" if number == 0 else None
    ax.axvline(float(one.contrast), color="0.4", linestyle="--", label=name)
ax.axvline(float(found.contrast), color="#013c61", linewidth=2, label="trained")
ax.set(xlabel="contrast, within minus between phases", ylabel="shuffles")
ax.legend(frameon=False)
plt.show()

# %%
# Is a smooth path enough?
# ------------------------
# A path without any phases settles it: let a state turn by the same 0.1 rad in every block, and cut that.

turned = 0.1 * np.arange(13)
smooth = np.stack([np.cos(turned), np.sin(turned)], axis=-1)
path = depthflow.trajectory(smooth, dims=("depth", "feature"))
one = depthflow.phases(path, n_null=999)
ends, p = one.boundary.values.tolist(), float(one.p_value)
print(f"uniform turn: phases end at {ends}, p = {p:.3f}")

# %%
# What to ask instead: swap blocks
# --------------------------------
# If a phase is a unit of work, its blocks should be interchangeable. :func:`depthflow.swap_blocks` puts every block
# in every other's place and measures by how much the final states turn. Blocks of one phase also lie nearer to each
# other, so the fair comparison is between pairs at equal distance: ``matched_difference``.

images = data.images[:40]
options = {"batch_size": 40, "progress": False}
swapped = depthflow.swap_blocks(model, images, phases=found, **options)
null_swapped = depthflow.swap_blocks(twins[0], images, phases=null_found[0], **options)

# %%

fig, axes = plt.subplots(1, 2, figsize=(8, 3.9), layout="constrained")
both = {"trained": swapped, "untrained twin": null_swapped}
for ax, (name, one) in zip(axes, both.items(), strict=True):
    depthflow.plot.swap_blocks(one, ax=ax)
    ax.set_title(f"{name}\n{ax.get_title()}", fontsize="small")
plt.show()

# %%
# What counts in the trained model is *which* block is replaced, more than what is put in its place: the first rows
# stand out, whatever the column. Between phases a swap does a little more harm than within, also at equal distance.
# But so it does in the twin, and there by more at equal distance: the difference is no mark of training.

for name, one in both.items():
    matched = float(one.matched_difference)
    low, high = float(one.matched_difference_low), float(one.matched_difference_high)
    rows = one.effect.mean("block_other").values
    print(f"{name}: {float(one.difference):.3f} rad more between phases than within;")
    print(f"  at equal distance {matched:.3f} [{low:.3f}, {high:.3f}] rad;")
    print(f"  replacing block 1 {rows[0]:.2f} rad, one of the last {rows[-5:].mean():.2f}")

# %%
# What to take away
# -----------------
# - A small p against shuffled depths says that depth is ordered. That is no evidence of phases: smooth paths and
#   untrained twins give it as well.
# - On this model phases are *not shown*. On a larger one, look at the contrast beyond the range of several twins, and
#   at swaps at equal distance.
# - A null must be able to fail in the way that the claim could.
#
# More: :doc:`/measures/phases`, :doc:`/measures/similarity`, :doc:`/measures/swap_blocks`.
