"""Decisions of the highest expected utility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sampleweights._checks import check_floating, on_cpu
from sampleweights._eager import autocasts, is_eager, is_readable
from sampleweights.functional.log_odds import classes_last

__all__ = ["decide"]

_AT_ONCE = 2**22
"""Numbers that are held at once, on a CPU: 16 MB of probabilities instead of all of them."""


def decide(logits: Tensor, utility: Tensor | Sequence[Sequence[float]] | Any) -> Tensor:
    r"""Choose for each sample the decision with the highest expected utility.

    .. math:: \arg\max_d \sum_c p_c U_{cd}, \quad p = \operatorname{softmax}(z)

    A table says what each decision is worth for a sample of each class. A decision may be a class,
    or something else, such as to refer the patient to an expert. The table of the identity matrix
    gives the most probable class.

    The decisions are as good as the probabilities: calibrate the logits first, with
    :class:`~sampleweights.Calibration` on samples that were not trained on, and pass no logits
    that were adjusted for balanced accuracy.

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating. With a table
          of two classes also one logit, the log-odds of class 1, :math:`()`, :math:`(N)` or
          :math:`(N, 1, ...)`; a single sample of two classes then is :math:`(1, 2)`. With a table
          :math:`(L, 2, D)` the logit of each label, :math:`(N, L, ...)`.
        - utility: :math:`(C, D)`, a row for each class and a column for each decision; or
          :math:`(L, 2, D)`, with such a table for each label.
        - Output: :math:`()`, :math:`(N)` or :math:`(N, d_1, ...)`, int64, columns of ``utility``;
          of one logit and of labels the shape of ``logits``. Ties go to the lowest column. No
          gradient flows.

    Args:
        logits: of a model; a class that is never to be considered may have :math:`-\infty`.
        utility: what is gained; costs are negative. Only differences within a row matter: a
            constant added to a row, or a positive factor for the table, changes no decision.

    Raises:
        TypeError: logits that are not floating.
        ValueError: a table that does not fit or is not finite; logits that hold NaN or
            :math:`\infty` (on the CPU: elsewhere reading them would synchronise).

    Example:
        A missed melanoma costs ten times a false alarm, and asking an expert costs half of one:

        >>> import torch
        >>> from sampleweights import decide
        >>> #          nevus  melanoma  expert
        >>> utility = [[0.0,    -1.0,    -0.5],   # a nevus
        ...            [-10.0,   0.0,    -0.5]]   # a melanoma
        >>> probability = torch.tensor([[0.99, 0.01], [0.9, 0.1], [0.3, 0.7]])
        >>> decide(probability.log(), utility)
        tensor([0, 2, 1])

    References:
        Elkan, The Foundations of Cost-Sensitive Learning, IJCAI 2001, Eq. 1.
        Barata et al., A reinforcement learning model for AI-based decision support in skin cancer,
        Nature Medicine 2023 (a table of dermatologists).
    """
    gain = _gain(utility)
    check_floating("logits", logits)
    per_class = classes_last(logits.detach(), gain[..., 0], "utility")
    as_given, gain = gain, gain.to(per_class.device, per_class.dtype)
    if is_readable(as_given) and not as_given.max() <= torch.finfo(gain.dtype).max:
        raise ValueError(
            f"utility must differ within a row by what {gain.dtype} holds, got a difference of "
            f"{as_given.max().item()}"
        )
    samples = per_class if per_class.ndim > 1 else per_class[None]
    parts: Sequence[Tensor] = [samples]  # not split in a graph, which is for every batch size
    if is_eager() and samples.is_cpu:
        of_one = samples[:1].numel() // gain.shape[-2] * max(gain.shape[-2:])
        parts = torch.split(samples, max(1, _AT_ONCE // max(of_one, 1)))
    best = [_expected(part, gain).max(-1) for part in parts]
    decision = torch.cat([of.indices for of in best])
    if is_readable(logits) and not all(bool(of.values.isfinite().all()) for of in best):
        raise ValueError("logits must not hold NaN or infinity, nor only -infinity for a sample")
    return decision if per_class.ndim > 1 else decision[0]


def _gain(utility: Any) -> Tensor:
    """The table, checked: what each decision brings beyond the worst one, in float64 on a CPU.

    The worst decision of a class is worth 0: a constant in a row then costs no digits, and what is
    summed is never negative.
    """
    table = utility.detach() if isinstance(utility, Tensor) else on_cpu("utility", utility)
    if table.is_complex() or table.ndim not in (2, 3) or table.shape[-1] < 2:
        raise ValueError(
            f"utility must be a table of numbers of shape (C, D), a row for each class and a "
            f"column for each of at least 2 decisions, or (L, 2, D) with a table for each label, "
            f"got {table.dtype} of shape {tuple(table.shape)}"
        )
    if table.ndim == 3 and table.shape[1] != 2:
        raise ValueError(
            f"utility of labels must have shape (L, 2, D), a row for the absence and one for the "
            f"presence of each label, got {tuple(table.shape)}"
        )
    if is_readable(table) and not table.isfinite().all():
        bad = table[~table.isfinite()][0].item()
        raise ValueError(f"utility must be finite, got {bad}")
    dtype = torch.float64 if table.is_cpu else torch.promote_types(table.dtype, torch.float32)
    table = table.to(dtype)
    return table - table.amin(-1, keepdim=True)


def _expected(per_class: Tensor, gain: Tensor) -> Tensor:
    """Expected utilities (N, ..., D) of logits (N, ..., C)."""
    probability = per_class.softmax(-1)
    if gain.ndim == 2 and not autocasts(probability):
        return probability @ gain
    if gain.ndim == 3:  # (L, 2, D) for (N, L, ..., 2)
        gain = gain.reshape(len(gain), *[1] * (probability.ndim - 3), *gain.shape[1:])
    # autocast would run a matrix product in half precision
    return (probability[..., None] * gain).sum(-2)
