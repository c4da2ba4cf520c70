"""Fused backward passes for norms with frozen weights and for gated MLPs.

For a norm, autograd makes a dozen passes over the hidden states, keeps three copies of them, and computes the gradient of a
frozen weight; for a gated MLP it keeps one product too many. The gradients here are written by hand. No module is recognised
by its name: a formula replaces a module's forward only if both give the same output and gradient on random inputs.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import activations

from smolora_core.model.device import in_mode

Formula = Callable[[Any, Tensor], Tensor]


def use_fused_norms(model: nn.Module) -> tuple[int, Callable[[], None]]:
    """Fuse the backward pass of every frozen RMS norm; return the number of norms and a function that restores them."""
    return _replace(model, _is_candidate_norm, _norm_forward, lambda module: len(module.weight))


def use_fused_gates(model: nn.Module) -> tuple[int, Callable[[], None]]:
    """Fuse the gate's backward pass in every SiLU-gated MLP; return the number of MLPs and a function that restores them."""
    return _replace(model, _is_candidate_gate, _gated_forward, lambda module: module.gate_proj.in_features)


def _replace(
    model: nn.Module, is_candidate: Callable[[Any], bool], formula: Formula, width: Callable[[Any], int]
) -> tuple[int, Callable[[], None]]:
    """Replace classes by subclasses, so that copies of a module keep working and `isinstance` still holds."""
    replaced: list[tuple[nn.Module, type]] = []
    subclasses: dict[type, type | None] = {}
    for module in filter(is_candidate, model.modules()):
        original = type(module)
        if original not in subclasses:
            is_equivalent = _is_equivalent(module, formula, width(module))
            subclasses[original] = _subclass(original, is_candidate, formula) if is_equivalent else None
        if subclass := subclasses[original]:
            module.__class__ = subclass
            replaced.append((module, original))

    def undo() -> None:
        for module, original in replaced:
            module.__class__ = original

    return len(replaced), undo


def _subclass(original: Any, is_candidate: Callable[[Any], bool], formula: Formula) -> type:
    def forward(self: Any, hidden: Tensor) -> Tensor:
        if torch.is_grad_enabled() and hidden.requires_grad and is_candidate(self):
            return formula(self, hidden)
        return cast("Tensor", original.forward(self, hidden))

    return type(original.__name__, (original,), {"forward": forward, "__module__": original.__module__})


def _is_equivalent(module: Any, formula: Formula, width: int) -> bool:
    """Compare the formula with the module, on the module's weights and in its dtype."""
    weight = next(module.parameters())
    if not weight.is_floating_point():
        return False
    generator = torch.Generator().manual_seed(0)
    hidden, d_output = (torch.randn(1, 7, width, generator=generator).to(weight.device, weight.dtype) for _ in range(2))
    hidden.requires_grad_()
    try:
        with in_mode(module, training=False), torch.enable_grad():
            outputs = module(hidden), formula(module, hidden)
            expected, found = (torch.autograd.grad(output, hidden, d_output)[0].float() for output in outputs)
    except (RuntimeError, TypeError):
        return False
    error = (found - expected).norm() / expected.norm()
    return torch.equal(*outputs) and bool(error < 4 * torch.finfo(weight.dtype).eps)


def _is_candidate_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, nn.Parameter)
        and weight.dim() == 1
        and not weight.requires_grad
        and _epsilon(module) is not None
        and len(list(module.parameters())) == 1
    )


def _epsilon(module: Any) -> float | None:
    found = next((getattr(module, name) for name in ("variance_epsilon", "eps") if hasattr(module, name)), None)
    return found if isinstance(found, float) else None


def _norm_forward(module: Any, hidden: Tensor) -> Tensor:
    return cast("Tensor", _Norm.apply(hidden, module.weight, _epsilon(module)))  # type: ignore[no-untyped-call]


def _is_candidate_gate(module: Any) -> bool:
    # Any further child may be part of the computation.
    children = {name for name, _ in module.named_children()}
    return children == {"gate_proj", "up_proj", "down_proj", "act_fn"} and isinstance(
        module.act_fn, nn.SiLU | activations.SiLUActivation
    )


def _gated_forward(module: Any, hidden: Tensor) -> Tensor:
    gated = _Gate.apply(module.gate_proj(hidden), module.up_proj(hidden))  # type: ignore[no-untyped-call]
    return cast("Tensor", module.down_proj(gated))


class _Norm(torch.autograd.Function):
    """`w * (x / rms(x))`, with statistics in at least float32, and the product in the dtype of x."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        hidden32 = hidden.to(torch.float32)
        inverse_rms = torch.rsqrt(hidden32.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(hidden, inverse_rms, weight)
        return weight * (hidden32 * inverse_rms).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        hidden, inverse_rms, weight = ctx.saved_tensors
        normed = hidden.to(torch.float32) * inverse_rms
        d_normed = (grad_outputs[0] * weight).to(torch.float32)
        projection = (d_normed * normed).mean(-1, keepdim=True)
        return d_normed.addcmul_(normed, projection, value=-1).mul_(inverse_rms).to(hidden.dtype), None, None


class _Gate(torch.autograd.Function):
    """`silu(gate) * up`; the backward pass recomputes the first factor."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_output = grad_outputs[0]
        return torch.ops.aten.silu_backward(d_output * up, gate), F.silu(gate).mul_(d_output)
