"""The base model with the adapter folded in, for tools that know nothing of adapters."""

from pathlib import Path

from smolora_core.checkpoints import Checkpoint
from smolora_core.lora import merge_and_save


def write_merged(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a plain transformers folder `merged`, in the dtype of the base; while it is made, the model is in memory twice."""
    merge_and_save(checkpoint.model, checkpoint.tokenizer, directory / "merged")
