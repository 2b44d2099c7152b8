"""
How many directions does a block use?
=====================================

A block could move each token its own way. In large trained models late updates are reported to lie in a few
directions instead (arXiv:2512.19941). This tutorial counts them, and meets a trap: an update that all tokens share has
rank one whatever else happens, and an untrained model is made of such updates.
"""

# %%
# The states, and nulls of two kinds: the untrained twin, and the same states with random directions.

import matplotlib.pyplot as plt

import depthflow

data = depthflow.datasets.digits("test")
model = depthflow.datasets.digits_vit()
twin = depthflow.datasets.digits_vit(trained=False)
traj = depthflow.record(model, data.images, progress=False)
null = depthflow.record(twin, data.images, progress=False)
isotropic = depthflow.random_directions(traj)

# %%
# One image's update is a matrix
# ------------------------------
# In block ℓ the 17 tokens of an image move by 17 vectors of 64 features. The singular values of this matrix say along
# how many directions: the *stable rank*, the sum of their squares over the largest square, is 1 if all tokens move
# along one line, and at most 17.

spectra = depthflow.update_spectra(traj)
null_spectra = depthflow.update_spectra(null)
names = {"label": "trained", "null_label": "untrained twin"}
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
depthflow.plot.update_spectra(spectra, null=null_spectra, ax=ax, **names)
plt.show()

# %%
# A stable rank of about two among seventeen looks like a finding. Before calling it one, ask the nulls.

floor = depthflow.update_spectra(isotropic).stable_rank.mean()
print(f"random directions: {float(floor):.2f}")
for name, one in (("trained", spectra), ("untrained twin", null_spectra)):
    first, last = (float(one.stable_rank.sel(block=block).mean()) for block in (1, 12))
    print(f"{name}: {first:.2f} in block 1, {last:.2f} in block 12")

# %%
# Against random directions the trained updates are of low rank indeed. But the twin's are lower still, close to 1. An
# untrained model does nearly the same to every token, and one shared vector is one direction. So a low rank of this
# kind is no mark of training.

# %%
# Take the shared part away
# -------------------------
# ``center=True`` subtracts the mean update of the image's tokens, which leaves in what they *differ*. Which of both
# was used stands in the result's attributes, so that numbers of the two kinds are not confused.

centered = depthflow.update_spectra(traj, center=True)
null_centered = depthflow.update_spectra(null, center=True)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, variable in zip(axes, ("stable_rank", "effective_rank"), strict=True):
    names |= {"variable": variable, "null": null_centered}
    depthflow.plot.update_spectra(centered, ax=ax, **names)
plt.show()

# %%
# Now training has a face: early blocks move the patches of an image in more directions than the twin's do, and late
# blocks in fewer and fewer. By the last blocks the stable rank is down to that of a model which learned nothing. The
# effective rank, which counts small directions too, keeps the two apart for longer than the stable rank, which asks
# how far the largest one dominates: report which was used.

for name, one in (("trained", centered), ("untrained twin", null_centered)):
    first, last = (float(one.stable_rank.sel(block=block).mean()) for block in (1, 12))
    print(f"{name}, centered: {first:.2f} in block 1, {last:.2f} in block 12")

# %%
# All images together
# -------------------
# Few directions for one image need not be the same ones for the next. ``pool=True`` stacks the tokens of all images,
# in memory that does not grow with their number, and gives one spectrum a block.

pooled = depthflow.update_spectra(traj, pool=True)
null_pooled = depthflow.update_spectra(null, pool=True)
names = {"variable": "singular_value", "null_label": "untrained twin"}
# sphinx_gallery_thumbnail_number = 3
fig, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
depthflow.plot.update_spectra(pooled, null=null_pooled, ax=ax, **names)
plt.show()

# %%
# ``energy_rank`` is the least number of directions that hold 90 % of the squared length, here averaged over blocks.

counts = {"trained": (spectra, pooled), "untrained twin": (null_spectra, null_pooled)}
for name, (single, joint) in counts.items():
    alone, together = float(single.energy_rank.mean()), float(joint.energy_rank.mean())
    print(f"{name}: {alone:.1f} for one image, {together:.1f} of 64 for all together")

# %%
# The trained model moves each image along a few directions, and *which* ones depends on the image: together they need
# several times as many. That is low rank with content. The twin's one direction is the same for every image.

# %%
# What to take away
# -----------------
# - A low rank may only say that tokens move together. Look at ``center=True``, and always at the twin.
# - Low rank for one image and low rank over all images are two findings: compare the per-sample with the pooled
#   spectrum.
# - Ranks are of at most min(T, D) directions; a null of random directions shows what that allows.
#
# More: :doc:`/measures/update_spectra`, :doc:`/measures/coherence`.
