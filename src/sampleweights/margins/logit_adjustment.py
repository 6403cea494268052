"""Logit adjustment: the class priors, added to the logits in training or subtracted after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sampleweights._checks import as_number
from sampleweights._counts import as_class_counts, as_prior
from sampleweights._eager import is_readable
from sampleweights.functional.log_odds import by_label, decision_logits, log_odds
from sampleweights.functional.reference import by_class
from sampleweights.margins.base import CountMargin

__all__ = ["LogitAdjustment"]


class LogitAdjustment(CountMargin):
    r"""Adds the log-priors of the classes to the logits during training.

    .. math:: \tilde z_c = z_c + \tau \log \frac{N_c}{N}

    The model then need not learn the priors, and its own logits are optimal for balanced accuracy.
    tau = 1 is called Balanced Softmax. Alternatively, :meth:`posthoc` subtracts the log-priors
    from the logits of a model that was trained without any weighting. Do only one of the two: a
    model that was trained with the margin is already adjusted.

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating.
        - target: class indices or probabilities, used only if a class has no samples.
        - valid: the shape of the class indices, bool; None means that every sample is valid.
        - Output: the shape of ``logits``; their dtype, at least float32.

    Args:
        class_counts: training samples of each class, as for
            :class:`~sampleweights.ClassBalanced`. A class without samples gets the logit -inf, in
            training and in :meth:`posthoc`, so that it is never predicted. For
            :class:`~sampleweights.BCEWithLogitsLoss` and for one logit in :meth:`posthoc` the
            negatives and positives, :math:`(2)`, or :math:`(L, 2)` with a row for each label.
        tau: strength, at least 0. 1 is optimal for balanced accuracy; smaller values are a
            compromise with accuracy; 0 leaves the logits unchanged, to the last bit. It is also
            the power of the counts: counts :math:`N_c^{0.5}` with tau = 1 give the same loss and
            the same decisions as tau = 0.5, since a softmax does not see what is added to all
            logits.

    Raises:
        ValueError: bad ``class_counts`` or ``tau``; in the call, another number of classes, or a
            target that holds a class whose count is 0 (on CUDA and in compiled code a device-side
            assertion); in a criterion, ``label_smoothing`` with such a class, since its smoothed
            loss would be infinite.

    Example:
        >>> import torch
        >>> from sampleweights import CrossEntropyLoss, LogitAdjustment
        >>> margin = LogitAdjustment([90, 9, 1])
        >>> logits = torch.tensor([[2.0, 0.0, 0.0]])
        >>> CrossEntropyLoss(margin=margin)(logits, torch.tensor([2]))
        tensor(6.5147)
        >>> margin.posthoc(logits)
        tensor([[2.1054, 2.4079, 4.6052]])

    References:
        Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021.
        Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020.
    """

    log_prior: Tensor

    def __init__(
        self,
        class_counts: Tensor | Sequence[int] | Mapping[int, int] | Any,
        tau: float = 1.0,
    ) -> None:
        super().__init__()
        self.tau = as_number("tau", tau)
        if not 0 <= self.tau < math.inf:
            raise ValueError(f"tau must be finite and at least 0, got {tau}")
        counts = as_class_counts(class_counts, labels=True)
        log_prior = (counts.double() / counts.sum(-1, keepdim=True)).log()
        # not the -inf of a class without samples, of which averages of models would make NaN
        self._keep("log_prior", counts, log_prior.masked_fill(counts == 0, 0))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        name = prefix + "log_prior"
        if name in state:  # -inf in states that were saved before
            state[name] = state[name].masked_fill(state[name] == -math.inf, 0)
        super()._load_from_state_dict(state, prefix, *args)

    @property
    def inactive(self) -> bool:
        return self.tau == 0

    @property
    def excludes_classes(self) -> bool:
        return self.has_absent and not self.inactive

    def _excluding(self, shift: Tensor, lowest: float = -math.inf) -> Tensor:
        """-inf for a class without samples, whatever the buffer of the priors holds there."""
        return shift.masked_fill(self.class_counts == 0, lowest)

    def forward(
        self, logits: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        self._check_logits(logits)
        if self.inactive:
            return logits
        dtype = torch.promote_types(logits.dtype, torch.float32)
        shift = self.tau * self.log_prior
        lacks = self.has_absent
        if lacks and target is not None:
            self._check_present(target, valid)
        if lacks or not is_readable(shift):
            of_probabilities = target is not None and target.is_floating_point()
            # a probability of 0 times an infinite loss would be NaN
            lowest = torch.finfo(dtype).min if of_probabilities else -math.inf
            shift = self._excluding(shift, lowest)
        return logits + by_class(shift.to(dtype), logits)

    def binary(
        self, logits: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check_binary(logits, target, valid)
        if self.inactive:
            return logits, logits
        shift = by_label(log_odds(self._excluding(self.tau * self.log_prior)), logits)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        moved = logits.to(dtype) + shift.to(dtype)
        return moved, moved

    def posthoc(
        self, logits: Tensor, prior: Tensor | Sequence[float] | Any | None = None
    ) -> Tensor:
        r"""Adjust the logits of a model that was trained without weighting for balanced accuracy.

        .. math:: z_c - \tau \log \frac{N_c}{N}

        With ``prior`` it adjusts them for other class frequencies :math:`\pi` instead, those where
        the model will be used. With tau = 1, the softmax then has the probabilities there:

        .. math:: z_c - \tau \log \frac{N_c}{N} + \log \pi_c

        One logit is the log-odds of class 1 of two, as binary cross-entropy takes it:

        .. math:: z - \tau \log \frac{N_1}{N_0}

        Shape:
            - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating. With two
              counts also one logit, :math:`()`, :math:`(N)` or :math:`(N, 1, ...)`; a single
              sample of two classes then is :math:`(1, 2)`. With counts :math:`(L, 2)` the logit
              of each label, :math:`(N, L, ...)`.
            - prior: the shape of the class counts.
            - Output: the shape of ``logits``; their dtype, at least float32.

        Args:
            logits: of a model that was trained without weighting.
            prior: the class frequencies where the model will be used, from 0 to 1 and with the
                sum 1 (of each label), in the order of the classes or, as class counts, with their
                indices as keys; :func:`~sampleweights.estimate_prior` estimates them. None is
                balanced accuracy, for which all classes are equally frequent.

        Raises:
            TypeError: logits that are not floating.
            ValueError: logits of another number of classes, or a prior that does not fit.

        Example:
            >>> import torch
            >>> from sampleweights import LogitAdjustment
            >>> LogitAdjustment([900, 100]).posthoc(torch.tensor([0.3, -1.2]))  # two samples
            tensor([2.4972, 0.9972])
            >>> LogitAdjustment([900, 100]).posthoc(torch.tensor([0.3, -1.2]), prior=[0.9, 0.1])
            tensor([ 0.3000, -1.2000])
        """
        shift = -self.tau * self.log_prior
        if prior is not None:
            shift = shift + as_prior(prior, self.class_counts.shape).to(shift).log()
        if not self.inactive:  # whatever the prior of a class that the model has never seen
            shift = self._excluding(shift)
        return decision_logits(logits, shift, type(self).__name__)

    def extra_repr(self) -> str:
        tau = "" if self.tau == 1 else f", tau={self.tau}"
        return super().extra_repr() + tau
