"""Checkpoint writers that come with SmoLoRA."""

from collections.abc import Iterable

from smolora_core import CheckpointWriter, hookimpl


@hookimpl
def smolora_checkpoint_writers() -> Iterable[CheckpointWriter]:
    """Offer the built-in formats."""
    yield CheckpointWriter(
        name="adapter",
        summary="the adapter as a plain PEFT folder, with its tokenizer",
        implementation="smolora_plugins.checkpoints.adapter:write_adapter",
    )
    yield CheckpointWriter(
        name="merged",
        summary="the base model with the adapter folded in, in a folder of its own",
        implementation="smolora_plugins.checkpoints.merged:write_merged",
    )
