"""The scores of each sample, from what a history has added up over the closed epochs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scores_of(history: Any) -> dict[str, Tensor]:
    """See :meth:`~sampleweights.LossHistory.scores`, which says what each of them means."""
    seen, judged = history.epochs_seen > 0, history.epochs_judged > 0
    epochs, epochs_judged = history.epochs_seen.clamp(min=1), history.epochs_judged.clamp(min=1)

    def known(value: Tensor, where: Tensor) -> Tensor:
        return value.where(where, torch.nan)

    confidence, margin = known(history.p, judged), known(history.margin / epochs_judged, judged)
    return {
        "importance": known(history.weight, seen),
        "kept": known(history.times_kept / history.times.clamp(min=1), seen),
        "mean_loss": known(history.loss, seen),
        "loss_std": known((history.loss_squares / epochs).sqrt(), seen),
        "confidence": confidence,
        "variability": known((history.p_squares / epochs_judged).sqrt(), judged),
        "area_under_margin": margin,
        "adjusted_margin": adjusted_margin(margin, confidence, history.label, history.rival),
        "rival": history.rival,
        "correctness": known(history.correct / history.times_judged.clamp(min=1), judged),
        "forgetting_events": history.forgotten,
        "first_learned": history.first_learned,
        "times": history.times,
    }


def adjusted_margin(margin: Tensor, p: Tensor, label: Tensor, rival: Tensor) -> Tensor:
    r"""The margin of each sample without what its class suffers for being rare.

    .. math:: m_j - \min(0, \log(t_{y_j} / t_{r_j}))

    with :math:`t_c` the mean probability of the label over all samples labelled c, and r the rival.
    NaN where no label is known.
    """
    known = (label >= 0) & p.isfinite()
    if not known.any():
        return torch.full_like(margin, torch.nan)
    of, rival = label.long().clamp(min=0), rival.long().clamp(min=0)
    total = p.new_zeros(int(torch.maximum(of, rival).max()) + 1)
    count = total.index_add(0, of, known.to(p))
    total = total.index_add(0, of, p.where(known, 0))
    # not 0, of which there is no logarithm; a class that nobody is labelled as forgives nothing
    sure = (total / count.clamp(min=1)).clamp(min=torch.finfo(p.dtype).tiny).log()
    return (margin - (sure[of] - sure[rival]).clamp(max=0)).where(known, torch.nan)
