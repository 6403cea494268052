"""What is compared for multi-label targets: binary losses, with a logit for each label."""

from __future__ import annotations

from sampleweights.compare.training.entries import Build, Recipe
from sampleweights.losses import AsymmetricLoss, BCEWithLogitsLoss, BinaryFocalLoss
from sampleweights.margins import LogitAdjustment
from sampleweights.weighters import OHEM, ClassBalanced

__all__ = ["KNOWN_LABEL_ENTRIES", "default_label_entries"]


def default_label_entries() -> dict[str, Build]:
    """The rows that are compared for a multi-label target unless others are given.

    The first is the baseline. A builder gets ``class_counts`` of shape (L, 2), the negatives and
    the positives of each label in the training part.

    Returns:
        A new dictionary of names to builders, as that of `default_entries`.
    """
    return dict(_ENTRIES)


_ENTRIES: dict[str, Build] = {
    "no weighting": lambda n, epochs: BCEWithLogitsLoss(),
    "ClassBalanced": lambda n, epochs: BCEWithLogitsLoss(weighter=ClassBalanced(n)),
    "ClassBalanced, square root": lambda n, epochs: BCEWithLogitsLoss(
        weighter=ClassBalanced(n, power=0.5)
    ),
    "BinaryFocalLoss": lambda n, epochs: BinaryFocalLoss(alpha=None),
    "AsymmetricLoss": lambda n, epochs: AsymmetricLoss(),
    "OHEM": lambda n, epochs: BCEWithLogitsLoss(weighter=OHEM(epochs)),
    "LogitAdjustment": lambda n, epochs: BCEWithLogitsLoss(margin=LogitAdjustment(n)),
}
# a test runs each line of code, and sees that it builds what the entry builds
_RECIPES = {
    "no weighting": Recipe("train without any weighting", "criterion = sw.BCEWithLogitsLoss()"),
    "ClassBalanced": Recipe(
        "train with class weights for each label (ClassBalanced)",
        "criterion = sw.BCEWithLogitsLoss(weighter=sw.ClassBalanced(class_counts))",
    ),
    "ClassBalanced, square root": Recipe(
        "train with the square root of the class weights for each label (ClassBalanced)",
        "criterion = sw.BCEWithLogitsLoss(\n"
        "    weighter=sw.ClassBalanced(class_counts, power=0.5)\n)",
    ),
    "BinaryFocalLoss": Recipe(
        "train with the focal loss (BinaryFocalLoss)", "criterion = sw.BinaryFocalLoss(alpha=None)"
    ),
    "AsymmetricLoss": Recipe(
        "train with the asymmetric loss (AsymmetricLoss)", "criterion = sw.AsymmetricLoss()"
    ),
    "OHEM": Recipe(
        "train with hard example mining (OHEM)",
        "criterion = sw.BCEWithLogitsLoss(weighter=sw.OHEM(num_epochs))",
    ),
    "LogitAdjustment": Recipe(
        "train with logits that are adjusted by the frequency of each label (LogitAdjustment)",
        "criterion = sw.BCEWithLogitsLoss(margin=sw.LogitAdjustment(class_counts))",
    ),
}
KNOWN_LABEL_ENTRIES = {name: (entry, _RECIPES[name]) for name, entry in _ENTRIES.items()}
"""With what a reader is told of each."""
