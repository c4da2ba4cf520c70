"""Sum a loss over chunks of hidden states, so that the logits of one chunk exist at a time."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LossSum = Callable[[Tensor, int], Tensor]


def chunked_sum(hidden: Tensor, rows: int, loss_sum: LossSum, *, frozen_head: bool) -> Tensor:
    """Add up a loss over rows, chunk by chunk.

    Args:
        hidden: `[n, H]`.
        rows: of a chunk.
        loss_sum: of a chunk of rows and the index of its first: a 0-dimensional tensor.
        frozen_head: whether `hidden` alone needs a gradient; it is then formed on the way forward, with each chunk's
            logits at hand. A trained head's chunks are computed a second time on the way back.
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
    """Keeps d(hidden) instead of a graph through the head."""

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
    """Add up a loss of the logits that a frozen linear head computes, with two products of matrices for each chunk.

    The products are of many rows, or the weight would be read from memory again and again. The loss is of float32 logits,
    which autograd passes through a dozen times, so it takes as few rows at a time as a processor's cache holds. The
    logits' gradient takes the logits' place.

    Args:
        hidden: `[n, H]`.
        weight: `[V, H]`.
        bias: `[V]`.
        loss_sum: of some rows' float32 logits and the index of the first.
        rows: of a chunk of logits.
        cached_rows: of a chunk of float32 logits.
    """
    given = (hidden, weight, bias, loss_sum, rows, cached_rows)
    return cast("Tensor", _LinearHeadSum.apply(*given))  # type: ignore[no-untyped-call]


class _LinearHeadSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, loss_sum: LossSum, rows: int, cached_rows: int
    ) -> Tensor:
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        # One for all chunks: memory that is new to the process costs a processor time.
        held = hidden.new_empty(min(rows, len(hidden)), len(weight))
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows].detach()
            logits = held[: len(part)]
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
