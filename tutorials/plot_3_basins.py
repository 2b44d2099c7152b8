"""
Where do paths end, and when is an image committed?
===================================================

All images start from the same class token. Twelve blocks later the model answers with ten different digits, so
somewhere on the way the paths must part. This tutorial finds the directions in which they end, without the labels,
and asks from which depth on an image is bound for its own.
"""

# %%
# All paths of 360 images, in the trained model and in its untrained twin.

import matplotlib.pyplot as plt
import numpy as np
import torch

import depthflow

data = depthflow.datasets.digits("test")
model = depthflow.datasets.digits_vit()
twin = depthflow.datasets.digits_vit(trained=False)
traj = depthflow.record(model, data.images, labels=data.labels, progress=False)
null = depthflow.record(twin, data.images, labels=data.labels, progress=False)

# %%
# The sphere, depth by depth
# --------------------------
# A direction is a point on a sphere. :func:`depthflow.basins` clusters the class token's directions at one depth;
# :func:`depthflow.plot.basins` shows them on the sphere of their three principal directions, in a projection that
# keeps areas. Circles are angles from the middle. Colours and markers are the true digits, which the clustering never
# saw.

fig, axes = plt.subplots(2, 2, figsize=(8, 9), layout="compressed")
shown = [(traj, 1), (traj, 3), (traj, 12), (null, 12)]
for ax, (states, depth) in zip(axes.flat, shown, strict=True):
    depthflow.plot.basins(depthflow.basins(states, 10, depth=depth), color="label", ax=ax)
    ax.get_legend().remove()
    name = "trained" if states is traj else "untrained twin"
    ax.set_title(f"{name}, depth {depth}")
digits = ax.get_legend_handles_labels()
fig.legend(*digits, loc="outside lower center", ncols=10, frameon=False, markerscale=2)
plt.show()

# %%
# After one block the digits are mixed. Two blocks on they begin to part, and at the end each digit is a tight bundle
# around a center (star). Mind the text below each picture: three dimensions hold only a part of the squared length,
# so that bundles which seem to touch may lie far apart in the others, and hollow marks lie mostly out of view. In the
# twin no digit has a place of its own, and look at the scale: its whole cloud is a fraction of a radian wide.

# %%
# Do the clusters know the digits?
# --------------------------------
# Cluster the *final* directions, and give every image at every depth the nearest of the ten centers. The adjusted
# Rand index (ARI) compares this with the digits: 1 is the same partition, 0 what chance gives.

basins, null_basins = depthflow.basins(traj, 10), depthflow.basins(null, 10)
fig, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
depthflow.plot.agreement(basins, null=null_basins, null_label="twin", ax=ax)
plt.show()

# %%
# The twin's final directions can be clustered as well, since everything can. Its clusters do not know the digits, and
# the silhouette shows that they have no gaps between them.

for name, one in (("trained", basins), ("untrained twin", null_basins)):
    within, between = float(one.within_angle[-1]), float(one.between_angle[-1])
    gaps = float(one.silhouette.mean())
    print(f"{name}: ari {float(one.ari[-1]):.2f}, silhouette {gaps:.2f}")
    print(f"  angle within a digit {within:.2f} rad, between digits {between:.2f} rad")

# %%
# When is an image committed?
# ---------------------------
# The bars above are the ``commitment_depth``: the first depth from which the nearest center never changes again. Most
# images are bound early. (A few count from depth 0: all start from one point, which must be nearest to *some*
# center.) The interesting ones are late. Here are eight that were bound in the first block, above the eight that
# hesitate longest; an arrow shows what the model reads.

with torch.no_grad():
    answers = model(torch.as_tensor(data.images)).argmax(dim=1).numpy()
depth = basins.commitment_depth.values.astype(int)
early, late = np.flatnonzero(depth == 1)[:8], np.argsort(depth, kind="stable")[-8:]

# %%

fig, axes = plt.subplots(2, 8, figsize=(8, 2.9), layout="constrained")
for ax, image in zip(axes.flat, [*early, *late], strict=True):
    ax.imshow(data.images[image, 0], cmap="gray_r")
    read = f"{data.labels[image]} → {answers[image]}"
    ax.set_title(f"{read}\ndepth {depth[image]}", fontsize="medium")
    ax.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("early")
axes[1, 0].set_ylabel("late")
plt.show()

# %%
# Is hesitation a sign of error? Most of the late ones are read correctly all the same, and there are too few mistakes
# here to say more.

for name, chosen in (("by depth 4", depth <= 4), ("later", depth > 4)):
    wrong = int((answers != data.labels)[chosen].sum())
    print(f"committed {name}: {int(chosen.sum())} images, {wrong} of them misread")

# %%
# Follow the one that commits last. Its ``margin``, the angle to the second-nearest center minus that to the nearest,
# is drawn over those of all images of the same digit. A margin that falls towards 0 and rises again is a change of
# mind.

last = late[-1]
same = basins.margin.values[data.labels == data.labels[last]]
fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.plot(basins.depth, same.T, color="0.8", linewidth=0.8)
ax.plot(basins.depth, basins.margin[last], "o-", color="#c75904", label="commits last")
ax.set(xlabel="depth", ylabel="margin [rad]", xticks=basins.depth)
ax.legend(frameon=False)
plt.show()

# %%
# How many basins?
# ----------------
# We asked for ten because there are ten digits. Without a number the von Mises–Fisher mixture's BIC chooses, and here
# it goes up to the limit: a concentrated density finds an image at the edge of its bundle so unlikely that it buys
# one more component.

free = depthflow.basins(traj, max_basins=15)
print(f"chosen by BIC among 1 to 15: {free.sizes['basin']}")
print(f"the smallest holds {float(free.occupancy.min()):.1%} of the images")
print(f"ari {float(free.ari[-1]):.2f}; with ten it was {float(basins.ari[-1]):.2f}")

# %%
# What may not be called an attractor yet
# ---------------------------------------
# These are clusters of endpoints. A *basin of attraction* is a set of states from which paths return, and nothing
# here has been pushed. Twelve blocks also allow no statement on limits. The test, pushing paths and counting how many
# still end in the same basin, is :func:`depthflow.basin_stability`, and it has a null of its own: see
# :doc:`plot_6_perturb`.

# %%
# What to take away
# -----------------
# - The trained model sorts its class tokens into bundles by digit, found without labels; the twin's clusters are not
#   digits.
# - ``commitment_depth`` and ``margin`` say when an image is bound, and which images are not.
# - The number of basins is a choice; look at occupancy and silhouette. Attraction has still to be tested.
#
# More: :doc:`/measures/basins`, :doc:`/measures/perturb`.
