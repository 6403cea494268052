"""Does a history find wrong labels where classes are rare?

python -m examples.wrong_labels                  # a table
python -m examples.wrong_labels --page page.html  # the page of one training

The digits of scikit-learn are thinned so that the most frequent class has 60 times as many samples
as the rarest, and five percent of the labels are changed. A small network trains on them. The table
compares the two margins of the history: how many of the first n samples of a ranking have a changed
label (n is the number of changed labels), and what the margin flags, which is what is below 0.
Where cleanlab is installed, the table has what it ranks and flags too, from the probabilities of a
5-fold cross-validation of the same training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold
from torch import Tensor, nn
from tqdm import tqdm

import sampleweights as sw
from sampleweights.history import write_page

MARGINS = {"area under the margin": "area_under_margin", "adjusted margin": "adjusted_margin"}
WEIGHTINGS: dict[str, Callable[[list[int]], dict[str, Any]]] = {
    "none": lambda counts: {},
    "ClassBalanced": lambda counts: {"weighter": sw.ClassBalanced(counts)},
    "LogitAdjustment": lambda counts: {"margin": sw.LogitAdjustment(counts)},
}
SEED = 1000
NUM_RARE = 4
"""The classes that count as rare: of 3 to 17 samples."""


def thinned(ratio: float, flip: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, right labels, given labels, and the classes from the most frequent to the rarest."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, label = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randperm(10, generator=generator)
    chosen = []
    for place, c in enumerate(classes):
        of_class = (label == c).nonzero()[:, 0]
        count = round(174 * ratio ** (-place / 9))
        chosen.append(of_class[torch.randperm(len(of_class), generator=generator)[:count]])
    inputs, label = inputs[torch.cat(chosen)], label[torch.cat(chosen)]
    changed = torch.randperm(len(label), generator=generator)[: round(flip * len(label))]
    given = label.clone()
    given[changed] += torch.randint(1, 10, (len(changed),), generator=generator)
    return inputs, label, given % 10, classes


def trained(
    inputs: Tensor, given: Tensor, weighting: str, epochs: int, seed: int
) -> tuple[nn.Module, sw.LossHistory]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    counts = given.bincount(minlength=10).tolist()
    criterion = sw.CrossEntropyLoss(**WEIGHTINGS[weighting](counts))
    history = sw.LossHistory(len(given), epochs)
    for _ in range(epochs):
        for index in torch.randperm(len(given)).split(32):
            optimizer.zero_grad()
            with history.record(criterion, index):
                loss = criterion(model(inputs[index]), given[index])
            loss.backward()
            optimizer.step()
        history.end_epoch()
    return model, history


def cleanlab_finds(
    inputs: Tensor, given: Tensor, epochs: int, seed: int
) -> tuple[Tensor, Tensor] | None:
    """Samples in cleanlab's order, the most suspicious first, and those that it flags, (N,) bool.

    None where cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return None
    probabilities = torch.empty(len(given), 10)
    for train, held_out in KFold(5, shuffle=True, random_state=seed).split(inputs):
        model, _ = trained(inputs[train], given[train], "none", epochs, seed)
        with torch.no_grad():
            probabilities[held_out] = model(inputs[held_out]).softmax(1)
    arrays = given.numpy(), probabilities.numpy()
    quality = torch.from_numpy(get_label_quality_scores(*arrays))
    return quality.argsort(), torch.from_numpy(find_label_issues(*arrays))


def page(path: str, ratio: float, flip: float, epochs: int) -> None:
    """The page of one training without weights; it says of each changed label what it was."""
    inputs, label, given, _ = thinned(ratio, flip, SEED)
    _, history = trained(inputs, given, "none", epochs, SEED)
    pairs = zip(label.tolist(), given.tolist(), strict=True)
    names = [str(i) if g == y else f"{i} was {y}" for i, (y, g) in enumerate(pairs)]

    def image(i: int) -> Tensor:  # 96 x 96 pixels, since a browser would blur 8 x 8
        return 1 - inputs[i].view(8, 8).repeat_interleave(12, 0).repeat_interleave(12, 1)

    title = f"Digits, {ratio:g} : 1, {flip:.0%} of the labels changed"
    write_page(path, history, image, given, names=names, title=title)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each weighting")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--ratio", type=float, default=60, help="frequent to rare")
    parser.add_argument("--flip", type=float, default=0.05, help="share of changed labels")
    parser.add_argument("--page", metavar="FILE", help="write the page of one training instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small tensors: more threads are slower
    if arguments.page:
        page(arguments.page, arguments.ratio, arguments.flip, arguments.epochs)
        return
    columns = [
        "precision, first n",
        "flagged",
        "of them changed",
        "of the changed",
        "of clean rare",
    ]
    print(f"| weighting | score | {' | '.join(columns)} |")
    print("|---|---|" + "--:|" * len(columns))
    for weighting in WEIGHTINGS:
        results: dict[str, list[list[float]]] = {}
        seeds = range(SEED, SEED + arguments.seeds)
        for seed in tqdm(seeds, desc=weighting, leave=False):
            inputs, label, given, classes = thinned(arguments.ratio, arguments.flip, seed)
            changed = given != label
            rare = torch.isin(label, classes[-NUM_RARE:]) & ~changed
            _, history = trained(inputs, given, weighting, arguments.epochs, seed)
            scores = history.scores()
            found = {
                name: (scores[key].argsort(), scores[key] < 0) for name, key in MARGINS.items()
            }
            of_cleanlab = None
            if weighting == "none":
                of_cleanlab = cleanlab_finds(inputs, given, arguments.epochs, seed)
            if of_cleanlab is not None:
                found["cleanlab, out of fold"] = of_cleanlab
            for name, (order, flagged) in found.items():
                first = order[: int(changed.sum())]
                shares = [changed[first], changed[flagged], flagged[changed], flagged[rare]]
                first_n, precision, recall, of_rare = (
                    100 * s.float().mean().item() for s in shares
                )
                results.setdefault(name, []).append(
                    [first_n, flagged.sum().item(), precision, recall, of_rare]
                )
        for name, rows in results.items():
            mean = torch.tensor(rows).mean(0).tolist()
            first_n, count, *shares = mean
            cells = [f"{first_n:.1f} %", f"{count:.0f}", *(f"{share:.0f} %" for share in shares)]
            print(f"| {weighting} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
