"""
Long-tailed images
==================

Handwritten digits, thinned so that the most frequent class has thirty times the samples of the
rarest, and four weightings of the same network. The test data has the same number of images of each
digit.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import sampleweights as sw

torch.set_num_threads(1)  # small tensors: more threads are slower

# %%
# The data: a test set of 50 images of each digit, and a training set whose classes shrink by a
# third from one to the next.
pixels, labels = load_digits(return_X_y=True)
pixels, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
by_class = [(labels == c).nonzero()[:, 0] for c in range(10)]
counts = [max(4, round(120 * 0.68**c)) for c in range(10)]
train = torch.cat([index[50 : 50 + n] for index, n in zip(by_class, counts, strict=True)])
test = torch.cat([index[:50] for index in by_class])
print("training samples:", counts)

# %%
# One training. Only ``set_epoch`` and the criterion differ from a plain loop.
EPOCHS = 40


def recall(weighter, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    criterion = sw.CrossEntropyLoss(weighter=weighter)
    for epoch in range(EPOCHS):
        criterion.set_epoch(epoch)
        for index in train[torch.randperm(len(train))].split(20):
            optimizer.zero_grad()
            criterion(model(pixels[index]), labels[index]).backward()
            optimizer.step()
    right = model.eval()(pixels[test]).argmax(1) == labels[test]
    return right.float().view(10, 50).mean(1)


weightings = {
    "none": lambda: None,
    "OHEM": lambda: sw.OHEM(EPOCHS),
    "EffectiveNumber": lambda: sw.EffectiveNumber(counts),
    "EffectiveNumber, OHEM": lambda: [sw.EffectiveNumber(counts), sw.OHEM(EPOCHS)],
}
results = {
    name: torch.stack([recall(make(), seed) for seed in range(5)])
    for name, make in weightings.items()
}

# %%
# The picture shows the recall of each digit, as the mean over five seeds. The table adds the
# standard deviation between the seeds.
for name, values in results.items():
    mean = values.mean(1)
    print(f"{name:<22} balanced accuracy {100 * mean.mean():.1f} +- {100 * mean.std():.1f}")

fig, ax = plt.subplots(layout="constrained")
for i, (name, values) in enumerate(results.items()):
    ax.bar(torch.arange(10) + 0.2 * i - 0.3, values.mean(0), 0.2, label=name)
ax.set_xticks(range(10), [f"{c}\n{n}" for c, n in enumerate(counts)])
ax.set(xlabel="digit, and its training samples", ylabel="recall", ylim=(0, 1.3))
ax.legend(ncols=2)
