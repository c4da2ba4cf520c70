"""Bases whose frozen weights are quantised: which modules are, and the same model with plain weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


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
