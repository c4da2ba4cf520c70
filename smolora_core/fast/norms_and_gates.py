"""Norms with frozen weights and gated MLPs, in fewer passes on the way back.

Their gradients are written down by hand. For a norm autograd would take a dozen passes over the hidden states, keep three
copies of them, and compute the gradient of a weight that is frozen; of a gated MLP it would keep one product more than is
needed. Nothing is known by name: a module is taken where the formula gives what the module gives, on random numbers, and its
gradient what autograd gives.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import activations

from smolora_core.model.device import in_mode


def use_fused_norms(model: nn.Module) -> tuple[int, Callable[[], None]]:
    """Replace the way back of every RMS norm with frozen weights.

    Returns:
        How many there are, and what undoes it.
    """
    return _replace(model, _may_be_norm, _norm_forward, lambda module: len(module.weight))


def use_fused_gates(model: nn.Module) -> tuple[int, Callable[[], None]]:
    """Replace the way back of the gate in every MLP that is gated by SiLU.

    Returns:
        How many there are, and what undoes it.
    """
    return _replace(model, _may_be_gated, _gated_forward, lambda module: module.gate_proj.in_features)


def _replace(
    model: nn.Module, may_be: Callable[[Any], bool], formula: Callable[[Any, Tensor], Tensor], width: Callable[[Any], int]
) -> tuple[int, Callable[[], None]]:
    """Give modules a class derived from theirs: a copy of the module stays whole, and `isinstance` holds."""
    taken: list[tuple[nn.Module, type]] = []
    classes: dict[type, type | None] = {}
    for module in model.modules():
        kind = type(module)
        if not may_be(module):
            continue
        if kind not in classes:
            classes[kind] = _derived(kind, may_be, formula) if _is_proved(module, formula, width(module)) else None
        if derived := classes[kind]:
            module.__class__ = derived
            taken.append((module, kind))

    def undo() -> None:
        for module, kind in taken:
            module.__class__ = kind

    return len(taken), undo


def _derived(kind: Any, may_be: Callable[[Any], bool], formula: Callable[[Any, Tensor], Tensor]) -> type:
    def forward(self: Any, hidden: Tensor) -> Tensor:
        if torch.is_grad_enabled() and hidden.requires_grad and may_be(self):
            return formula(self, hidden)
        return cast("Tensor", kind.forward(self, hidden))

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _is_proved(module: Any, formula: Callable[[Any, Tensor], Tensor], width: int) -> bool:
    """Compare the formula with the module, with its own weights and in its own dtype."""
    weight = next(module.parameters())
    if not weight.is_floating_point():
        return False
    generator = torch.Generator().manual_seed(0)
    hidden, given = (torch.randn(1, 7, width, generator=generator).to(weight.device, weight.dtype) for _ in range(2))
    hidden.requires_grad_()
    try:
        with in_mode(module, training=False), torch.enable_grad():
            expected, found = module(hidden), formula(module, hidden)
            gradient, found_gradient = (torch.autograd.grad(each, hidden, given)[0].float() for each in (expected, found))
    except (RuntimeError, TypeError):
        return False
    apart = (found_gradient - gradient).norm() / gradient.norm()
    return torch.equal(found, expected) and bool(apart < 4 * torch.finfo(weight.dtype).eps)


def _may_be_norm(module: nn.Module) -> bool:
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


def _may_be_gated(module: Any) -> bool:
    # Whatever else it has may be something that it does.
    children = {name for name, _ in module.named_children()}
    return children == {"gate_proj", "up_proj", "down_proj", "act_fn"} and isinstance(
        module.act_fn, nn.SiLU | activations.SiLUActivation
    )


def _gated_forward(module: Any, hidden: Tensor) -> Tensor:
    gated = _Gate.apply(module.gate_proj(hidden), module.up_proj(hidden))  # type: ignore[no-untyped-call]
    return cast("Tensor", module.down_proj(gated))


class _Norm(torch.autograd.Function):
    """`w * (x / rms(x))`, with statistics in float32 at least, and the product in the dtype of x."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = hidden.to(torch.float32)
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(hidden, inverse, weight)
        return weight * (wide * inverse).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        hidden, inverse, weight = ctx.saved_tensors
        normed = hidden.to(torch.float32) * inverse
        given = (outputs[0] * weight).to(torch.float32)
        along = (given * normed).mean(-1, keepdim=True)
        return given.addcmul_(normed, along, value=-1).mul_(inverse).to(hidden.dtype), None, None


class _Gate(torch.autograd.Function):
    """`silu(gate) * up`; the first factor is computed again on the way back."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        given = outputs[0]
        return torch.ops.aten.silu_backward(given * up, gate), F.silu(gate).mul_(given)
