"""The adapter as PEFT writes it, so that transformers and PEFT load it without us."""

from pathlib import Path

from smolora_core.checkpoints import Checkpoint


def write_adapter(checkpoint: Checkpoint, directory: Path) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json` and the tokenizer's files.

    Beside a head of its own stands the model's `config.json`, which says how many labels the head has and what they mean.
    """
    # Deciding about embedding layers by itself, PEFT would ask the hub on every save.
    checkpoint.model.save_pretrained(directory, save_embedding_layers=False)
    if checkpoint.model.peft_config["default"].modules_to_save:
        checkpoint.model.get_base_model().config.save_pretrained(directory)
    checkpoint.tokenizer.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
