"""Save an adapter, and verify that the saved one is identical to the one in memory.

A save that succeeds may still write the wrong bytes: a disk, a checkpoint writer or a merge may have changed them.
"""

from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from smolora_core.errors import CheckpointError


def save_adapter(model: Any, folder: Path, tokenizer: Any = None) -> None:
    """Save an adapter as PEFT does, so that PEFT and transformers load it without SmoLoRA.

    Writes `adapter_model.safetensors`, `adapter_config.json` and, if it is given, the tokenizer's files; for an adapter with a
    trained head also the model's `config.json`, which names the head's labels.

    Args:
        model: a `PeftModel`.
        folder: the folder to write to.
        tokenizer: the tokenizer to save with the adapter.
    """
    # Left to decide for itself whether to save embeddings, PEFT queries the hub on every save.
    model.save_pretrained(folder, save_embedding_layers=False)
    if model.peft_config["default"].modules_to_save:
        model.get_base_model().config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


def verify_saved(model: Any, folder: Path) -> int:
    """Compare every tensor of a saved adapter with the trained one, bit by bit.

    Args:
        model: the trained `PeftModel`.
        folder: the folder that PEFT saved the adapter to.

    Returns:
        The number of tensors compared.

    Raises:
        CheckpointError: the file cannot be read, or a tensor is missing, unexpected, different or not finite.
    """
    file = folder / "adapter_model.safetensors"
    try:
        saved = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the saved adapter cannot be read back ({error})", where=str(file)) from error
    trained = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    if differing := sorted(saved.keys() ^ trained.keys()):
        raise CheckpointError(
            f"the saved adapter has different tensors than the trained one (first: {differing[0]!r})", where=str(folder)
        )
    for name, tensor in trained.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"tensor {name!r} has non-finite values", where=str(folder))
        if not _same_bits(saved[name], tensor.detach().cpu()):
            raise CheckpointError(f"tensor {name!r} differs from the trained one", where=str(folder))
    return len(trained)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Compare bits rather than values, which ignore the sign of a zero."""
    same_kind = one.dtype == other.dtype and one.shape == other.shape
    return same_kind and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
