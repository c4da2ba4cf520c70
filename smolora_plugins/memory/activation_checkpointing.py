"""Activation checkpointing: layers keep only their inputs, and are recomputed in the backward pass."""

from typing import Any

from smolora_core import ConfigError, RunContext


class CheckpointLayers:
    """Checkpoint every n-th layer."""

    offload = False

    def __init__(self, *, every_n_layers: int) -> None:
        self._every_n_layers = every_n_layers

    def model_ready(self, model: Any, run: RunContext) -> None:
        """Enable checkpointing; recomputation restores the random state, so gradients are unchanged."""
        base = model.get_base_model()
        if base.is_activation_checkpointing:
            hint = "use either activation-checkpointing or offload-activations"
            raise ConfigError("activation checkpointing is already on", where="memory:", hint=hint)
        try:
            base.activation_checkpointing_enable(
                {"use_reentrant": False}, every_n_layers=self._every_n_layers, offload=self.offload
            )
        except ValueError as error:
            raise ConfigError(f"{type(base).__name__} does not support activation checkpointing", where="memory:") from error


class OffloadLayers(CheckpointLayers):
    """Checkpoint layers, and keep their inputs in CPU memory."""

    offload = True
