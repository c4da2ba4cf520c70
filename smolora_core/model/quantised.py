"""Quantised base models: which layers are quantised, which must not be, and plain copies of them.

bitsandbytes replaces linear layers by classes of its own; torchao keeps the layers and replaces their weights.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer is quantised by bitsandbytes or torchao."""
    origins = (type(module).__module__, type(getattr(module, "weight", None)).__module__)
    return isinstance(module, nn.Linear) and any(name.startswith(("bitsandbytes.", "torchao.")) for name in origins)


def dequantised(module: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    """Make a plain layer from a quantised one; the bias is shared."""
    from peft.utils.integrations import dequantize_module_weight  # slow to import, and needed for merging only

    plain = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    plain.weight = nn.Parameter(dequantize_module_weight(module).to(dtype), requires_grad=False)
    plain.bias = module.bias
    return plain


def unquantisable(auto: Any, config: Any) -> str:
    """Return the class name of a model with Conv1D layers such as GPT-2, which no library quantises; empty for others."""
    with torch.device("meta"):
        model = auto.from_config(config)
    return type(model).__name__ if any(isinstance(module, Conv1D) for module in model.modules()) else ""


def exclude_modules(quantisation: Any, model: Any, names: Iterable[str]) -> bool:
    """Exclude modules from a transformers quantisation config, in place.

    Returns whether some of them are quantised in `model`, so that it must be loaded again.
    """
    quantised = [name for name in names if is_quantised(model.get_submodule(name))]
    key = "llm_int8_skip_modules" if hasattr(quantisation, "llm_int8_skip_modules") else "modules_to_not_convert"
    if quantised:
        setattr(quantisation, key, [*model.hf_quantizer.modules_to_not_convert, *quantised])
    return bool(quantised)


def copy_mapped_weights(model: nn.Module) -> None:
    """Copy weights that were not quantised: they are views of the mapped file, which would stay in memory whole."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()
