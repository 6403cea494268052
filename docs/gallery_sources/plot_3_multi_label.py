"""
Multi-label
===========

Which digits does a scene show? These are ten questions with the answers yes and no, so the network
ends in ten sigmoids, and each answer is a sample of ``BinaryFocalLoss``. The digits have a long
tail, and every scene says "no" to most of them.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from torch import nn

import sampleweights as sw

torch.set_num_threads(1)  # small tensors: more threads are slower

# %%
# A scene shows two digits side by side. The probability of a digit falls from 0 to 9.
images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def scenes(n, first, last, tail, seed):
    generator = torch.Generator().manual_seed(seed)
    chance = (tail ** labels[first:last].float()).double()
    which = first + torch.multinomial(chance, 2 * n, replacement=True, generator=generator)
    truth = torch.zeros(n, 10).scatter_(1, labels[which].view(n, 2), 1.0)
    return images[which].view(n, 128), truth


train, train_truth = scenes(800, 0, 1200, 0.65, 0)
test, test_truth = scenes(1000, 1200, 1797, 1.0, 1)
print("scenes with each digit:", train_truth.sum(0).int().tolist())

# %%
# The same network is trained with four criteria. A class-frequency weighter gets the counts of no
# and yes; ``OHEM`` keeps the hardest answers.
EPOCHS = 30


def average_precision(criterion, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(128, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(EPOCHS):
        if isinstance(criterion, sw.BinaryFocalLoss):
            criterion.set_epoch(epoch)
        for index in torch.randperm(len(train)).split(20):
            optimizer.zero_grad()
            criterion(model(train[index]), train_truth[index]).backward()
            optimizer.step()
    with torch.no_grad():
        scores = model.eval()(test)
    return torch.tensor(
        [average_precision_score(test_truth[:, c], scores[:, c]) for c in range(10)]
    )


no_and_yes = [int((train_truth == value).sum()) for value in (0, 1)]
criteria = {
    "nn.BCEWithLogitsLoss": nn.BCEWithLogitsLoss(),
    "BinaryFocalLoss": sw.BinaryFocalLoss(2.0, alpha=None),
    "BinaryFocalLoss, ClassBalanced": sw.BinaryFocalLoss(
        2.0, alpha=None, weighter=sw.ClassBalanced(no_and_yes)
    ),
    "BinaryFocalLoss, OHEM": sw.BinaryFocalLoss(2.0, alpha=None, weighter=sw.OHEM(EPOCHS)),
}
results = {
    name: torch.stack([average_precision(criterion, seed) for seed in range(3)]).mean(0)
    for name, criterion in criteria.items()
}

# %%
# The table shows the average precision of all digits and of the three rarest, as the mean over
# three seeds.
for name, values in results.items():
    print(
        f"{name:<31} {100 * values.mean():.1f}, of the three rarest {100 * values[7:].mean():.1f}"
    )

fig, ax = plt.subplots(layout="constrained")
for name, values in results.items():
    ax.plot(range(10), values, "o-", label=name)
ax.set_xticks(range(10), [f"{c}\n{n}" for c, n in enumerate(train_truth.sum(0).int().tolist())])
ax.set(xlabel="digit, and the training scenes that show it", ylabel="average precision")
ax.legend()
