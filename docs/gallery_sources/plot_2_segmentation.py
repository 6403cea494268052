"""
Dense segmentation
==================

A class for every pixel: scenes with four handwritten digits, in which most pixels are background
and the blurred rim of the ink has no clear label. The rim carries 255 and is ignored; ``OHEM``
mines the pixels of the batch.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import sampleweights as sw

torch.set_num_threads(1)  # small tensors: more threads are slower

IGNORE = 255
BACKGROUND = 10

# %%
# A scene has 32 x 32 pixels, and each digit lies somewhere in its quarter. Ink above one half is
# labelled with its digit; ink between a tenth and one half is ignored. Training and test scenes are
# made of different digits.
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32).view(-1, 8, 8)
labels = torch.tensor(labels)


def scenes(n, first, last, seed):
    generator = torch.Generator().manual_seed(seed)
    scene, target = torch.zeros(n, 1, 32, 32), torch.full((n, 32, 32), BACKGROUND)
    for i in range(n):
        for quarter in range(4):
            which = int(torch.randint(first, last, (), generator=generator))
            dy, dx = torch.randint(0, 9, (2,), generator=generator).tolist()
            y, x = 16 * (quarter // 2) + dy, 16 * (quarter % 2) + dx
            ink = images[which]
            scene[i, 0, y : y + 8, x : x + 8] = ink
            label = torch.where(ink > 0.5, labels[which], BACKGROUND)
            target[i, y : y + 8, x : x + 8] = label.masked_fill((ink > 0.1) & (ink <= 0.5), IGNORE)
    return scene + 0.1 * torch.randn(scene.shape, generator=generator), target


train, train_target = scenes(500, 0, 1300, 0)
test, test_target = scenes(100, 1300, 1797, 1)
share = [(train_target == c).float().mean().item() for c in (BACKGROUND, IGNORE)]
print(f"background {share[0]:.0%}, ignored {share[1]:.0%} of the pixels")

# %%
# A small network, and three criteria that know ``ignore_index``. The counts come from the training
# pixels. All three trainings are long enough that the mean IoU has stopped rising.
EPOCHS = 14


def block(channels, features):
    convolution = nn.Conv2d(channels, features, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(features), nn.ReLU())


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.fine = block(1, 16)
        self.coarse = nn.Sequential(nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2), block(32, 48))
        self.head = nn.Conv2d(64, 11, 1)

    def forward(self, x):
        fine = self.fine(x)
        return self.head(torch.cat([fine, F.interpolate(self.coarse(fine), scale_factor=4)], 1))


def predict(weighter):
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.Adam(model.parameters())
    steps = EPOCHS * len(train) // 10
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, steps)
    criterion = sw.CrossEntropyLoss(
        ignore_index=IGNORE, reduction="weighted_mean", weighter=weighter
    )
    for epoch in range(EPOCHS):
        criterion.set_epoch(epoch)
        for index in torch.randperm(len(train)).split(10):
            optimizer.zero_grad()
            criterion(model(train[index]), train_target[index]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return model.eval()(test).argmax(1)


def mean_iou(prediction):
    valid = test_target != IGNORE
    ious = []
    for c in range(11):
        a, b = (prediction == c) & valid, (test_target == c) & valid
        ious.append((a & b).sum() / (a | b).sum())
    return torch.stack(ious).mean().item()


counted = sw.EffectiveNumber.from_targets(train_target, num_classes=11, ignore_index=IGNORE)
predictions = {
    "all pixels": predict(None),
    "OHEM(schedule=0.25)": predict(sw.OHEM(schedule=0.25)),
    "EffectiveNumber": predict(counted),
}

# %%
# Once the trainings have converged, they differ by a few points. With this seed ``OHEM`` is ahead
# of the training on all pixels; with another seed the two were equal.
for name, prediction in predictions.items():
    print(f"{name:<20} mean IoU {100 * mean_iou(prediction):.1f}")

# %%
# The picture shows one test scene. The white pixels of the target are ignored.
fig, axes = plt.subplots(2, 3, figsize=(6.4, 4.4), layout="constrained")
pictures = {
    "image": test[0, 0],
    "target": test_target[0].float().masked_fill(test_target[0] == IGNORE, torch.nan),
}
pictures |= {name: prediction[0] for name, prediction in predictions.items()}
for ax in axes.flat:
    ax.axis("off")
for ax, (name, picture) in zip(axes.flat[[0, 1, 3, 4, 5]], pictures.items(), strict=True):
    if name == "image":
        ax.imshow(picture, cmap="gray")
    else:
        ax.imshow(picture, cmap="tab20", vmin=0, vmax=19)
    ax.set_title(name.replace("(", "\n("))
