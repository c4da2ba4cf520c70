"""The adapter as PEFT saves it, so that PEFT and transformers load it without SmoLoRA."""

from pathlib import Path

from smolora_core.checkpoints import Checkpoint


def write_adapter(checkpoint: Checkpoint, directory: Path) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json` and the tokenizer's files.

    An adapter with a trained head also gets the model's `config.json`, which names the head's labels.
    """
    # Left to decide for itself whether to save embeddings, PEFT queries the hub on every save.
    checkpoint.model.save_pretrained(directory, save_embedding_layers=False)
    if checkpoint.model.peft_config["default"].modules_to_save:
        checkpoint.model.get_base_model().config.save_pretrained(directory)
    checkpoint.tokenizer.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
