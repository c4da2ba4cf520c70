"""Built-in checkpoint writers."""

from collections.abc import Iterable

from smolora_core import CheckpointWriter, hookimpl


@hookimpl
def smolora_checkpoint_writers() -> Iterable[CheckpointWriter]:
    """Register the built-in formats."""
    yield CheckpointWriter(
        name="adapter",
        summary="the adapter as a plain PEFT folder, with the tokenizer",
        implementation="smolora_plugins.checkpoints.adapter:write_adapter",
    )
    yield CheckpointWriter(
        name="merged",
        summary="the base model with the adapter merged in, in a subfolder",
        implementation="smolora_plugins.checkpoints.merged:write_merged",
    )
