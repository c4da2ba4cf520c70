"""Read a saved adapter back and compare it with the one in memory."""

from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file

from smolora_core.errors import CheckpointError

__all__ = ["prove_saved"]


def prove_saved(model: Any, folder: Path) -> int:
    """Compare every tensor of a saved adapter with the trained one, bit by bit.

    Returns:
        The number of tensors compared.

    Raises:
        CheckpointError: one is missing, surplus, different or not finite.
    """
    saved = load_file(folder / "adapter_model.safetensors")
    trained = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    if differing := sorted(saved.keys() ^ trained.keys()):
        raise CheckpointError(
            f"the saved adapter has other tensors than the trained one, {differing[0]!r} among them", where=str(folder)
        )
    for name, tensor in trained.items():
        if not torch.equal(saved[name], tensor.detach().cpu()):
            raise CheckpointError(f"tensor {name!r} is not what was trained", where=str(folder))
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"tensor {name!r} has values that are not finite", where=str(folder))
    return len(trained)
