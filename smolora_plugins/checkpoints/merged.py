"""The base model with the adapter merged in, for tools that do not support adapters."""

from pathlib import Path

from smolora_core.checkpoints import Checkpoint
from smolora_core.lora import merge_and_save


def write_merged(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a plain transformers folder, `merged`, in the base model's dtype; this needs memory for a second model."""
    merge_and_save(checkpoint.model, checkpoint.tokenizer, directory / "merged")
