"""Trade time for memory: layers keep their inputs only, and are computed again on the way back."""

from typing import Any

from smolora_core import ConfigError, RunContext


class CheckpointLayers:
    """Checkpoints every layer, or every n-th."""

    offload = False

    def __init__(self, *, every_n_layers: int) -> None:
        """Say which layers."""
        self._every_n_layers = every_n_layers

    def model_ready(self, model: Any, run: RunContext) -> None:
        """Switch checkpointing on; random numbers are drawn as before, so that gradients are the same."""
        base = model.get_base_model()
        if base.is_activation_checkpointing:
            hint = "choose one of activation-checkpointing and offload-activations"
            raise ConfigError("the layers are checkpointed already", where="memory:", hint=hint)
        try:
            base.activation_checkpointing_enable(
                {"use_reentrant": False}, every_n_layers=self._every_n_layers, offload=self.offload
            )
        except ValueError as error:
            raise ConfigError(f"{type(base).__name__} cannot be checkpointed", where="memory:") from error


class OffloadLayers(CheckpointLayers):
    """Checkpoints layers, and keeps their inputs in the memory of the processor."""

    offload = True
