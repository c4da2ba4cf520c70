"""Bases whose frozen weights are quantised: which modules are, and the same model with plain weights."""

import copy
from collections.abc import Iterable
from typing import Any

import peft
import torch
from peft.utils.integrations import dequantize_module_weight
from torch import nn
from transformers.pytorch_utils import Conv1D

from smolora_core.lora.modules_to_save import train_in_float32


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer is a quantised one: of bitsandbytes, or with a weight of torchao's."""
    homes = (type(module).__module__, type(getattr(module, "weight", None)).__module__)
    return isinstance(module, nn.Linear) and any(home.startswith(("bitsandbytes.", "torchao.")) for home in homes)


def unquantisable(auto: Any, config: Any) -> str:
    """Name the class of a model with Conv1D layers, as GPT-2 has, or nothing: no library quantises these.

    Args:
        auto: the transformers class that loads it.
        config: the model's.
    """
    with torch.device("meta"):
        shell = auto.from_config(config)
    return type(shell).__name__ if any(isinstance(each, Conv1D) for each in shell.modules()) else ""


def leave_out(quantisation: Any, model: Any, names: Iterable[str]) -> bool:
    """Let a quantisation leave modules as they are, in the next model that is loaded with it.

    Args:
        quantisation: the config, of transformers; it is changed.
        model: loaded with it.
        names: modules, of which some may be quantised.

    Returns:
        Whether some were.
    """
    found = [name for name in names if is_quantised(model.get_submodule(name))]
    key = "llm_int8_skip_modules" if hasattr(quantisation, "llm_int8_skip_modules") else "modules_to_not_convert"
    if found:
        setattr(quantisation, key, [*model.hf_quantizer.modules_to_not_convert, *found])
    return bool(found)


def leave_file(model: nn.Module) -> None:
    """Copy weights that were not quantised: they are windows onto the file, and keep all that was read of it in memory."""
    for each in model.parameters():
        if each.is_floating_point() and each.device.type == "cpu":
            each.data = each.data.clone()


def with_plain_weights(model: Any) -> Any:
    """Copy a model with its adapter onto a base of plain weights: those that the quantised ones stand for.

    Merged into quantised weights an adapter would be rounded away; these are the weights that it was trained on.
    """
    config, dtype = model.peft_config["default"], model.get_base_model().dtype
    base = copy.deepcopy(model).unload()
    for name, module in list(base.named_modules()):
        if is_quantised(module):
            base.set_submodule(name, _plain(module, dtype))
        elif hasattr(module, "dequantised"):
            base.set_submodule(name, module.dequantised())
    base.tie_weights()
    base.hf_quantizer.remove_quantization_config(base)
    made = peft.get_peft_model(base, copy.deepcopy(config))
    train_in_float32(made)
    peft.set_peft_model_state_dict(made, peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    return made


def _plain(module: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    made = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    made.weight = nn.Parameter(dequantize_module_weight(module).to(dtype), requires_grad=False)
    made.bias = module.bias
    return made
