"""
Can two blocks do the work of twelve?
=====================================

The block-recurrent hypothesis says that a trained model of L blocks can be rewritten with k ≪ L blocks, applied again
and again, whose path stays near the model's at *every* depth (arXiv:2512.19941). The test is to build such a
surrogate. This tutorial fits one for a few seconds, takes the bundled one, which was fitted for longer, and asks what
a good score is worth.
"""

# %%
# The surrogate learns from the training images; scores are on images that neither model has seen.

import matplotlib.pyplot as plt

import depthflow

train = depthflow.datasets.digits("train")
test = depthflow.datasets.digits("test")
model = depthflow.datasets.digits_vit()
twin = depthflow.datasets.digits_vit(trained=False)

# %%
# Fit a short one
# ---------------
# Depth is cut into two phases, and each gets one block, which starts as a copy of the teacher's block most like the
# others of its phase. Stage 1 trains each block on its own phase, stage 2 both together along their own path. The
# default is 200 + 4,000 steps; 20 + 60 are enough to see it move.

settings = depthflow.SurrogateSettings(steps=(20, 60), validate_every=30)
options = {"n_phases": 2, "settings": settings, "progress": False}
short = depthflow.fit_surrogate(model, train.images, **options)
print("block at each of the 12 depths:", short.phases)

# %%
# A surrogate is a model. It is called as its teacher is, and :func:`depthflow.record`, :func:`depthflow.perturb` and
# all others take it. :func:`depthflow.score_surrogate` runs both and compares their states depth by depth; *ε* is the
# largest mean relative error over the depths.

bundled = depthflow.datasets.digits_surrogate()
scored = {"labels": test.labels, "progress": False}
scores = {
    "80 steps": depthflow.score_surrogate(short, model, test.images, **scored),
    "bundled": depthflow.score_surrogate(bundled, model, test.images, **scored),
}

# %%
# Every score has four baselines beside it, of as many blocks: the state left as it is, the best *linear* map of each
# phase, the teacher's first two blocks alone, and the teacher's own blocks *repeated* without training.

fig, axes = plt.subplots(1, 2, figsize=(8, 4.4), layout="constrained")
for ax, (name, one) in zip(axes, scores.items(), strict=True):
    depthflow.plot.surrogate(one, ax=ax)
    ax.set_title(f"{name}\n{ax.get_title()}", fontsize="small")
    ax.set_ylim(-0.3, 1.05)
plt.show()

# %%
# After eighty steps the surrogate follows roughly; fitted for longer it stays close at every depth.
# What it gained by training is its distance from ``repeated``, which is so far off that it leaves the picture, and
# what needs more than linear maps is that from ``linear``. In brackets stands the share that the teacher reads
# correctly.

for name, one in scores.items():
    right, teacher = float(one.surrogate_accuracy), float(one.teacher_accuracy)
    print(f"{name}: ε = {float(one.epsilon):.2f}, {right:.1%} read correctly ({teacher:.1%})")

# %%
# Two blocks recur
# ----------------
# The surrogate's path is a trajectory like any other, so the measures of the other tutorials see it next to its
# teacher's.

paths = [depthflow.record(one, test.images, **scored) for one in (bundled, model)]
settle, teacher = (depthflow.convergence(path, tokens="cls") for path in paths)
ends, teacher_ends = (depthflow.basins(path, 10) for path in paths)

# %%

fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
names = {"label": "surrogate", "null_label": "teacher"}
depthflow.plot.convergence(settle, variable="angle", null=teacher, ax=axes[0], **names)
depthflow.plot.agreement(ends, null=teacher_ends, null_label="teacher", ax=axes[1])
plt.show()

# %%
# Here the dashed line is the teacher, not a null. Two blocks, one applied over and over in the first phase and one in
# the second, turn the class token as the twelve do, and sort the digits at the same depths.

# %%
# The null: a teacher that knows nothing
# --------------------------------------
# If being rewritten by a few blocks were a mark of training, an untrained teacher should resist. Fit the same
# surrogate for the same number of steps to the twin, and put the best linear map of each phase beside both.

null = depthflow.fit_surrogate(twin, train.images, **options)
scores["untrained twin"] = depthflow.score_surrogate(null, twin, test.images, **scored)
for name, one in scores.items():
    linear = float(one.baseline_epsilon.sel(baseline="linear"))
    print(f"{name}: ε = {float(one.epsilon):.2f}, of one linear map a phase {linear:.2f}")

# %%
# The twin does not resist, it yields sooner: what random blocks do to a state is learnt fast, and one linear map a
# phase does nearly all of it. So that a surrogate *exists* is no mark of training. What sets this trained model apart
# is that linear maps fail on it while two recurring blocks do not, and that these keep its answers.

fig, ax = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
for row, one in enumerate(scores.values()):
    linear = one.baseline_epsilon.sel(baseline="linear")
    blocks = ax.plot(one.epsilon, row, "o", color="#013c61", label="two recurring blocks")
    maps = ax.plot(linear, row, "D", color="#c75904", label="two linear maps")
ax.set(yticks=range(3), yticklabels=scores, ylim=(2.5, -0.5), xlim=(0, None))
ax.set_xlabel("ε, largest mean relative error over depths")
ax.legend(handles=[*blocks, *maps], frameon=False, loc="lower right")
plt.show()

# %%
# How many blocks?
# ----------------
# :func:`depthflow.recurrence_curve` fits and scores surrogates of 1, 2, 3, … blocks and several seeds: ε against k is
# the measured form of the hypothesis. It is a loop over what you have just seen, with checkpoints, and takes minutes
# rather than seconds, so it is not run here; :doc:`/measures/recurrence_curve` shows the curve of this model.

# %%
# What to take away
# -----------------
# - Two blocks, fitted for minutes, follow this model's twelve at every depth and keep its answers.
# - Read ε beside its baselines: in the trained model the linear map fails, in the untrained one it suffices.
# - A near path and a kept accuracy are two findings. Report both, and score on images that nobody learned from.
#
# More: :doc:`/surrogates`, :doc:`/measures/score_surrogate`, :doc:`/measures/recurrence_curve`.
