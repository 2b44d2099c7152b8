"""
Do directions settle, and do tokens move together?
==================================================

If depth is time, the first question is where it leads. The angle between a state and the state at the end of the
model says how much of the way is left, and the angle between one depth and the next how fast it goes. Both shrink
with depth in trained vision transformers (arXiv:2512.19941). They also shrink in models that have learned nothing, so
the interest lies in the difference.
"""

# %%
# The trained model, and three untrained twins: one random initialisation is one draw, and a null should be a range.

import matplotlib.pyplot as plt

import depthflow

data = depthflow.datasets.digits("test")
model = depthflow.datasets.digits_vit()
twins = [depthflow.datasets.digits_vit(trained=False, seed=seed) for seed in range(3)]
traj = depthflow.record(model, data.images, progress=False)
nulls = [depthflow.record(twin, data.images, progress=False) for twin in twins]

# %%
# Directions settle
# -----------------
# :func:`depthflow.convergence` measures every token's path in one pass. Here it is of the class token, from which the
# model reads its answer: the *alignment* is the cosine to the final direction, the *speed* the angle turned in a
# block.

paths = depthflow.convergence(traj, tokens="cls")
null_paths = [depthflow.convergence(null, tokens="cls") for null in nulls]
names = {"label": "trained", "null": null_paths[0], "null_label": "untrained twin"}

fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, variable in zip(axes, ("alignment", "speed"), strict=True):
    depthflow.plot.convergence(paths, variable=variable, ax=ax, **names)
plt.show()

# %%
# The class token starts about at a right angle to where it ends and turns towards it in ever smaller steps. So does
# the twin's. The reason is in the lengths of the states: each block adds its update to a sum that grows, and the
# longer the sum, the less an update of the same size can turn it.

fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, variable in zip(axes, ("norm", "update_norm"), strict=True):
    depthflow.plot.convergence(paths, variable=variable, ax=ax, **names)
plt.show()

# %%
# The trained model ends slower than the twins. The interval comes from resampling the images, the range from the
# twins.

final = depthflow.bootstrap(depthflow.convergence, traj, tokens="cls")
final = final.isel(block=-1, token=0)
low, high = float(final.speed_low), float(final.speed_high)
others = [float(one.speed.isel(block=-1).mean()) for one in null_paths]
print("speed in the last block, rad/block")
print(f"trained: {float(final.speed):.3f} [{low:.3f}, {high:.3f}]")
print(f"three untrained twins: {min(others):.3f} to {max(others):.3f}")

# %%
# Two more nulls
# --------------
# Two nulls need no second model. :func:`depthflow.shuffle_depth` puts the depths of all samples into one random
# order: if the *order* mattered, alignment must stop rising. :func:`depthflow.random_directions` keeps the norms and
# draws every direction anew: it shows what no direction at all looks like in this many dimensions.

shuffled = depthflow.shuffle_depth(traj)
isotropic = depthflow.random_directions(traj)
fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
depthflow.plot.convergence(paths, variable="alignment", label="trained", ax=ax)
nulls_of_it = {"shuffled depths": (shuffled, ":"), "random directions": (isotropic, "-.")}
for name, (states, style) in nulls_of_it.items():
    alignment = depthflow.convergence(states, tokens="cls").alignment
    middle = alignment.median(["sample", "token"])
    ax.plot(middle.depth, middle, style, color="0.5", label=name)
ax.legend(frameon=False)
plt.show()

# %%
# Shuffled, the same states rise to their last one in no order; with random directions nothing aligns before the last
# depth, which is its own reference. The trained path passes both. So would the twin's: these nulls rule out that
# depth does not matter, not that training does not.

# %%
# How straight is the way?
# ------------------------
# ``straightness`` is the angle between start and end over the length of the path: 1 is a great circle, the shortest
# way. Next to it stands the depth from which a token stays within 0.3 rad of its end.

for name, states in (("trained", traj), ("untrained twin", nulls[0])):
    one = depthflow.convergence(states, tokens="cls", tolerance=0.3)
    straight, settled = float(one.straightness.mean()), float(one.settling_depth.median())
    print(f"{name}: straightness {straight:.2f}, settled from depth {settled:g} (median)")

# %%
# Do tokens move together?
# ------------------------
# :func:`depthflow.coherence` takes the mean of the directions of an image's patches: its length is 1 if all are the
# same, and about 1/√T (dotted) if T tokens point anywhere. Theory expects the tokens of attention without anything
# else to run into one cluster (arXiv:2312.10794).

together = depthflow.coherence(traj)
null_together = [depthflow.coherence(null) for null in nulls]
names["null"] = null_together[0]
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, variable in zip(axes, ("coherence", "update_coherence"), strict=True):
    depthflow.plot.coherence(together, variable=variable, ax=ax, **names)
plt.show()

# %%
# Here the twin is the one that behaves as in theory: its attention averages what the patches hold, and they run
# together. Training works against this: the patches part in the first block and stay apart.

start, end = (float(together.coherence.sel(depth=depth).mean()) for depth in (0, 12))
others = [float(one.coherence.sel(depth=12).mean()) for one in null_together]
print(f"trained: coherence {start:.2f} at depth 0, {end:.2f} at depth 12")
print(f"three untrained twins: {min(others):.2f} to {max(others):.2f} at depth 12")

# %%
# But what do the twin's patches run together *to*? Mostly to one direction that all images share, and which says
# nothing of any of them. Take the mean over images away, and the order is reversed: it is the trained model whose
# patches lie closer together. So say which coherence is meant.

for name, states in (("trained", traj), ("untrained twin", nulls[0])):
    own = depthflow.coherence(states - states.mean("sample")).coherence.mean("sample")
    print(f"{name}, less the mean over images: {float(own[0]):.2f} at depth 0, {float(own[-1]):.2f} at depth 12")

# %%
# What to take away
# -----------------
# - Directions converge and slow down; so do those of any stack of residual blocks. The claim is the *difference* to
#   the twin.
# - Shuffled depths and random directions show what order and direction contribute; they do not replace the twin.
# - In this model, training keeps the patches from running into one direction for all images, and draws those of one
#   image together. Published models of larger size show patches that move coherently late in depth
#   (arXiv:2512.19941); here coherence does not rise late, with the mean over images or without.
#
# More: :doc:`/measures/convergence`, :doc:`/measures/coherence`, :doc:`/measures/resample`.
