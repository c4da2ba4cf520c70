"""A model without its weights: its parameters are strided views of one small buffer, so it takes no memory.

What it computes is meaningless, but its layers behave as the real ones do.
"""

from collections.abc import Callable, Collection
from typing import Any, cast

import torch
import torch.nn.functional as F
import transformers
from accelerate.big_modeling import init_empty_weights
from torch import Tensor, nn
from transformers.initialization import no_init_weights

_SPREAD = 0.02
# Kernels require matrices aligned to 16 bytes.
_ALIGNMENT = 16
_BLOCK = 64


def empty_model(model_class: str, config: Any, dtype: torch.dtype, **arguments: Any) -> Any:
    """Build a frozen model of a transformers auto class with its parameters on torch's meta device."""
    with no_init_weights(), init_empty_weights(include_buffers=False):
        made = getattr(transformers, model_class).from_config(config, dtype=dtype, **arguments)
    made.tie_weights()
    return made.requires_grad_(False)


def fill(model: nn.Module) -> None:
    """Replace parameters on the meta device by views of a few random numbers; those of vectors are near 1."""
    empty = [each for each in model.parameters() if each.is_meta]
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(max((_span(each.shape) for each in empty), default=0), generator=generator) * _SPREAD
    cast_to = {dtype: numbers.to(dtype) for dtype in {each.dtype for each in empty}}

    def view(parameter: Tensor) -> Tensor:
        if not parameter.is_meta:
            return parameter.detach()
        if parameter.dim() < 2:
            return cast_to[parameter.dtype][: parameter.numel()].reshape(parameter.shape) + 1
        return cast_to[parameter.dtype].as_strided(parameter.shape, _strides(parameter.shape))

    replace_parameters(model, view)


def _strides(shape: torch.Size) -> tuple[int, ...]:
    """Overlap the rows of a matrix in all but one number; stacked matrices, such as experts, start 16 numbers apart."""
    return (1, 1) if len(shape) == 2 else (_ALIGNMENT, *torch.empty(shape[1:], device="meta").stride())


def _span(shape: torch.Size) -> int:
    """Count the numbers that such a view covers."""
    return (
        1 + sum((size - 1) * stride for size, stride in zip(shape, _strides(shape), strict=True))
        if len(shape) > 1
        else shape.numel()
    )


def replace_parameters(model: nn.Module, make: Callable[[Tensor], Tensor]) -> None:
    """Replace every parameter; shared ones stay shared, and trainable ones trainable."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter not in made:
                made[parameter] = nn.Parameter(make(parameter), requires_grad=parameter.requires_grad)
            module.register_parameter(name, made[parameter])


def quantise(model: Any, quantisation: Any, left: Collection[str] = ()) -> int:
    """Make linear layers allocate as quantised ones do: one dequantised weight at a time.

    Args:
        model: an `empty_model`.
        quantisation: the quantisation config of transformers.
        left: modules that are not quantised, besides the output embeddings.

    Returns:
        The bytes that quantisation saves.
    """
    head = model.get_output_embeddings()
    saved = 0
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module is not head and name not in left:
            module.__class__ = _Quantised
            saved += module.weight.nbytes - round(module.weight.numel() * _bytes_of_each(quantisation))
    return saved


def _bytes_of_each(quantisation: Any) -> float:
    """Count the bytes of a weight with its share of a scale: nf4 has one per 64 weights; int8's are negligible."""
    if not getattr(quantisation, "load_in_4bit", False):
        return 1.0
    return 0.5 + (1 if quantisation.bnb_4bit_use_double_quant else 4) / _BLOCK


class _Quantised(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- nn.Linear's name
        return cast("Tensor", _Product.apply(input, self.weight, self.bias))  # type: ignore[no-untyped-call]


class _Product(torch.autograd.Function):
    """Dequantises the weight in the forward pass, and again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, weight.clone(), bias)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return outputs[0] @ weight.clone(), None, None
