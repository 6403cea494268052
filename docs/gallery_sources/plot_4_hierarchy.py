"""
A hierarchy from a dictionary
=============================

Digits grouped by the shape of their strokes. ``Taxonomy`` holds the tree, ``HierarchicalLoss`` adds
up the levels that a sample has, and ``leaf_log_probs`` turns the logits of the levels into
probabilities of the leaves. A network with a tree can answer with a group where it is not sure of
the digit.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import sampleweights as sw

torch.set_num_threads(1)  # small tensors: more threads are slower

# %%
# The tree is a dictionary, and its leaves may lie at different depths. ``leaves`` says how the data
# set numbers them.
tree = sw.Taxonomy(
    {
        "loop": ["0", "6"],
        "curved": {"knotted": ["8", "9"], "open": ["3", "5"]},
        "straight": ["1", "2", "4", "7"],
    },
    leaves=[str(c) for c in range(10)],
)
for digit in (6, 9):
    path = tree.level_targets(torch.tensor(digit)).tolist()
    print(digit, "is", [tree.nodes[i] for i in path if i >= 0], "and its target", path)
group = tree.level_targets(torch.arange(10))[:, 0]

# %%
# There are only 150 training images, so the network is often unsure. It returns one row of logits
# for each level of the tree.
pixels, labels = load_digits(return_X_y=True)
pixels, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
EPOCHS = 60


def probabilities(criterion, seed):
    torch.manual_seed(seed)
    few = torch.randperm(1000)[:150]
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    if isinstance(criterion, sw.HierarchicalLoss):
        model.append(nn.Linear(64, tree.num_levels * tree.num_nodes))
        model.append(nn.Unflatten(1, (tree.num_levels, tree.num_nodes)))
    else:
        model.append(nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(EPOCHS):
        criterion.set_epoch(epoch)
        for index in few[torch.randperm(150)].split(10):
            optimizer.zero_grad()
            criterion(model(pixels[index]), labels[index]).backward()
            optimizer.step()
    with torch.no_grad():
        logits = model(pixels[1000:])
        return (tree.leaf_log_probs(logits) if logits.ndim == 3 else logits.log_softmax(1)).exp()


criteria = {
    "flat": sw.CrossEntropyLoss(),
    "hierarchical": sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=tree),
    "hierarchical, OHEM": sw.HierarchicalLoss(
        sw.CrossEntropyLoss(), taxonomy=tree, weighter=sw.OHEM(EPOCHS)
    ),
}
results = {
    name: torch.stack([probabilities(criterion, seed) for seed in range(4)])
    for name, criterion in criteria.items()
}

# %%
# The table shows the share of correct answers over four seeds, for digits and for groups. The
# probability of a group is the sum over its digits. On these pixels the groups are less alike than
# they look to us, and the flat network is better at both: a hierarchy does not always help.
truth = labels[1000:]


def of_groups(p):
    return torch.stack([p[..., group == g].sum(-1) for g in range(3)], -1)


for name, p in results.items():
    digits = (p.argmax(-1) == truth).float().mean()
    groups = (of_groups(p).argmax(-1) == group[truth]).float().mean()
    print(f"{name:<19} digits {digits:.1%}, groups {groups:.1%}")

# %%
# A model may answer with the digit if its probability is high enough, and with the group otherwise.
# The curve shows how often it is right, over how often it names the digit.
fig, ax = plt.subplots(layout="constrained")
for name, p in results.items():
    points = []
    for threshold in torch.linspace(0, 0.999, 40):
        sure = p.amax(-1) >= threshold
        right = torch.where(sure, p.argmax(-1) == truth, of_groups(p).argmax(-1) == group[truth])
        points.append((sure.float().mean(), right.float().mean()))
    ax.plot(*zip(*points, strict=True), label=name)
ax.set(xlabel="share of answers that name the digit", ylabel="share that is right")
ax.legend()
