"""Calibrated probabilities: a temperature and a bias for each class, fitted on held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sampleweights._buffers import ExactBuffers
from sampleweights._checks import on_cpu
from sampleweights.counting import shortened
from sampleweights.decisions.held_out import check_every_class, class_values, count, held_out
from sampleweights.functional.log_odds import by_label, check_made_for, decision_logits

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Calibration"]

_HOTTEST = 100.0
"""The highest temperature of logits with the spread 1; its inverse is the lowest.

A perfect classifier would have 0, and a useless one infinity.
"""


class Calibration(ExactBuffers):
    r"""Turn the logits of a trained model into logits whose softmax is calibrated.

    .. math:: z_c / T + b_c

    A network is often too sure of itself, and one that was trained with class weights, a margin, a
    sampler or mined samples overestimates the classes which these favour. :meth:`fit` finds the
    temperature T and one bias for each class from samples that were not trained on. Calibrate
    before :func:`~sampleweights.decide`, :func:`~sampleweights.estimate_prior` and wherever a
    probability is shown. Without biases (``fit(..., bias=False)``) the most probable class stays
    the same.

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating. With two
          biases also one logit, the log-odds of class 1, :math:`()`, :math:`(N)` or
          :math:`(N, 1, ...)`, which gets :math:`b_1 - b_0`; with biases :math:`(L, 2)` the logit
          of each label, :math:`(N, L, ...)`.
        - Output: the shape of ``logits``; their dtype, at least float32. Gradient flows.

    Args:
        temperature: above 0; one for each label, :math:`(L)`, where biases are :math:`(L, 2)`.
        bias: of each class, :math:`(C)`; or :math:`(L, 2)`. Both are buffers, in float64: they
            are saved, moved and exported with a model, as ``nn.Sequential(model, calibration)``.

    Raises:
        ValueError: a temperature that is not above 0, values that are not finite, or shapes that
            do not fit each other or, in the call, the logits.

    Example:
        >>> import torch
        >>> from sampleweights import Calibration
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        >>> target = torch.tensor([0, 0, 1, 1])  # too sure: a third of class 0 is wrong
        >>> calibration = Calibration.fit(logits, target, bias=False)
        >>> calibration(logits).softmax(1)[0]
        tensor([0.7500, 0.2500])
        >>> calibration
        Calibration(temperature=3.641, bias=[0.0, 0.0])

    References:
        Alexandari et al., Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at
        Label Shift Adaptation, ICML 2020 (bias-corrected temperature scaling).
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (a temperature alone).
    """

    temperature: Tensor
    bias: Tensor

    def __init__(
        self, temperature: Tensor | float | Any, bias: Tensor | Sequence[float] | Any
    ) -> None:
        super().__init__()
        heat = on_cpu("temperature", temperature).to(torch.float64, copy=True)
        shift = class_values("bias", bias)
        if heat.shape != shift.shape[:-1]:
            raise ValueError(
                f"temperature must have shape {tuple(shift.shape[:-1])} for biases of shape "
                f"{tuple(shift.shape)}, got {tuple(heat.shape)}"
            )
        if not (heat.isfinite() & (heat > 0)).all():
            raise ValueError(f"temperature must be finite and above 0, got {heat.tolist()}")
        if not shift.isfinite().all():
            raise ValueError(f"bias must be finite, got {shift.tolist()}")
        self.register_buffer("temperature", heat)
        self.register_buffer("bias", shift)

    @classmethod
    def fit(cls, logits: Tensor, target: Tensor, *, bias: bool = True) -> Self:
        r"""Find the temperature and the biases that make held-out targets most likely.

        The likelihood of these samples is never lower than without calibration. The biases have
        the mean 0, which the softmax does not see, and with them the mean probability of each
        class is its frequency among the samples. Each label has its own temperature and biases.

        Shape:
            - logits: :math:`(N, C)` or :math:`(N, C, d_1, ...)`; one logit :math:`(N)` or
              :math:`(N, 1, ...)`; or of labels :math:`(N, L, ...)`.
            - target: class indices, :math:`(N)` or :math:`(N, d_1, ...)`; of one logit and of
              labels 0 and 1, in the shape of ``logits``.

        Args:
            logits: of samples that the model was not trained on. They stay on their device, where
                the fit runs in float64.
            target: the classes of the samples.
            bias: whether each class gets a bias; False fits the temperature alone, which needs
                fewer samples and changes no most probable class.

        Raises:
            ValueError: logits that are not finite; a target that does not fit; with biases, a class
                without a sample, whose bias would be :math:`-\infty`.
            IndexError: a class index out of range.
        """
        per_class, classes = held_out(logits, target)
        num_classes = per_class.shape[-1]
        if bias:
            check_every_class(classes, num_classes, " for its bias (or pass bias=False)")
        if per_class.device.type == "mps":  # no float64
            per_class, classes = per_class.cpu(), classes.cpu()
        scale, shift = _most_likely(per_class.double(), classes, bias)
        found = cls(1 / scale, shift)
        return found.to(logits.device)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the calibrated logits: the shape of ``logits``."""
        name = type(self).__name__
        check_made_for(logits, self.bias, name)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        temperature = self.temperature.to(logits.device, dtype)
        scaled = logits.to(dtype) / by_label(temperature, logits)
        return decision_logits(scaled, self.bias.to(logits.device), name)

    def extra_repr(self) -> str:
        by_label = self.temperature.ndim > 0
        heat = shortened(self.temperature) if by_label else f"{self.temperature.item():.4g}"
        return f"temperature={heat}, bias={shortened(self.bias)}"


def _most_likely(per_class: Tensor, classes: Tensor, with_bias: bool) -> tuple[Tensor, Tensor]:
    """The factor 1 / T, () or (L,), and biases (C,) or (L, 2), by L-BFGS in float64.

    The likelihood is concave in the factor and the biases (not in the logarithm of the factor),
    so what is found is its maximum. Logits of spread 1, without what a softmax does not see and
    what the biases can add, and biases in units of 1 / sqrt(frequency), make its curvature
    similar in all of them.

    Args:
        per_class: (n, C) or (n, L, 2).
        classes: (n,) or (n, L).
        with_bias: False leaves the biases at 0.
    """
    with torch.inference_mode(False):
        # tensors made under inference mode can not be part of a graph
        per_class, classes = per_class.clone(), classes.clone()
        centred = per_class - per_class.mean(-1, keepdim=True)
        middle = centred.mean(0) if with_bias else torch.zeros_like(centred[0])
        centred = centred - middle
        spread = centred.square().mean((0, -1)).sqrt()
        spread = torch.where(spread > 0, spread, 1)  # where there is nothing to scale
        centred = centred / spread[..., None]
        right = classes[..., None]
        unit = (len(classes) / count(classes, per_class.shape[-1]).clamp(min=1)).sqrt().to(spread)

    def loss(logits: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Of each label."""
        scaled = logits * scale[..., None] + bias
        return (scaled.logsumexp(-1) - scaled.gather(-1, right)[..., 0]).mean(0)

    def descend(*sought: Tensor) -> None:
        optimizer = torch.optim.LBFGS(
            sought, max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14,
            history_size=20, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(centred, scale, bias * unit).sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]

    with torch.inference_mode(False), torch.enable_grad():
        scale = torch.ones_like(spread, requires_grad=True)
        bias = torch.zeros_like(middle, requires_grad=True)
        descend(*([scale, bias] if with_bias else [scale]))
        with torch.no_grad():
            within = scale.clamp(1 / _HOTTEST, _HOTTEST)
            moved = not within.equal(scale)
            scale.copy_(within)
        if moved and with_bias:  # the best biases beside the bound
            descend(bias)
    with torch.no_grad():
        scale = scale / spread
        bias = bias * unit - scale[..., None] * middle
        before = loss(per_class, torch.ones_like(scale), torch.zeros_like(bias))
        better = loss(per_class, scale, bias) < before  # not so where nothing is to be gained
        scale = torch.where(better, scale, 1)
        bias = torch.where(better[..., None], bias, 0)
        return scale, bias - bias.mean(-1, keepdim=True)
