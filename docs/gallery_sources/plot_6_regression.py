"""
Regression
==========

``WeightedLoss`` puts weights around any loss with one value per sample, here ``nn.HuberLoss``, on
the diabetes data of scikit-learn: high values are rare, and a plain fit stays below them. Cut into
bins, a continuous target has class counts; their weights go in as ``sample_weight``.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import sampleweights as sw

torch.set_num_threads(1)  # small tensors: more threads are slower

# %%
# The targets are put into five bins of the same width. The last bin has few samples.
inputs, truth = load_diabetes(return_X_y=True)
inputs = torch.tensor(inputs, dtype=torch.float32) * 20
truth = torch.tensor(truth, dtype=torch.float32)
edges = torch.linspace(truth.min(), truth.max(), 6)
bins = torch.bucketize(truth, edges[1:-1])
print("samples in each bin:", bins.bincount().tolist())
EPOCHS = 60


def errors(balanced, weighter, seed):
    torch.manual_seed(seed)
    order = torch.randperm(len(truth))
    train, test = order[:300], order[300:]
    per_bin = sw.EffectiveNumber.from_targets(bins[train], num_classes=5)
    model = nn.Sequential(nn.Linear(10, 1), nn.Flatten(0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    criterion = sw.WeightedLoss(nn.HuberLoss(reduction="none"), weighter=weighter)
    for epoch in range(EPOCHS):
        criterion.set_epoch(epoch)
        for index in train[torch.randperm(300)].split(20):
            optimizer.zero_grad()
            prediction, target = model(inputs[index]), (truth[index] - 150) / 75
            weight = per_bin(prediction.detach(), bins[index]) if balanced else None
            criterion(prediction, target, sample_weight=weight).backward()
            optimizer.step()
    with torch.no_grad():
        error = (75 * model(inputs[test]) + 150 - truth[test]).abs()
    return torch.stack([error[bins[test] == b].mean() for b in range(5)] + [error.mean()])


settings = {
    "no weights": (False, lambda: None),
    "EffectiveNumber of the bins": (True, lambda: None),
    "OHEM(schedule=0.5)": (False, lambda: sw.OHEM(schedule=0.5)),
}
results = {
    name: torch.stack([errors(balanced, make(), seed) for seed in range(6)]).nanmean(0)
    for name, (balanced, make) in settings.items()
}

# %%
# The table shows the mean absolute error on test data over six splits. The weights lower the error
# of rare values and raise that of frequent ones. Which of the two matters more is your decision.
for name, error in results.items():
    print(f"{name:<28} all {error[5]:.1f}, mean of the bins {error[:5].mean():.1f}")

fig, ax = plt.subplots(layout="constrained")
for name, error in results.items():
    ax.plot(range(5), error[:5], "o-", label=name)
ax.set_xticks(range(5), [f"{a:.0f} to {b:.0f}" for a, b in pairwise(edges)])
ax.set(xlabel="target", ylabel="mean absolute error")
ax.legend()
