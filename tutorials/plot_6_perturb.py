"""
Does a pushed path come back?
=============================

Endpoints in bundles are not yet attractors. For that, paths that are pushed off must return. This tutorial pushes the
class token at a third of the depth and watches, finds that a shrinking deviation is not yet a return, and asks the
same of infinitely small pushes, where derivatives give the exact answer in every direction at once.
"""

# %%
# The digits model, its twin, and 80 images.

import matplotlib.pyplot as plt
import numpy as np

import depthflow

data = depthflow.datasets.digits("test")
images, labels = data.images[:80], data.labels[:80]
models = {
    "trained": depthflow.datasets.digits_vit(),
    "untrained twin": depthflow.datasets.digits_vit(trained=False),
}
quiet = {"batch_size": 80, "progress": False}

# %%
# Push and see
# ------------
# :func:`depthflow.perturb` turns the state at one depth by an exact angle, keeps its length, and lets the remaining
# blocks run. The *gain* is the angle between the pushed and the original path in units of the push: 1 at the push, 0
# if all is forgotten.

push = {"depth": 4, "angle": 0.05, **quiet}
pushed, null_pushed = (depthflow.perturb(one, images, **push) for one in models.values())
names = {"label": "trained", "null_label": "twin"}
fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
depthflow.plot.perturb(pushed, null=null_pushed, ax=axes[0], **names)
depthflow.plot.perturb(pushed, variable="angle", null=null_pushed, ax=axes[1], **names)
plt.show()

# %%
# The class token's angle shrinks at every block, the twin's at most of them. Is that a return? A deviation that is
# merely carried along looks smaller and smaller on a state that grows, and loses 1 − ‖x₄‖/‖x₁₂‖ of its angle by depth
# 12: the dash-dotted curve, in the result as ``carried_gain``. Only what lies below it is a return. On the right is
# what the push does to the other tokens, which were not touched: the patches hear of it only faintly.

for name, one in zip(models, (pushed, null_pushed), strict=True):
    draws = np.random.default_rng(0).choice(one.recovery.values, (1000, len(images)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    gone = float(one.recovery.mean())
    carried = float(1 - one.carried_gain.isel(depth=-1).mean())
    print(f"{name}: {gone:.2f} [{low:.2f}, {high:.2f}] of the angle is gone at the end")
    print(f"  {carried:.2f} would be if no block answered")

# %%
# The trained model's lead over its twin is real, and it is the lead of its growing states. In state units neither
# brings the paths together.

# %%
# A harder push
# -------------
# A random direction among 64 is nearly at right angles to any direction that matters. Push towards the mean of
# *another digit*, and the path has a reason to stay away.

towards = {"depth": 4, "angle": 0.05, "directions": "other_class", "labels": labels}
for name, model in models.items():
    one = depthflow.perturb(model, images, n_draws=4, **towards, **quiet)
    print(f"{name}: recovery {float(one.recovery.mean()):.2f}")

# %%
# A basin of attraction?
# ----------------------
# Now the test that the third tutorial left open. Take the ten basins of the final directions, push harder and harder,
# and count the paths that still end in the basin of the path that was not pushed. :func:`depthflow.basin_stability`
# gives the share, and Wilson's interval for each basin. To leave nothing untouched that could repair the class token,
# push all tokens at once, too.

angles = [0.05, 0.2, 0.4, 0.8, 1.2, 1.57]


def shares(model, basins, tokens):
    """Return for each angle the share of the pushed paths that end in their own basin."""
    options = {"depth": 4, "tokens": tokens, "n_draws": 4, **quiet}
    runs = [depthflow.perturb(model, images, angle=angle, **options) for angle in angles]
    stable = [depthflow.basin_stability(run, basins) for run in runs]
    return [float(one.stable_share.mean()) for one in stable]


# %%

fig, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for (name, model), color in zip(models.items(), ("#013c61", "0.5"), strict=True):
    basins = depthflow.basins(depthflow.record(model, data.images, progress=False), 10)
    for tokens, style in (("cls", "o-"), (["cls", "patch"], "s--")):
        share = shares(model, basins, tokens)
        who = "cls" if tokens == "cls" else "all tokens"
        ax.plot(angles, share, style, color=color, label=f"{name}, {who}")
        print(f"{name}, {who}:", *(f"{value:.2f}" for value in share))
# sphinx_gallery_thumbnail_number = 2
ax.set_xlabel("angle of the push at depth 4 [rad]")
ax.set_ylabel("share that ends in its own basin")
ax.legend(frameon=False)
plt.show()

# %%
# The trained model's basins hold under pushes that are no longer small, even if every token is hit; the twin's
# clusters, which have no gaps between them, lose their members at once. A push by a right angle (1.57 rad) leaves
# nothing of the direction, and ends it for both. Name the angle with the share: a small enough push leaves everything
# where it is.
#
# Do the basins *attract*? Ask the null once more: where would the class token end if each block passed its deviation
# on as it is?

model = models["trained"]
basins = depthflow.basins(depthflow.record(model, data.images, progress=False), 10)
for angle in (0.4, 0.8, 1.2):
    run = depthflow.perturb(model, images, depth=4, angle=angle, n_draws=4, **quiet)
    found = depthflow.basin_stability(run, basins)
    both = (float(found[name].mean()) for name in ("stable_share", "carried_share"))
    print("{:.1f} rad: {:.2f} end in their own basin, {:.2f} if no block answered".format(angle, *both))

# %%
# Carried along, every path would have stayed in its basin. The basins are wide and the states grow, which is
# enough to explain what was seen. That something pulls the paths back is not shown by this model.

# %%
# Every direction at once
# -----------------------
# For a vanishing push the answer is the Jacobian. :func:`depthflow.jacobian` takes that of the *directions*, in rad
# out per rad in, exactly. Its largest singular value is the gain of the worst direction, ``rms_gain`` that of a
# random one.

few = {"batch_size": 12, "progress": False}
linear = depthflow.jacobian(models["trained"], images[:24], **few)
null_linear = depthflow.jacobian(models["untrained twin"], images[:24], **few)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, variable in zip(axes, ("singular_value", "rms_gain"), strict=True):
    depthflow.plot.jacobian(linear, variable=variable, null=null_linear, ax=ax, **names)
plt.show()

# %%
# Random directions shrink in nearly every block, and yet in most blocks some direction grows: "blocks contract" holds
# on average, not in every direction. Over the whole way from depth 0 to 12 it can be asked as one span, since the
# singular values of a product are not the products of singular values.

model = models["trained"]
whole = depthflow.jacobian(model, images[:24], span=(0, 12), **few)
for one, name in ((linear, "in one block"), (whole, "from depth 0 to 12")):
    grows = float((one.singular_value.sel(mode=1) > 1).mean())
    print(f"{name} some direction grows in {grows:.0%} of the cases")

# %%
# The two ways must agree, and this can be checked: a small push in random directions, followed from depth 4 to 12,
# must have the rms gain that the Jacobian of this span has, but for the draw of the directions.

span = depthflow.jacobian(model, images[:24], span=(4, 12), **few)
small = depthflow.perturb(model, images[:24], depth=4, angle=1e-3, n_draws=16, **quiet)
measured = np.sqrt((small.gain.sel(depth=12) ** 2).mean("draw"))
ratio = measured.values / span.rms_gain.isel(span=0).values
print(f"pushed over derived gain: {ratio.mean():.2f} on average over the images")

# %%
# What to take away
# -----------------
# - A shrinking deviation is no return by itself. Growing states shrink every angle: compare with their growth, and
#   with the twin, pushed in the same way.
# - A share of pushed paths that end in their own basin needs the angle, depth and directions of the push, and the share
#   of those that are merely carried along.
# - The mean over directions shrinks while the worst direction grows. Twelve blocks support no claim on limits.
#
# More: :doc:`/measures/perturb`, :doc:`/measures/jacobian`, :doc:`/measures/finite_jacobian`.
