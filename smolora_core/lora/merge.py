"""Merge an adapter into its base model."""

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import torch

from smolora_core.errors import ModelLoadError
from smolora_core.lora.modules_to_save import train_in_float32
from smolora_core.model.quantised import dequantised, is_quantised


def merge_and_save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Save the base model with the adapter merged into it as a plain transformers folder; quantised weights are dequantised.

    Args:
        model: a `PeftModel`; it is not changed.
        tokenizer: the tokenizer to save with the model.
        folder: the folder to write; it must be empty or not exist.

    Returns:
        The folder.

    Raises:
        ModelLoadError: the folder is not empty, or the merged weights are not finite.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ModelLoadError(f"the folder {str(folder)!r} is not empty", hint="choose a new folder")
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
    """Whether all tied weights are still shared; PEFT compares a head tied to a decoder with the encoder's embeddings."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    return all(weights[one] is weights[other] for one, other in model.all_tied_weights_keys.items())


def with_plain_weights(model: Any) -> Any:
    """Copy a model with its adapter onto a dequantised base, whose weights are the ones the adapter was trained on.

    Quantised weights would round the merged update away.
    """
    config, dtype = model.peft_config["default"], model.get_base_model().dtype
    base = copy.deepcopy(model).unload()
    for name, module in list(base.named_modules()):
        if is_quantised(module):
            base.set_submodule(name, dequantised(module, dtype))
        elif hasattr(module, "dequantised"):
            base.set_submodule(name, module.dequantised())
    base.tie_weights()
    base.hf_quantizer.remove_quantization_config(base)
    adapted = peft.get_peft_model(base, copy.deepcopy(config))
    train_in_float32(adapted)
    peft.set_peft_model_state_dict(adapted, peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    return adapted
