"""Fold an adapter into its base model."""

import copy
from pathlib import Path
from typing import Any

import torch

from smolora_core.errors import ModelLoadError

__all__ = ["merge"]


def merge(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Write the base model with the adapter folded in, as a plain transformers folder.

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
        with torch.no_grad():
            merged = copy.deepcopy(model).merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelLoadError(f"the adapter cannot be merged ({error})") from error
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
