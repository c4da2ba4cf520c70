"""Crash-safe checkpoints for your own training loop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolora_core.checkpoints.lock import lock_folder, run_id_of
from smolora_core.checkpoints.retention import Committed, Keep
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.checkpoints.store import Store


class CheckpointManager:
    """Save checkpoints of a model to a folder, list them, and find the latest.

    Args:
        base_dir: the folder; the first save creates it.
        keep: which earlier checkpoints survive a save; None keeps them all.

    Example:
        manager = CheckpointManager("runs/mine")
        manager.save_checkpoint(model, step=100, metrics={"eval_loss": 0.4}, config={"lr": 2e-4})
        manager.latest()  # runs/mine/checkpoint-100
    """

    def __init__(self, base_dir: str | Path, keep: Keep | None = None) -> None:
        self.base_dir = Path(base_dir)
        self.keep = keep

    def save_checkpoint(
        self, model: Any, step: int, metrics: Mapping[str, float] | None = None, config: Mapping[str, Any] | None = None
    ) -> Path:
        """Commit a checkpoint, list it in `checkpoint_metadata.json`, and return its folder, `checkpoint-<step>`.

        Args:
            model: a `PeftModel` (saved as an adapter), a transformers model, or any module (saved as `model.safetensors`).
            step: the optimizer step; a checkpoint of the same step is replaced.
            metrics: values by name, such as `eval_loss`; a value that is not finite is written as null.
            config: settings to record; plain JSON values.

        Raises:
            CheckpointError: the checkpoint could not be written; earlier ones are unchanged.
            ConfigError: a run or another process is writing to the folder.
        """
        checkpoint = Checkpoint(step=step, model=model, tokenizer=None, metrics=metrics or {}, config=config or {})
        with lock_folder(self.base_dir) as lock:
            store = Store(folder=self.base_dir, run_id=lock.run_id, keep=self.keep)
            store.recover()
            return store.commit(checkpoint, [("model", _write_model)])

    def list(self) -> tuple[Committed, ...]:
        """List the checkpoints with their manifests, oldest first."""
        return tuple(self._store().found())

    def latest(self) -> Path | None:
        """Return the latest checkpoint whose files all match its manifest, or None."""
        newest = self._store().newest_valid().committed
        return newest.place if newest else None

    def _store(self) -> Store:
        return Store(folder=self.base_dir, run_id=run_id_of(self.base_dir))


def _write_model(checkpoint: Checkpoint, directory: Path) -> None:
    model = checkpoint.model
    if hasattr(model, "peft_config"):
        from smolora_core.lora.saving import save_adapter

        save_adapter(model, directory)
    elif hasattr(model, "save_pretrained"):
        model.save_pretrained(directory)
    else:
        from safetensors.torch import save_model

        save_model(model, str(directory / "model.safetensors"))
