"""Softmax losses of a linear layer, whose logits exist one chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sampleweights._eager import is_plain, is_readable, keeps_graph
from sampleweights.functional.reference import look_up
from sampleweights.reduction import weighted_mean

Coefficient = Callable[[Tensor, Any], Tensor]
"""The factor of each loss of some rows, from the losses and the positions of the rows."""

_CPU_BYTES, _CPU_ROWS = 2**25, 384
"""Of a chunk of logits on a CPU: of fewer rows a matrix product takes up to twice the time."""
_GPU_ROWS, _GPU_BYTES = 512, 2**28
_BLOCK_BYTES = 2**20
"""For each thread of a CPU: what lies between two products is computed within the cache."""


class Form(NamedTuple):
    """What the loss of a row is made of."""

    gamma: float
    label_smoothing: float
    weight: Tensor | None
    """Class weights, (C,), in the dtype of the losses."""
    margin: Callable[[Tensor, Tensor], Tensor] | None
    judge: Callable[[Tensor, Tensor], Sequence[Tensor]] | None
    """What a hook wants to know of the logits of some rows, one value or row for each."""
    chunk_size: int | None
    """Rows of a chunk; None: chosen."""


class Rows(NamedTuple):
    """The rows of a batch that count, and what they are to give."""

    target: Tensor
    """(N,), int64."""
    kept: Tensor | None
    """Positions of the rows that count, int64; None: all."""
    dtype: torch.dtype
    """What the products are computed in; softmax and sums are float32 or wider."""
    form: Form


class Found(NamedTuple):
    """What a walk over the rows has found."""

    loss: Tensor
    """(N,), 0 where a row does not count."""
    factor: Tensor | None
    """(N,), the factors of the losses; None without gradients."""
    judged: list[Tensor]
    gradients: list[Tensor | None]
    """Of hidden states, head, bias and the parameters of the margin: of sum(factor * loss)."""


def total(
    rows: Rows, coefficient: Coefficient, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The sum of all losses times their factors, in one pass: its gradient is there already.

    And the losses, without a graph, and what was judged.
    """
    value, loss, *judged = _Total.apply(  # type: ignore[no-untyped-call]
        rows, coefficient, hidden, weight, bias, *_parameters(rows.form)
    )
    return value, loss, judged


def losses(
    rows: Rows, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """The loss of each row, whose backward pass computes the logits of the rows that it needs."""
    loss, *judged = _Losses.apply(  # type: ignore[no-untyped-call]
        rows, hidden, weight, bias, *_parameters(rows.form)
    )
    return loss, judged


def _parameters(form: Form) -> list[Tensor]:
    """What a margin of the user's own may learn."""
    if not isinstance(form.margin, torch.nn.Module):
        return []
    return [parameter for parameter in form.margin.parameters() if parameter.requires_grad]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Rows, coefficient: Coefficient, *inputs: Any) -> Any:
        needs = ctx.needs_input_grad[2:]
        found = walk(rows, inputs, needs, coefficient)
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        ctx.save_for_backward(*found.gradients)
        ctx.mark_non_differentiable(found.loss, *found.judged)
        assert found.factor is not None
        return (weighted_mean(found.loss, found.factor, 1), found.loss, *found.judged)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        _check_once()
        # what is returned becomes .grad, which others write to: of a graph that is kept, a copy
        as_it_is = is_plain(grad) and is_readable(grad) and not keeps_graph() and grad.item() == 1
        gradients = [
            None if g is None else (g if as_it_is else g * grad).to(dtype)
            for g, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (None, None, *gradients)


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Rows, *inputs: Any) -> Any:
        found = walk(rows, inputs)
        ctx.rows = rows
        # what the user can write to is saved, too: torch then raises where that happened meanwhile
        ctx.save_for_backward(rows.target, rows.form.weight, *inputs)
        ctx.mark_non_differentiable(*found.judged)
        return (found.loss, *found.judged)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        _check_once()
        rows: Rows = ctx.rows
        _, _, *inputs = ctx.saved_tensors
        counts = grad != 0
        if rows.kept is not None:
            counts = counts & torch.zeros_like(counts).index_fill_(0, rows.kept, True)
        rows = rows._replace(kept=positions(counts), form=rows.form._replace(judge=None))
        scale = None
        if rows.dtype == torch.float16 and len(grad):  # which holds no small gradients
            most = grad.abs().amax()
            scale = torch.where((most > 0) & most.isfinite(), most, 1)
            grad = grad / scale
        found = walk(rows, inputs, ctx.needs_input_grad[1:], lambda _, at: grad[at])
        gradients = [
            None if g is None else (g if scale is None else g * scale).to(x.dtype)
            for g, x in zip(found.gradients, inputs, strict=True)
        ]
        return (None, *gradients)


def _check_once() -> None:
    """As torch's once_differentiable, which keeps silent if a sum holds loss and gradient."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "LinearCrossEntropyLoss has no second derivative, which create_graph=True asks for: "
            "use CrossEntropyLoss or FocalLoss on the logits"
        )


def positions(counts: Tensor) -> Tensor | None:
    """Where a mask is true; None, which is all, on the meta device, that has no values."""
    return None if counts.is_meta else counts.nonzero().squeeze(1)


def walk(
    rows: Rows,
    inputs: Sequence[Any],
    needs: Sequence[bool] = (),
    coefficient: Coefficient | None = None,
) -> Found:
    """Compute the rows that count, chunk by chunk; with ``coefficient`` also gradients."""
    kind = "cpu" if inputs[0].is_meta else inputs[0].device.type  # meta has no autocast
    with torch.no_grad(), torch.autocast(kind, enabled=False):
        return _Walk(rows, inputs, needs, coefficient).run()


class _Walk:
    def __init__(
        self,
        rows: Rows,
        inputs: Sequence[Any],
        needs: Sequence[bool],
        coefficient: Coefficient | None,
    ) -> None:
        self.rows, self.form, self.coefficient = rows, rows.form, coefficient
        self.hidden: Tensor = inputs[0].to(rows.dtype)
        self.weight: Tensor = inputs[1].to(rows.dtype)
        self.bias: Tensor | None = None if inputs[2] is None else inputs[2].to(rows.dtype)
        self.parameters = list(inputs[3:])
        self.num_classes = len(self.weight)
        self.wide = torch.promote_types(rows.dtype, torch.float32)
        self.gradients: list[Tensor | None] = [None] * len(inputs)
        if coefficient is not None:
            for i, needed in enumerate(needs):
                if needed:
                    # of half precision the sums over chunks are kept in float32
                    dtype = torch.promote_types(inputs[i].dtype, self.wide) if i else rows.dtype
                    self.gradients[i] = inputs[i].new_zeros(inputs[i].shape, dtype=dtype)

    def run(self) -> Found:
        target, kept = self.rows.target, self.rows.kept
        count = len(target) if kept is None else len(kept)
        loss = self.hidden.new_zeros(len(target), dtype=self.wide)
        factor = None if self.coefficient is None else torch.zeros_like(loss)
        size = max(1, min(count, self.form.chunk_size or self._chunk_size()))
        block = max(1, min(size, self._block_size()))
        logits = self.hidden.new_empty(size, self.num_classes)
        self.p = self.hidden.new_empty(block, self.num_classes, dtype=self.wide)
        judged: list[Sequence[Tensor]] = []

        def at(first: int, last: int) -> Any:
            return slice(first, last) if kept is None else kept[first:last]

        for first in range(0, count, size):
            last = min(first + size, count)
            chunk, hidden = logits[: last - first], self.hidden[at(first, last)]
            if self.bias is None:
                torch.mm(hidden, self.weight.T, out=chunk)
            else:
                torch.addmm(self.bias, hidden, self.weight.T, out=chunk)
            for low in range(first, last, block):
                where = at(low, min(low + block, last))
                part, y = chunk[low - first : low - first + block], target[where]
                if self.form.judge is not None:
                    judged.append(self.form.judge(part, y))
                loss[where], of_part = self._block(part, y, where)
                if factor is not None and of_part is not None:
                    factor[where] = of_part
            if self.coefficient is not None:
                self._multiply(chunk, hidden, at(first, last))
        return Found(loss, factor, self._of_all(judged), self.gradients)

    def _chunk_size(self) -> int:
        least, most = (_CPU_ROWS, _CPU_BYTES) if self.hidden.is_cpu else (_GPU_ROWS, _GPU_BYTES)
        return max(least, most // (self.num_classes * self.wide.itemsize))

    def _block_size(self) -> int:
        if not self.hidden.is_cpu:
            return len(self.rows.target)
        of_row = self.num_classes * self.wide.itemsize
        return _BLOCK_BYTES * torch.get_num_threads() // of_row

    def _of_all(self, judged: list[Sequence[Tensor]]) -> list[Tensor]:
        """What was judged of all rows, 0 where a row does not count."""
        parts = [torch.cat(part) for part in zip(*judged, strict=True)]
        kept, size = self.rows.kept, len(self.rows.target)
        if kept is None:
            return parts
        return [p.new_zeros(size, *p.shape[1:]).index_copy_(0, kept, p) for p in parts]

    def _block(self, logits: Tensor, y: Tensor, where: Any) -> tuple[Tensor, Tensor | None]:
        """The losses of a few rows; with a coefficient their logits become their gradient."""
        margin, index = self.form.margin, y.unsqueeze(1)
        leaf = moved = logits
        if margin is not None:
            leaf = logits.detach()
            with torch.set_grad_enabled(self.coefficient is not None):
                leaf.requires_grad_(self.coefficient is not None)
                moved = margin(leaf, y)
        z = moved.detach().to(self.wide)
        p = torch.softmax(z, 1, out=self.p[: len(z)])
        loss, slopes = self._losses(z, p, y)
        if self.coefficient is None:
            return loss, None
        factor = self.coefficient(loss, where)
        of_p, of_target, of_all = (None if s is None else (factor * s)[:, None] for s in slopes)
        assert of_p is not None
        assert of_target is not None
        # in place of the logits: of_p p - of_target [c = y] - of_all w / C
        in_place = margin is None and logits.dtype == self.wide
        gradient = torch.mul(p, of_p, out=logits if in_place else p)
        if of_all is not None and self.form.weight is None:
            gradient.sub_(of_all / self.num_classes)
        elif of_all is not None and self.form.weight is not None:
            gradient.addmm_(of_all, self.form.weight[None], alpha=-1 / self.num_classes)
        gradient.scatter_add_(1, index, -of_target)
        if margin is not None:
            gradient = self._through_margin(leaf, moved, gradient)
        if not in_place:
            logits.copy_(gradient)
        return loss, factor

    def _losses(
        self, z: Tensor, p: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor | None]]:
        """The losses, and their slopes: the factors of p, of the target and of all classes."""
        form, index = self.form, y.unsqueeze(1)
        p_y, z_y = p.gather(1, index).squeeze(1), z.gather(1, index).squeeze(1)
        if is_readable(p) and bool((p_y > 1e-30).all()):
            nll = -p_y.log()
        else:  # finite also where p is 0
            nll = z.amax(1) - z_y - p.amax(1).log()
        loss, slope, spread = nll, torch.ones_like(nll), None
        if form.weight is not None:
            slope = look_up(form.weight, y)
            loss = slope * nll
        of_p = slope
        if form.label_smoothing:
            # the mean over the classes of w_c (-log p_c)
            if form.weight is None:
                mean, of_all = torch.ones_like(nll), z_y + nll - z.mean(1)
            else:
                mean = form.weight.mean()
                of_all = mean * (z_y + nll) - (z @ form.weight) / self.num_classes
            loss = (1 - form.label_smoothing) * loss + form.label_smoothing * of_all
            slope = (1 - form.label_smoothing) * slope
            spread = torch.full_like(nll, form.label_smoothing)
            of_p = slope + mean * spread
        if form.gamma:
            # where smoothing leaves a loss at p = 1, every digit of 1 - p counts
            q = p.scatter_(1, index, 0).sum(1) if form.label_smoothing else -torch.expm1(-nll)
            power = q.pow(form.gamma)
            by_nll = form.gamma * q.clamp(min=torch.finfo(q.dtype).tiny).pow(form.gamma - 1)
            # 0 where p is, also of an infinite loss; where q is 0 it multiplies probabilities of 0
            by_nll = by_nll * torch.where((p_y == 0) | (q == 0), 0, p_y * loss)
            by_nll = by_nll.clamp(max=torch.finfo(q.dtype).max ** 0.9)
            loss = torch.where(loss.isinf(), loss, power * loss)
            slope, of_p = power * slope + by_nll, power * of_p + by_nll
            if spread is not None:
                # p of the target is 0 now: p_y of_p - slope, without the difference of p_y and 1
                spread = power * spread
                slope = q * slope - p_y * mean * spread
        return loss, (of_p, slope, spread)

    def _through_margin(self, leaf: Tensor, moved: Tensor, gradient: Tensor) -> Tensor:
        wanted = [leaf, *self.parameters]
        of_logits, *others = torch.autograd.grad(
            moved, wanted, gradient.to(moved.dtype), allow_unused=True
        )
        for i, other in enumerate(others, start=3):
            sum_ = self.gradients[i]
            if other is not None and sum_ is not None:
                sum_ += other
        return of_logits

    def _multiply(self, gradient: Tensor, hidden: Tensor, at: Any) -> None:
        of_hidden, of_weight, of_bias = self.gradients[:3]
        if of_hidden is not None:
            if isinstance(at, slice):
                torch.mm(gradient, self.weight, out=of_hidden[at])
            else:
                of_hidden[at] = gradient @ self.weight
        if of_weight is not None:
            if of_weight.dtype == gradient.dtype:
                of_weight.addmm_(gradient.T, hidden)
            elif gradient.dtype == torch.float16:  # which holds no sum of many large states
                most = hidden.abs().amax().float().clamp(min=1).log2().ceil().exp2()
                of_weight += (gradient.T @ (hidden / most).half()).float() * most
            else:
                of_weight += gradient.T @ hidden
        if of_bias is not None:
            of_bias += gradient.sum(0, dtype=of_bias.dtype)
