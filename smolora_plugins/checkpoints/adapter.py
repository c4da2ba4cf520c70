"""The adapter as PEFT saves it, so that PEFT and transformers load it without SmoLoRA."""

from pathlib import Path

from smolora_core.checkpoints import Checkpoint
from smolora_core.lora import save_adapter


def write_adapter(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the adapter's and the tokenizer's files."""
    save_adapter(checkpoint.model, directory, checkpoint.tokenizer)
