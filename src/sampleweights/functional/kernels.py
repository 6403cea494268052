"""Softmax losses on CUDA with the least traffic there is: logits read twice, gradient written once.

torch keeps the log-probabilities of all classes for the backward pass; here one logsumexp per
sample is kept and the softmax recomputed. Needs Triton, which torch's CUDA builds bring: imported
only when it is used. The oracle is ``reference.softmax_loss_reference``.
"""

# Triton compiles the kernels from their source: only constexpr is annotated there, and never as a
# string (no `from __future__ import annotations`), which its older versions do not understand.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sampleweights._eager import is_plain
from sampleweights.functional.reference import softmax_loss_reference

__all__ = ["softmax_loss", "try_out"]


@triton.jit
def _forward_kernel(
    logits,
    target,
    loss,
    stats,
    num_rows,
    num_classes,
    inner,
    stride_n,
    stride_c,
    stride_s,
    ignore_index,
    gamma,
    smoothing,
    FOCAL: tl.constexpr,
    SMOOTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Loss of ROWS samples, and what the backward pass needs: lse, 1 - p_t, and the slopes."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    in_range = row < num_rows
    y = tl.load(target + row, mask=in_range, other=0)
    live = in_range & (y != ignore_index)
    base = (row // inner) * stride_n + (row % inner) * stride_s
    top = tl.full([ROWS], float("-inf"), tl.float32)
    others = tl.zeros([ROWS], tl.float32)  # sum over the other classes of exp(x - shift)
    at_target = tl.zeros([ROWS], tl.float32)
    sum_x = tl.zeros([ROWS], tl.float32)
    shift = tl.zeros([ROWS], tl.float32)
    for start in range(0, num_classes, COLS):
        c = start + tl.arange(0, COLS)
        inside = live[:, None] & (c < num_classes)[None, :]
        pointer = logits + base[:, None] + c.to(tl.int64)[None, :] * stride_c
        x = tl.load(pointer, mask=inside, other=float("-inf")).to(tl.float32)
        is_target = c[None, :] == y[:, None]
        new_top = tl.maximum(top, tl.max(x, 1))
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        others = others * tl.exp(top - shift)
        others += tl.sum(tl.where(is_target, 0.0, tl.exp(x - shift[:, None])), 1)
        at_target += tl.sum(tl.where(is_target & inside, x, 0.0), 1)
        if SMOOTH:
            sum_x += tl.sum(tl.where(inside, x, 0.0), 1)
        top = new_top
    of_target = tl.exp(at_target - shift)
    total = others + of_target
    lse = shift + tl.log(total)
    q = others / total  # 1 - p_t, from the other classes: all its digits are right
    # -log p_t as log1p where p_t is close to 1 (the ratio of Kahan)
    ratio = others / of_target
    u = 1.0 + ratio
    near_one = tl.where(u == 1.0, ratio, tl.log(u) * (ratio / (u - 1.0)))
    nll = tl.where(of_target > others, near_one, lse - at_target)
    value = nll
    if SMOOTH:
        value = (1.0 - smoothing) * nll + smoothing * (lse - sum_x / num_classes)
    factor = tl.full([ROWS], 1.0, tl.float32)
    slope = factor
    if FOCAL:
        factor = tl.where(q > 0.0, tl.exp(gamma * tl.log(q)), 0.0 * q)
        # value / q alone may overflow where factor is 0: smoothing leaves a value at q = 0
        steep = gamma * (of_target / total) * (factor * value / tl.maximum(q, 1e-30))
        # where the loss is infinite its gradient is that of cross-entropy
        infinite = value == float("inf")
        factor = tl.where(infinite, 1.0, factor)
        slope = factor + tl.where(infinite | (of_target == 0.0), 0.0, steep)
        value = value * factor
    # a class that does not exist must not pass for one
    exists = (y >= 0) & (y < num_classes)
    value = tl.where(exists, value, float("nan"))
    slope = tl.where(exists, slope, float("nan"))
    tl.store(loss + row, tl.where(live, value, 0.0), mask=in_range)
    # added to row, which is int64: 2 * num_rows may not fit into num_rows's int32
    second = row + num_rows
    third = second + num_rows
    tl.store(stats + row, lse, mask=in_range)
    tl.store(stats + second, q, mask=in_range)
    tl.store(stats + third, slope, mask=in_range)
    if FOCAL and SMOOTH:
        tl.store(stats + (third + num_rows), factor, mask=in_range)


@triton.jit
def _backward_kernel(
    logits,
    target,
    stats,
    grad_loss,
    grad_logits,
    num_rows,
    num_classes,
    inner,
    stride_n,
    stride_c,
    stride_s,
    out_stride_n,
    out_stride_c,
    out_stride_s,
    ignore_index,
    smoothing,
    FOCAL: tl.constexpr,
    SMOOTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Gradient of ROWS samples by COLS logits; samples without gradient are not read."""
    # one dimension of the grid for both, since CUDA allows no more than 65,535 in the second
    program = tl.program_id(0).to(tl.int64)
    row_blocks = (num_rows - 1) // ROWS + 1
    row = program % row_blocks * ROWS + tl.arange(0, ROWS)
    in_range = row < num_rows
    y = tl.load(target + row, mask=in_range, other=0)
    grad = tl.load(grad_loss + row, mask=in_range, other=0.0).to(tl.float32)
    active = in_range & (y != ignore_index) & (grad != 0.0)
    lse = tl.load(stats + row, mask=active, other=0.0)
    second = row + num_rows
    third = second + num_rows
    q = tl.load(stats + second, mask=active, other=0.0)
    slope = tl.load(stats + third, mask=active, other=0.0)
    c = program // row_blocks * COLS + tl.arange(0, COLS)
    column = (c < num_classes)[None, :]
    n, s = row // inner, row % inner
    pointer = logits + (n * stride_n + s * stride_s)[:, None] + c[None, :] * stride_c
    x = tl.load(pointer, mask=active[:, None] & column, other=float("-inf")).to(tl.float32)
    is_target = c[None, :] == y[:, None]
    p = tl.exp(x - lse[:, None])
    out = slope[:, None] * tl.where(is_target, -q[:, None], p)
    if SMOOTH:
        factor = slope
        if FOCAL:
            factor = tl.load(stats + (third + num_rows), mask=active, other=0.0)
        uniform = tl.where(is_target, 1.0, 0.0) - 1.0 / num_classes
        out += (smoothing * factor)[:, None] * uniform
    out = tl.where(active[:, None], grad[:, None] * out, 0.0)
    pointer = grad_logits + (n * out_stride_n + s * out_stride_s)[:, None]
    pointer += c[None, :] * out_stride_c
    tl.store(pointer, out.to(grad_logits.dtype.element_ty), mask=in_range[:, None] & column)


def _tile(num_classes: int, stride_c: int) -> dict[str, int]:
    """How many samples and classes one program holds, by which of them lie side by side."""
    columns = triton.next_power_of_2(num_classes)
    if stride_c == 1:
        columns = min(columns, 8192)
        rows = min(max(8192 // columns, 1), 128)
        return {"ROWS": rows, "COLS": columns, "num_warps": 8}
    return {"ROWS": 128, "COLS": min(columns, 32), "num_warps": 4}


def _forward(
    logits: Tensor, target: Tensor, gamma: float, ignore_index: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The losses, and the three or four numbers for each that the backward pass needs."""
    # (N, C, S): S positions for each of the N; a view wherever the strides allow one
    flat = logits.reshape(*logits.shape[:2], -1)
    num_rows, num_classes = target.numel(), flat.shape[1]
    focal, smooth = gamma != 0, label_smoothing != 0
    loss = torch.empty_like(target, dtype=torch.float32)
    stats = loss.new_empty(4 if focal and smooth else 3, num_rows)
    tile = _tile(num_classes, flat.stride(1))
    with torch.cuda.device_of(flat):  # Triton launches on the current device
        _forward_kernel[(triton.cdiv(num_rows, tile["ROWS"]),)](
            flat,
            target,
            loss,
            stats,
            num_rows,
            num_classes,
            flat.shape[2],
            *flat.stride(),
            ignore_index,
            gamma,
            label_smoothing,
            FOCAL=focal,
            SMOOTH=smooth,
            **tile,
        )
    return loss, stats


def _backward(
    logits: Tensor,
    target: Tensor,
    stats: Tensor,
    grad: Tensor,
    gamma: float,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    flat = logits.reshape(*logits.shape[:2], -1)
    gradient = torch.empty_like(flat)
    num_rows, num_classes = target.numel(), flat.shape[1]
    tile = _tile(num_classes, flat.stride(1))
    blocks = triton.cdiv(num_rows, tile["ROWS"]) * triton.cdiv(num_classes, tile["COLS"])
    with torch.cuda.device_of(flat):
        _backward_kernel[(blocks,)](
            flat,
            target,
            stats,
            grad.contiguous(),
            gradient,
            num_rows,
            num_classes,
            flat.shape[2],
            *flat.stride(),
            *gradient.stride(),
            ignore_index,
            label_smoothing,
            FOCAL=gamma != 0,
            SMOOTH=label_smoothing != 0,
            **tile,
        )
    return gradient.reshape(logits.shape)


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        gamma: float,
        ignore_index: int,
        label_smoothing: float,
    ) -> Tensor:
        target = target.contiguous()
        loss, stats = _forward(logits.detach(), target, gamma, ignore_index, label_smoothing)
        ctx.save_for_backward(logits, target, stats)
        ctx.arguments = gamma, ignore_index, label_smoothing
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, stats = ctx.saved_tensors
        gamma, ignore_index, label_smoothing = ctx.arguments
        twice = torch.is_grad_enabled()  # a second derivative is asked for
        if twice or not is_plain(grad):  # or many gradients at once (is_grads_batched=True)
            with torch.enable_grad():
                loss = softmax_loss_reference(
                    logits, target, gamma, None, ignore_index, label_smoothing
                )
            [gradient] = torch.autograd.grad(loss, logits, grad.to(loss.dtype), create_graph=twice)
        else:
            gradient = _backward(logits, target, stats, grad, *ctx.arguments)
        return gradient, None, None, None, None


def softmax_loss(
    logits: Tensor, target: Tensor, gamma: float, ignore_index: int, label_smoothing: float
) -> Tensor:
    """Per-sample focal loss (cross-entropy where gamma is 0) in float32.

    logits ``(N, C, ...)`` in float32, bfloat16 or float16; target ``(N, ...)`` int64.
    """
    # Triton would take a number in a tensor for a pointer
    numbers = float(gamma), int(ignore_index), float(label_smoothing)
    loss: Tensor = _SoftmaxLoss.apply(logits, target, *numbers)
    return loss


def try_out(device: torch.device, dtype: torch.dtype) -> None:
    """Compile and launch both kernels once, with everything in them that a GPU may lack."""
    logits = torch.zeros(1, 2, dtype=dtype, device=device)
    target = torch.zeros(1, dtype=torch.int64, device=device)
    arguments = 2.0, -100, 0.1
    loss, stats = _forward(logits, target, *arguments)
    _backward(logits, target, stats, loss, *arguments)
