"""
What changes for a text model?
==============================

A language model has a residual stream like any other transformer, so its forward pass is a trajectory too. But its
tokens form no grid, its attention is causal, and texts differ in length. This tutorial trains a small GPT-2 for a few
seconds on a language that it makes up, so that there is something to see offline, and meets an untrained twin that
looks clever. (It needs transformers.)
"""

# %%
# A language of four topics: a text is a row of sentences "noun verb noun ." with the nouns of one topic. The verbs
# tell nothing.

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

import depthflow

TOPICS = {
    "sea": ["boat", "wave", "fish", "crab", "sail", "tide"],
    "wood": ["fox", "oak", "owl", "fern", "moss", "deer"],
    "kitchen": ["pan", "soup", "knife", "bread", "pot", "spoon"],
    "sky": ["moon", "star", "cloud", "comet", "sun", "wind"],
}
VERBS = ["sees", "finds", "likes", "follows", "meets"]
WORDS = [".", *VERBS, *(noun for nouns in TOPICS.values() for noun in nouns)]

# %%
# One word is one token, and a text of so many sentences is drawn at random.


def write(rng, texts, sentences):
    """Return token ids (text, 4 · sentences) and the topic of each text."""
    topics = rng.choice(list(TOPICS), texts)
    nouns = np.array([rng.choice(TOPICS[topic], (sentences, 2)) for topic in topics])
    verbs = rng.choice(VERBS, (texts, sentences, 1))
    words = [nouns[..., :1], verbs, nouns[..., 1:], np.full_like(verbs, ".")]
    words = np.concatenate(words, axis=-1).reshape(texts, -1)
    return torch.tensor(np.vectorize(WORDS.index)(words)), topics


texts, topics = write(np.random.default_rng(1), 400, 4)
print(topics[0] + ":", " ".join(WORDS[word] for word in texts[0]))

# %%
# A GPT-2 of eight blocks, built from its configuration, and its twin, which keeps the weights that both start with.

sizes = {"vocab_size": len(WORDS), "n_embd": 48, "n_layer": 8, "n_head": 4}
config = GPT2Config(**sizes, n_positions=32, bos_token_id=None, eos_token_id=None)
torch.manual_seed(0)
model, twin = GPT2LMHeadModel(config).eval(), GPT2LMHeadModel(config).eval()
twin.load_state_dict(model.state_dict())
print(depthflow.inspect(model, {"input_ids": texts[:2]}))

# %%
# Train it to predict the next word; 120 steps will do for this language.

optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
rng = np.random.default_rng(0)
for _ in range(120):
    words = write(rng, 32, 5)[0]
    guesses = model(input_ids=words).logits[:, :-1]
    loss = functional.cross_entropy(guesses.flatten(0, 1), words[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# Did it learn the topics? After a full stop a noun must follow, and all that tells which one is the text before. So
# look at how much probability the next word gives to the nouns of the right topic.

own = torch.tensor([[WORDS.index(noun) for noun in TOPICS[topic]] for topic in topics])
with torch.no_grad():
    for name, one in (("trained", model), ("untrained twin", twin)):
        chances = functional.softmax(one(input_ids=texts).logits[:, -1], dim=-1)
        share = float(chances.gather(1, own).sum(dim=1).mean())
        print(f"{name}: {share:.0%} on nouns of the right topic")

# %%
# Record a text model
# -------------------
# Inputs are a dict, as the model is called. All tokens are of one type, ``"token"``, and have no row or column: what
# distinguishes them is their position.

options = {"labels": topics, "progress": False}
traj = depthflow.record(model, {"input_ids": texts}, **options)
null = depthflow.record(twin, {"input_ids": texts}, **options)
print(dict(traj.sizes), "token types", set(traj.token_type.values.tolist()))

# %%
# Attention is causal: a token sees only what stands before it. Exchange the last word of every text, and the states
# of the tokens before it do not change.

changed = texts.clone()
changed[:, -1] = WORDS.index("sees")
difference = abs(depthflow.record(model, {"input_ids": changed}, **options) - traj)
largest = difference.max(["sample", "depth", "feature"]).values
print(f"largest change of the first 15 tokens: {largest[:-1].max():.1g}")
print(f"largest change of the last one: {largest[-1]:.1g}")

# %%
# So positions are not exchangeable as patches are: the first token takes the same path whatever follows, and the last
# one has read everything. For each question choose the position. Here it is the last one, the full stop, which plays
# the part of the class token: at depth 0 it is *identical* in all texts.

paths, null_paths = (depthflow.convergence(one, tokens=-1) for one in (traj, null))
names = {"label": "trained", "null_label": "untrained twin"}
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, variable in zip(axes, ("alignment", "speed"), strict=True):
    depthflow.plot.convergence(paths, variable=variable, null=null_paths, ax=ax, **names)
plt.show()

# %%
# The trained model turns the full stop by more than 1 rad in its first block, away from what it was and towards what
# comes next; the twin by about 0.2 rad in each of its blocks.
#
# A null that looks clever
# ------------------------
# Now cluster the final directions of that token, and ask from which depth on the clusters are the topics.

basins, null_basins = (depthflow.basins(one, 4, tokens=-1) for one in (traj, null))
fig, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
# sphinx_gallery_thumbnail_number = 2
depthflow.plot.agreement(basins, null=null_basins, null_label="twin", ax=ax)
plt.show()

# %%
# The trained model finds the topics within its first block. But look at the twin: with random weights, its clusters
# end up agreeing with the topics as well. Untrained attention averages what it reads, four sentences of one topic
# share their words, and a random map of word counts still tells them apart. Agreement with the labels is here a
# property of the *texts*. What training changed is when, and how clearly:

for name, one in (("trained", basins), ("untrained twin", null_basins)):
    halfway, end = float(one.ari.sel(depth=4)), float(one.ari[-1])
    print(f"{name}: ari {halfway:.2f} at depth 4, {end:.2f} at depth 8")
    print(f"  silhouette {float(one.silhouette.mean()):.2f}")
    within, between = float(one.within_angle[-1]), float(one.between_angle[-1])
    print(f"  angle within a topic {within:.2f} rad, between topics {between:.2f} rad")

# %%
# Phases are cut as they are for images, and with the same caution (see :doc:`plot_5_phases`): a small p-value says
# that depth is ordered, and can be had without training.

for name, one in (("trained", traj), ("untrained twin", null)):
    found = depthflow.phases(one, n_null=999)
    ends, p = found.boundary.values.tolist(), float(found.p_value)
    print(f"{name}: phases end at {ends}, p = {p:.3f}")

# %%
# Texts of unequal length
# -----------------------
# A batch of unequal texts is padded, and padding is no state of any text. Put it on the left, tell the model by its
# mask, count positions from the first word, and record what no text pads, such as the last position.

length = np.random.default_rng(2).choice([8, 12, 16], len(texts))
mask = torch.tensor(np.arange(16) >= 16 - length[:, None]).long()
positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
padded = {"input_ids": texts * mask, "attention_mask": mask, "position_ids": positions}
last = depthflow.record(model, padded, tokens=-1, **options)
basins = depthflow.basins(last, 4, tokens=0)
print(f"ari with 2 to 4 sentences: {float(basins.ari[-1]):.2f}")

# %%
# Asked for all positions, it refuses: where one text has padding and the next a word, no average over texts means
# anything.

try:
    depthflow.record(model, padded, **options)
except depthflow.errors.RecordError as error:
    print(str(error).replace(". ", ".\n"))

# %%
# What to take away
# -----------------
# - A text model is recorded with a dict; tokens have positions, no grid, and see only what stands before them.
# - Choose a position with a meaning, and one that no text pads.
# - Agreement with labels may come from the texts alone. The untrained twin tells how much of it.
#
# More: :doc:`/recording`, :doc:`/measures/basins`, :doc:`/measures/convergence`.
