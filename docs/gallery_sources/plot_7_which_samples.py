"""
Which samples matter
====================

Five percent of the digits get a wrong label. ``LossHistory`` watches the training, and its data map
shows where the wrong ones lie: bottom left, where the label is hard to believe in every epoch.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import sampleweights as sw

torch.set_num_threads(1)  # small tensors: more threads are slower

# %%
# 90 samples get a wrong label.
pixels, labels = load_digits(return_X_y=True)
pixels, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
torch.manual_seed(0)
wrong = torch.randperm(len(labels))[:90]
given = labels.clone()
given[wrong] = (labels[wrong] + torch.randint(1, 10, (90,))) % 10

# %%
# The loop needs the index of each sample, and one ``with`` statement.
EPOCHS = 20
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
criterion = sw.CrossEntropyLoss()
history = sw.LossHistory(len(given), EPOCHS)
for _ in range(EPOCHS):
    for index in torch.randperm(len(given)).split(32):
        optimizer.zero_grad()
        logits = model(pixels[index])
        with history.record(criterion, index):
            loss = criterion(logits, given[index])
        loss.backward()
        optimizer.step()
    history.end_epoch()

# %%
# This is the share of wrong labels among the 90 samples with the lowest area under the margin:
scores = history.scores()
suspects = scores["area_under_margin"].argsort()[:90]
is_wrong = torch.zeros(len(given), dtype=torch.bool).index_fill_(0, wrong, True)
print(f"{is_wrong[suspects].float().mean():.0%}")

ax = history.plot_data_map(is_wrong.long(), ["as it was", "changed"])
ax.set_title("data map of the digits")

# %%
# The picture shows the first eight of them, with the label that they were given and their own.

# sphinx_gallery_thumbnail_number = 2
fig, axes = plt.subplots(2, 4, layout="constrained")
for ax, i in zip(axes.flat, suspects[:8].tolist(), strict=True):
    ax.imshow(pixels[i].view(8, 8), cmap="gray_r")
    ax.set_title(f"{given[i]} (was {labels[i]})")
    ax.axis("off")
