"""Fused LoRA layers; the layers, their parameters and the saved adapter stay PEFT's.

Beside a bfloat16 base, PEFT computes an adapter in float32: it casts the input and keeps the copy for the backward pass, makes
the full-size update, scales it, adds it in mixed precision and casts the sum. Here the small matrices are cast instead, one of
them is scaled, and the product that computes the update also adds it. The master weights and their gradients stay float32.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners import lora
from torch import Tensor, nn

from smolora_core.lora.dropout import draw_dropped


def use_fast_lora(model: nn.Module) -> tuple[int, Callable[[], None]]:
    """Fuse every plain LoRA layer of a model; return the number of layers and a function that restores them."""
    layers = [module for module in model.modules() if type(module) is lora.Linear and type(module.base_layer) is nn.Linear]
    for layer in layers:
        layer.__class__ = _FastLinear

    def undo() -> None:
        for layer in layers:
            layer.__class__ = lora.Linear

    return len(layers), undo


class _FastLinear(lora.Linear):
    """PEFT's layer, fused when exactly one plain adapter is active."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        active = [name for name in self.active_adapters if name in self.lora_A]
        base: Any = self.base_layer
        if self.disable_adapters or self.merged or len(active) != 1 or args or kwargs or not _is_plain(self, active[0], x):
            return super().forward(x, *args, **kwargs)
        name = active[0]
        dropout: Any = self.lora_dropout[name]
        scaling = self.scaling[name]
        adapter_input, dropped = x, None
        if dropout.training and getattr(dropout, "p", 0.0):
            if x.device.type == "cpu":
                dropped, share = draw_dropped(x, dropout.p, getattr(dropout, "number", 0))
                scaling /= 1 - share
            else:
                adapter_input = dropout(x)
        weights = (self.lora_A[name].weight, self.lora_B[name].weight)
        return cast("Tensor", _Update.apply(x, adapter_input, dropped, base.weight, base.bias, *weights, scaling))  # type: ignore[no-untyped-call]


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
    """`x W' + b + s (d A') B'` with W frozen, where d is the adapter's input: x, x after dropout, or x without `dropped`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        adapter_input: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
    ) -> Tensor:
        kept = adapter_input if dropped is None else adapter_input.masked_fill(dropped, 0)
        flat = kept.reshape(-1, kept.shape[-1])
        inner = flat @ a.to(x.dtype).T
        output = F.linear(x, weight, bias)
        output.view(-1, output.shape[-1]).addmm_(inner, (b * scaling).to(x.dtype).T)
        ctx.save_for_backward(flat, inner, dropped, weight, a, b)
        ctx.scaling, ctx.is_same_input, ctx.shape = scaling, adapter_input is x, x.shape
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, dropped, weight, a, b = ctx.saved_tensors
        d_output = grad_outputs[0].reshape(-1, grad_outputs[0].shape[-1])
        d_inner = d_output @ (b * ctx.scaling).to(d_output.dtype)
        d_x = d_adapter_input = d_a = d_b = None
        if ctx.needs_input_grad[5]:
            d_a = (d_inner.T @ flat).to(a.dtype)
        if ctx.needs_input_grad[6]:
            d_b = (d_output.T @ inner).to(b.dtype) * ctx.scaling
        a = a.to(d_output.dtype)
        if ctx.needs_input_grad[0]:
            d_x = d_output @ weight
            if dropped is not None:
                d_x += (d_inner @ a).masked_fill_(dropped.view(d_x.shape), 0)
            elif ctx.is_same_input:
                d_x.addmm_(d_inner, a)
            d_x = d_x.view(ctx.shape)
        if ctx.needs_input_grad[1] and not ctx.is_same_input:
            d_adapter_input = (d_inner @ a).view(ctx.shape)
        return d_x, d_adapter_input, None, None, None, d_a, d_b, None
