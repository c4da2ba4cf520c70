"""Checkpoints of a training loop that is not ours, as safe as those of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolora_core.checkpoints.lock import hold, run_id_of
from smolora_core.checkpoints.retention import Committed, Keep
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.checkpoints.store import Store


class CheckpointManager:
    """Saves a model of yours in a folder, and finds what was saved.

    Args:
        base_dir: the folder; the first save makes it.
        keep: what each save leaves of the earlier ones; None keeps all.

    Example:
        manager = CheckpointManager("runs/mine")
        manager.save_checkpoint(model, step=100, metrics={"eval_loss": 0.4}, config={"lr": 2e-4})
        manager.latest()  # the folder checkpoint-100
    """

    def __init__(self, base_dir: str | Path, keep: Keep | None = None) -> None:
        self.base_dir = Path(base_dir)
        self.keep = keep

    def save_checkpoint(
        self, model: Any, step: int, metrics: Mapping[str, float] | None = None, config: Mapping[str, Any] | None = None
    ) -> Path:
        """Commit a checkpoint, and list it in `checkpoint_metadata.json`.

        Args:
            model: a `PeftModel`, of which the adapter is written as PEFT does; a model of transformers, which is written as
                that does; or any module, whose tensors are written to `model.safetensors`.
            step: names the folder; an earlier checkpoint of the same step is replaced.
            metrics: such as `eval_loss`; one that is not finite is written as null.
            config: plain values.

        Returns:
            The folder `checkpoint-<step>`.

        Raises:
            CheckpointError: it could not be written; earlier ones are as they were.
            ConfigError: a run, or another process, writes in the folder.
        """
        checkpoint = Checkpoint(step=step, model=model, tokenizer=None, metrics=metrics or {}, config=config or {})
        with hold(self.base_dir) as lock:
            store = Store(folder=self.base_dir, run_id=lock.run_id, keep=self.keep)
            store.sweep()
            return store.commit(checkpoint, [("model", _write_model)])

    def list(self) -> tuple[Committed, ...]:
        """List the checkpoints, the latest save last, with what their manifests say."""
        return tuple(self._store().found())

    def latest(self) -> Path | None:
        """Find the latest checkpoint whose every file is what was written; None if there is none."""
        newest = self._store().newest_valid().committed
        return newest.place if newest else None

    def _store(self) -> Store:
        return Store(folder=self.base_dir, run_id=run_id_of(self.base_dir))


def _write_model(checkpoint: Checkpoint, directory: Path) -> None:
    model = checkpoint.model
    if hasattr(model, "peft_config"):
        # Deciding about embedding layers by itself, PEFT would ask the hub on every save.
        model.save_pretrained(directory, save_embedding_layers=False)
        (directory / "README.md").unlink(missing_ok=True)
    elif hasattr(model, "save_pretrained"):
        model.save_pretrained(directory)
    else:
        from safetensors.torch import save_model

        save_model(model, str(directory / "model.safetensors"))
