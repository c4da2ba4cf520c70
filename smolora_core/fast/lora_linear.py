"""LoRA layers computed in fewer passes; the layers, their parameters and what is saved stay PEFT's.

PEFT computes an adapter in float32 beside a bfloat16 base: it casts the input and keeps the copy for the way back, makes the
update in full size, scales it, adds it in mixed precision and casts the sum. Here the small matrices are cast instead, the
scale is folded into one of them, and the update is added by the product that makes it. The master weights and their
gradients stay float32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners import lora
from torch import Tensor, nn

_drawn_by: ContextVar[torch.Generator | None] = ContextVar("_drawn_by", default=None)


@contextmanager
def drawing(generator: torch.Generator) -> Iterator[None]:
    """Let a generator of its own say what is dropped, on a processor."""
    token = _drawn_by.set(generator)
    try:
        yield
    finally:
        _drawn_by.reset(token)


def use_fast_lora(model: nn.Module) -> tuple[int, Callable[[], None]]:
    """Speed up every plain LoRA layer of a model.

    Returns:
        How many there are, and what undoes it.
    """
    layers = [each for each in model.modules() if type(each) is lora.Linear and type(each.base_layer) is nn.Linear]
    for layer in layers:
        layer.__class__ = _FastLinear

    def undo() -> None:
        for layer in layers:
            layer.__class__ = lora.Linear

    return len(layers), undo


class _FastLinear(lora.Linear):
    """PEFT's layer; it computes as PEFT does whatever is not one plain active adapter."""

    def forward(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        active = [name for name in self.active_adapters if name in self.lora_A]
        base: Any = self.base_layer
        if self.disable_adapters or self.merged or len(active) != 1 or arguments or named or not _is_plain(self, active[0], x):
            return super().forward(x, *arguments, **named)
        name = active[0]
        dropout: Any = self.lora_dropout[name]
        scaling = self.scaling[name]
        small, dropped = x, None
        if dropout.training and getattr(dropout, "p", 0.0):
            if x.device.type == "cpu":
                dropped, share = _draw(x, dropout.p)
                scaling /= 1 - share
            else:
                small = dropout(x)
        weights = (self.lora_A[name].weight, self.lora_B[name].weight)
        return cast("Tensor", _Update.apply(x, small, dropped, base.weight, base.bias, *weights, scaling))  # type: ignore[no-untyped-call]


def _draw(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Draw what is dropped, and say which share of all that is: p to 16 bits, of which a processor draws four at a time."""
    limit = max(1, round(p * 2**16))
    drawn = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None, generator=_drawn_by.get())
    return (drawn.view(torch.int16)[: x.numel()] < limit - 2**15).view(x.shape), limit / 2**16


def _is_plain(layer: Any, name: str, x: Tensor) -> bool:
    base = layer.base_layer
    return (
        name not in layer.lora_variant
        and not layer.lora_bias[name]
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
        and x.dtype == base.weight.dtype
        and not torch.is_autocast_enabled(x.device.type)
    )


class _Update(torch.autograd.Function):
    """`x W' + b + s (d A') B'`, where W is frozen and `d` is x, x after dropout, or x without what is dropped here."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        small: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
    ) -> Tensor:
        kept = small if dropped is None else small.masked_fill(dropped, 0)
        flat = kept.reshape(-1, kept.shape[-1])
        inner = flat @ a.to(x.dtype).T
        output = F.linear(x, weight, bias)
        output.view(-1, output.shape[-1]).addmm_(inner, (b * scaling).to(x.dtype).T)
        ctx.save_for_backward(flat, inner, dropped, weight, a, b)
        ctx.scaling, ctx.same, ctx.shape = scaling, small is x, x.shape
        return output

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, dropped, weight, a, b = ctx.saved_tensors
        given = outputs[0].reshape(-1, outputs[0].shape[-1])
        d_inner = given @ (b * ctx.scaling).to(given.dtype)
        d_x = d_small = d_a = d_b = None
        if ctx.needs_input_grad[5]:
            d_a = (d_inner.T @ flat).to(a.dtype)
        if ctx.needs_input_grad[6]:
            d_b = (given.T @ inner).to(b.dtype) * ctx.scaling
        down = a.to(given.dtype)
        if ctx.needs_input_grad[0]:
            d_x = given @ weight
            if dropped is not None:
                d_x += (d_inner @ down).masked_fill_(dropped.view(d_x.shape), 0)
            elif ctx.same:
                d_x.addmm_(d_inner, down)
            d_x = d_x.view(ctx.shape)
        if ctx.needs_input_grad[1] and not ctx.same:
            d_small = (d_inner @ down).view(ctx.shape)
        return d_x, d_small, None, None, None, d_a, d_b, None
