"""Fold an adapter into its base model."""

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils.integrations import dequantize_module_weight
from torch import nn

from smolora_core.errors import ModelLoadError
from smolora_core.lora.modules_to_save import train_in_float32
from smolora_core.model.quantised import is_quantised


def merge_and_save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Write the base model with the adapter folded in, as a plain transformers folder; quantised weights become plain ones.

    Args:
        model: a `PeftModel`; it stays as it is.
        tokenizer: saved beside the model.
        folder: to write to; it must be empty or not there.

    Raises:
        ModelLoadError: the folder holds something already, or the merged weights are not finite.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ModelLoadError(f"the folder {str(folder)!r} is not empty", hint="name a new one")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied", category=UserWarning)
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            quantised = getattr(model.get_base_model(), "is_quantized", False)
            merged = (with_plain_weights(model) if quantised else copy.deepcopy(model)).merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelLoadError(f"the adapter cannot be merged ({error})") from error
    if getattr(model.config, "tie_word_embeddings", False) and _is_tied(merged):
        merged.config.tie_word_embeddings = True
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _is_tied(model: Any) -> bool:
    """Whether all weights that were tied still are one; PEFT compares a head that is tied to a decoder with the encoder."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    return all(weights[one] is weights[other] for one, other in model.all_tied_weights_keys.items())


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
