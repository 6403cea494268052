"""Five minutes with sampleweights: a long-tailed data set, two criteria, one training loop.

python -m examples.quickstart
"""

from __future__ import annotations

import torch
from torch import nn

import sampleweights as sw

NUM_EPOCHS = 40
COUNTS = [900, 90, 10]  # training samples of each class


def samples(counts: list[int], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Three overlapping clouds in the plane."""
    target = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    centers = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.7]])
    return centers[target] + 0.7 * torch.randn(len(target), 2, generator=generator), target


def recall_per_class(criterion: nn.Module) -> list[float]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    inputs, target = samples(COUNTS, generator)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for epoch in range(NUM_EPOCHS):
        if isinstance(criterion, sw.CrossEntropyLoss):
            criterion.set_epoch(epoch)  # as DistributedSampler has it; for OHEM and SelfPaced
        for index in torch.split(torch.randperm(len(target), generator=generator), 50):
            optimizer.zero_grad()
            criterion(model(inputs[index]), target[index]).backward()
            optimizer.step()
    inputs, target = samples([1000, 1000, 1000], generator)
    right = model(inputs).argmax(1) == target
    return [right[target == c].float().mean().item() for c in range(3)]


def main() -> None:
    criteria: dict[str, nn.Module] = {
        "nn.CrossEntropyLoss()": nn.CrossEntropyLoss(),
        "sw.CrossEntropyLoss()": sw.CrossEntropyLoss(),
        "  weighter=sw.ClassBalanced(counts)": sw.CrossEntropyLoss(
            weighter=sw.ClassBalanced(COUNTS)
        ),
        "  weighter=sw.OHEM(num_epochs)": sw.CrossEntropyLoss(weighter=sw.OHEM(NUM_EPOCHS)),
        "  weighter=[ClassBalanced, OHEM]": sw.CrossEntropyLoss(
            weighter=[sw.ClassBalanced(COUNTS), sw.OHEM(NUM_EPOCHS)]
        ),
    }
    print(f"{'criterion':<38} recall of the classes with {COUNTS} samples")
    for name, criterion in criteria.items():
        recall = "  ".join(f"{100 * value:3.0f} %" for value in recall_per_class(criterion))
        print(f"{name:<38} {recall}")


if __name__ == "__main__":
    main()
