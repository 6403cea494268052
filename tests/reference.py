"""The paper's equations in plain Python floats: the oracle that the tests compare with.

Nothing here knows torch, or how the library computes. Lists in, lists out, one sample at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction


def log_softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    log_total = top + math.log(math.fsum(math.exp(z - top) for z in logits))
    return [z - log_total for z in logits]


def cross_entropy(logits: list[float], target: int, smoothing: float = 0.0) -> float:
    """Eq. 5, with the label smoothed towards the uniform distribution."""
    log_p = log_softmax(logits)
    uniform = -math.fsum(log_p) / len(log_p)
    return (1 - smoothing) * -log_p[target] + smoothing * uniform


def focal(logits: list[float], target: int, gamma: float, smoothing: float = 0.0) -> float:
    """Eq. 6: the factor from the unsmoothed probability."""
    p_other = math.fsum(
        math.exp(log_p) for c, log_p in enumerate(log_softmax(logits)) if c != target
    )
    return p_other**gamma * cross_entropy(logits, target, smoothing)


def focal_of_probabilities(logits: list[float], target: list[float], gamma: float) -> float:
    log_p = log_softmax(logits)
    return math.fsum(
        t * (1 - math.exp(lp)) ** gamma * -lp for t, lp in zip(target, log_p, strict=True)
    )


def binary_focal(logit: float, target: float, gamma: float, alpha: float | None) -> float:
    p = 1 / (1 + math.exp(-logit))
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    return target * positive * (1 - p) ** gamma * -math.log(p) + (
        1 - target
    ) * negative * p**gamma * -math.log(1 - p)


def binary_cross_entropy(logit: float, target: float, pos_weight: float = 1.0) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(pos_weight * target * math.log(p) + (1 - target) * math.log(1 - p))


def asymmetric(
    logit: float, target: float, gamma_negative: float, gamma_positive: float, clip: float
) -> float:
    """Ridnik et al. 2021: the negatives' probability is lowered by the clip."""
    p = 1 / (1 + math.exp(-logit))
    shifted = max(p - clip, 0.0)
    of_positive = (1 - p) ** gamma_positive * math.log(p)
    of_negative = shifted**gamma_negative * math.log(1 - shifted)
    return -target * of_positive - (1 - target) * of_negative


def balanced_softmax(logits: list[float], target: int, counts: list[int]) -> float:
    """Ren et al. 2020: the softmax with each class as often as it occurs."""
    terms = [n * math.exp(z) for z, n in zip(logits, counts, strict=True)]
    return -math.log(terms[target] / math.fsum(terms))


def balanced_softmax_gradient(logits: list[float], target: int, counts: list[int]) -> list[float]:
    terms = [n * math.exp(z) for z, n in zip(logits, counts, strict=True)]
    return [term / math.fsum(terms) - (c == target) for c, term in enumerate(terms)]


def ldam(
    logits: list[float], target: int, counts: list[int], max_margin: float, scale: float
) -> float:
    """Cao et al. 2019: margins as n^(-1/4), rescaled so that the largest is ``max_margin``."""
    margins = [1 / n**0.25 for n in counts]
    margins = [m * max_margin / max(margins) for m in margins]
    moved = list(logits)
    moved[target] -= margins[target]
    return cross_entropy([scale * z for z in moved], target)


def class_balanced(counts: list[int]) -> list[Fraction]:
    """Eq. 7, exactly; 0 for a class without samples."""
    return [Fraction(sum(counts), n) if n else Fraction(0) for n in counts]


def effective_number(counts: list[int], beta: Fraction | None = None) -> list[Fraction]:
    """Eq. 8, exactly, for counts small enough for exact powers."""
    total = sum(counts)
    beta = Fraction(total - 1, total) if beta is None else beta
    return [(1 - beta) / (1 - beta**n) if n else Fraction(0) for n in counts]


def normalized(weights: list[Fraction], counts: list[int], how: str | None) -> list[Fraction]:
    if how is None:
        return weights
    if how == "samples":
        total = sum(n * w for n, w in zip(counts, weights, strict=True))
        return [w * sum(counts) / total for w in weights]
    present = sum(n > 0 for n in counts)
    return [w * present / sum(weights) for w in weights]


def sigmoid_fraction(epoch: float, num_epochs: float) -> float:
    """Eq. 9, with every sample kept in the second half."""
    half = num_epochs / 2
    if epoch >= half:
        return 1.0
    alpha = math.log(39) / half
    return math.exp(alpha * epoch) / (1 + math.exp(alpha * epoch))


def kept_count(fraction: float, num_valid: int) -> int:
    return max(1, math.floor(fraction * num_valid + 0.5)) if num_valid else 0


def selected(
    losses: list[float],
    fraction: float,
    *,
    largest: bool,
    valid: list[bool] | None = None,
    group: list[int] | None = None,
) -> list[bool]:
    """Sec. 3.3: exactly m of the valid samples of each group; ties by position; NaN first."""
    valid = [True] * len(losses) if valid is None else valid
    group = [0] * len(losses) if group is None else group
    keep = [False] * len(losses)
    for g in {g for g, v in zip(group, valid, strict=True) if v}:
        members = [i for i in range(len(losses)) if group[i] == g and valid[i]]
        members.sort(
            key=lambda i: (
                not math.isnan(losses[i]),
                0 if math.isnan(losses[i]) else (-losses[i] if largest else losses[i]),
                i,
            )
        )
        for i in members[: kept_count(fraction, len(members))]:
            keep[i] = True
    return keep


Weigher = Callable[[list[float], list[bool]], list[float]]


def composed(weighers: list[Weigher], losses: list[float], valid: list[bool]) -> list[float]:
    """Sec. 6: each sees the losses times the weights so far, and not what has weight 0."""
    weights = [1.0] * len(losses)
    for weigher in weighers:
        seen = [w * x if w else 0.0 for w, x in zip(weights, losses, strict=True)]
        left = [v and w != 0 for v, w in zip(valid, weights, strict=True)]
        weights = [a * b for a, b in zip(weights, weigher(seen, left), strict=True)]
    return weights


def reduced(losses: list[float], weights: list[float], valid: list[bool], reduction: str) -> float:
    """Eq. 3 and its variants."""
    pairs = [(w, x) for w, x, v in zip(weights, losses, valid, strict=True) if v]
    total = math.fsum(w * x if w else 0.0 for w, x in pairs)
    if reduction == "sum" or not pairs:
        return total
    if reduction == "mean":
        return total / len(pairs)
    summed = math.fsum(w for w, _ in pairs)
    return total / summed if summed else 0.0


def calibration_error(
    probabilities: list[list[float]], target: list[int], num_bins: int = 15
) -> float:
    """Expected calibration error: of the predicted class, over bins of equal width."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(num_bins)]
    for p, y in zip(probabilities, target, strict=True):
        confidence = max(p)
        place = min(int(confidence * num_bins), num_bins - 1)
        bins[place].append((confidence, p.index(confidence) == y))
    total = 0.0
    for members in bins:
        total += abs(math.fsum(c - right for c, right in members))
    return total / len(target)
