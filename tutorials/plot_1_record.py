"""
What is a trajectory?
=====================

A transformer adds to its states block after block. Take depth as time and the state of each token as a point, and one
forward pass is a path through the residual stream. This tutorial records such paths, and shows what a recording
holds: which token is which, where the registers are, which image is of which class, and at which point of the model a
state was taken.
"""

# %%
# The model is a vision transformer trained on the 1,437 training images of scikit-learn's handwritten digits
# (doi:10.24432/C50P49). Its *untrained twin* is the same architecture with random weights. It stands beside the model
# in every tutorial, since much of what looks like learned dynamics is what any stack of residual blocks does.

import matplotlib.pyplot as plt
import numpy as np
import timm
import torch
import xarray as xr

import depthflow

model = depthflow.datasets.digits_vit()
twin = depthflow.datasets.digits_vit(trained=False)
data = depthflow.datasets.digits("test")
print("images", data.images.shape, "of the digits", data.labels[:10], "…")

# %%
# Look before recording
# ---------------------
# :func:`depthflow.inspect` says what would be recorded, without keeping a state: the blocks, the depths, and the kind
# of every token. Depth 0 is the input of the first block and depth ℓ the output of block ℓ, so that L blocks give L +
# 1 depths.

print(depthflow.inspect(model, data.images[:2]))

# %%
# Kinds of tokens are derived from the model and checked in a forward pass. Many vision models carry *registers*,
# extra tokens that belong to no patch; averaged in with the patches they would distort results, so they have a
# type of their own. Here is a small DINOv2 with four of them and random weights (timm is needed for this cell and the
# next):

registers = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, depth=3)
print(depthflow.inspect(registers, torch.zeros(1, 3, 56, 56)))

# %%
# Not every model has one space in which a path could run. A hierarchical one changes the shape of its states with
# depth, and is refused, with the reason and what to do instead.

print(depthflow.inspect(timm.create_model("swin_tiny_patch4_window7_224")))

# %%
# Record
# ------
# One call runs the model on all 360 test images and keeps the states of every token at every depth. The result is an
# xarray ``DataArray``: unfold its attributes below. Labels come along for later; no measure learns from them. A
# progress bar is shown unless you say otherwise.

traj = depthflow.record(model, data.images, labels=data.labels, progress=False)
null = depthflow.record(twin, data.images, labels=data.labels, progress=False)
_ = xr.set_options(display_expand_data=False)
traj

# %%
# Dimensions have names, so a selection says what it means, and the coordinates follow it. The patches know their
# place on the image by ``row`` and ``col``; tokens off the grid are at −1.

threes = traj.sel(sample=traj.label == 3)
patches = depthflow.select_tokens(threes, "patch")
print(dict(patches.sizes))
print("rows", np.unique(patches.row), "columns", np.unique(patches.col))

# %%
# Where exactly were the states taken?
# ------------------------------------
# In the residual stream, **before** the final norm, in every family of models: a norm moves directions, and a path
# whose last point alone is normed has a kink at its end. The proof is that the model's own norm and head, applied to
# the last state of the class token, give the model's own answers.

with torch.no_grad():
    answers = model(torch.as_tensor(data.images))
    last = torch.as_tensor(traj.sel(depth=12, token=0).values)
    again = model.head(model.norm(last))
right = answers.argmax(dim=1).numpy() == data.labels
print(f"largest difference of a logit: {float((answers - again).abs().max()):.1e}")
print(f"classified correctly: {right.mean():.1%}")

# %%
# A first picture
# ---------------
# Take one image and ask of each of its patches: how far is its direction from the one that it will end in? The angles
# are those of :func:`depthflow.convergence`, the subject of the next tutorial; ``row`` and ``col`` put them back on
# the image. Dark is near. Above is the trained model, below its twin.

image = int(np.flatnonzero(data.labels == 3)[0])
depths = [0, 2, 4, 6, 8, 10, 12]


def grid(traj):
    """Return the angles of the image's patches to their ends, (depth, row, col)."""
    angle = depthflow.convergence(traj[[image]], tokens="patch").angle[0]
    return angle.set_index(token=["row", "col"]).unstack("token")


# %%

fig, axes = plt.subplots(2, 8, figsize=(8, 2.5), layout="constrained")
for row, states, name in zip(axes, (traj, null), ("trained", "twin"), strict=True):
    row[0].imshow(data.images[image, 0], cmap="gray_r")
    row[0].set_title(name)
    for ax, depth in zip(row[1:], depths, strict=True):
        angles = ax.imshow(grid(states).sel(depth=depth), vmin=0, vmax=np.pi / 2)
        ax.set_title(f"depth {depth}")
plt.setp(axes, xticks=[], yticks=[])
fig.colorbar(angles, ax=axes, label="angle to the\nfinal direction [rad]")
plt.show()

# %%
# In both rows angles shrink with depth: by itself, arriving at one's own end shows nothing. What differs is *how*.
# The patches of the trained model begin further from where they end, as block after block turns strokes into a digit;
# those of the twin start nearer and drift there together. The numbers, over all images:

for name, states in (("trained", traj), ("untrained twin", null)):
    start = depthflow.convergence(states, tokens="patch").angle.sel(depth=0)
    spread = float(start.std("token").mean())
    print(f"{name}: {float(start.mean()):.2f} rad at depth 0, spread {spread:.2f} rad")

# %%
# States from elsewhere
# ---------------------
# Whoever has states already needs no model. An array is a trajectory once its dimensions have names, and all measures
# take it; a wrong shape or a NaN is an error that says where and what to do.

states = np.random.default_rng(0).normal(size=(3, 13, 17, 64))
states[1, 5, 2, 0] = np.nan
try:
    depthflow.trajectory(states, dims=("sample", "depth", "token", "feature"))
except depthflow.errors.TrajectoryError as error:
    print(error)

# %%
# What to take away
# -----------------
# - A trajectory is a labelled array (sample, depth, token, feature) of states before the final norm.
# - Registers are never counted as patches, and a model without one common space is refused.
# - An untrained twin, recorded on the same images, is the null of everything that follows.
#
# More: :doc:`/recording` (what is guaranteed, large recordings on disk), :doc:`/data-model`,
# :doc:`/supported-models`.
