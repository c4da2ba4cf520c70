"""Sum a loss over chunks of hidden states, so that only one chunk of logits exists at a time."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LossSum = Callable[[Tensor, int], Tensor]
"""Maps a chunk of rows and the index of its first row to a 0-dimensional loss."""


def chunked_sum(hidden: Tensor, rows: int, loss_sum: LossSum, *, frozen_head: bool) -> Tensor:
    """Sum a loss over `hidden` `[n, H]` in chunks of `rows`.

    With a frozen head only `hidden` needs a gradient, which the forward pass computes while a chunk's logits exist. With a
    trained head each chunk is recomputed in the backward pass.
    """
    if torch.is_grad_enabled() and frozen_head:
        return cast("Tensor", _FrozenHeadSum.apply(hidden, rows, loss_sum))  # type: ignore[no-untyped-call]
    parts = hidden.split(rows)
    if not torch.is_grad_enabled() or len(parts) == 1:
        sums = [loss_sum(part, index * rows) for index, part in enumerate(parts)]
    else:
        sums = [checkpoint(loss_sum, part, index * rows, use_reentrant=False) for index, part in enumerate(parts)]
    return torch.stack(sums).sum()


class _FrozenHeadSum(torch.autograd.Function):
    """Saves the gradient of `hidden` instead of a graph through the head."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, rows: int, loss_sum: LossSum) -> Tensor:
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows].detach().requires_grad_()
            with torch.enable_grad():
                chunk = loss_sum(part, start)
            gradient[start : start + rows] = torch.autograd.grad(chunk, part)[0]
            total += chunk.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None


def linear_head_sum(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, loss_sum: LossSum, rows: int, cached_rows: int
) -> Tensor:
    """Sum a loss of the logits of a frozen linear head: `hidden` `[n, H]`, `weight` `[V, H]`, `bias` `[V]`.

    Two matrix products per chunk of `rows`, of many rows so that the weight is read from memory less often. Autograd passes
    over the float32 logits about a dozen times, so `loss_sum` gets only `cached_rows` at a time, which fit in the cache. The
    gradient overwrites the logits.
    """
    arguments = (hidden, weight, bias, loss_sum, rows, cached_rows)
    return cast("Tensor", _LinearHeadSum.apply(*arguments))  # type: ignore[no-untyped-call]


class _LinearHeadSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, loss_sum: LossSum, rows: int, cached_rows: int
    ) -> Tensor:
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        # One buffer for all chunks: page-faulting fresh memory costs CPU time.
        buffer = hidden.new_empty(min(rows, len(hidden)), len(weight))
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows].detach()
            logits = buffer[: len(part)]
            if bias is None:
                torch.mm(part, weight.t(), out=logits)
            else:
                torch.addmm(bias, part, weight.t(), out=logits)
            for begin in range(0, len(logits), cached_rows):
                some = logits[begin : begin + cached_rows]
                wide = some.float().detach().requires_grad_()
                with torch.enable_grad():
                    loss = loss_sum(wide, start + begin)
                some.copy_(torch.autograd.grad(loss, wide)[0])
                total += loss.detach()
            torch.mm(logits, weight, out=gradient[start : start + rows])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None, None, None, None
