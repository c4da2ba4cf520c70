"""Save the checkpoints of a run, and decide whether the run continues when a save fails."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import attrs

from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.checkpoints.store import Store
from smolora_core.components import Writer
from smolora_core.errors import CheckpointError
from smolora_core.plugins.loading import describe_with_notes

_STATE = "the trainer's state"
_MAX_FAILURES = 2


@attrs.define
class Saver:
    """Commits the checkpoints of a run.

    Attributes:
        store: the run's checkpoints.
        writers: the checkpoint writers by name; one of them writes the adapter.
        checkpoint: makes the checkpoint of a step with its metrics.
        rule: whether a first failed save is a warning or stops the run.
        emit: receives an event for each save, and a warning for each failure.
    """

    store: Store
    writers: Mapping[str, Writer]
    checkpoint: Callable[[int, Mapping[str, float]], Checkpoint]
    rule: Literal["warn", "stop"]
    emit: Callable[..., None]
    _failures: int = 0

    def __call__(self, step: int, metrics: Mapping[str, float], write_state: Callable[[Path], None]) -> Path | None:
        """Commit the checkpoint of a step, and return its folder; None if it failed and training continues.

        Raises:
            CheckpointError: the save failed, and `rule` is `stop` or the save before it failed too.
        """
        # First, so that a plugin writing a file of the same name is the one the error names.
        state: tuple[str, Writer] = (_STATE, lambda _, directory: write_state(directory))
        try:
            place = self.store.commit(self.checkpoint(step, metrics), [state, *self._checked_writers()])
        except Exception as error:
            # Not only CheckpointError: each writer reports a full disk as its own type.
            self._failures += 1
            if self.rule == "stop" or self._failures == _MAX_FAILURES:
                raise
            text = f"{describe_with_notes(error)}; training continues, but stops if the next save fails too"
            self.emit("warning", text=text)
            return None
        self._failures = 0
        self.emit("checkpoint", step=step, path=str(place))
        return place

    def finish(self, step: int, metrics: Mapping[str, float]) -> Path:
        """Commit the final adapter.

        Raises:
            CheckpointError: the save failed.
        """
        place = self.store.commit(self.checkpoint(step, metrics), self._checked_writers(), name="adapter")
        self.emit("checkpoint", step=step, path=str(place))
        return place

    def _checked_writers(self) -> list[tuple[str, Writer]]:
        return [(name, partial(_write_checked, name, writer)) for name, writer in self.writers.items()]


def _write_checked(name: str, writer: Writer, checkpoint: Checkpoint, directory: Path) -> None:
    """Run a writer and check that it left the model alone: later writers, and the run itself, still use it."""
    before = [(each, each._version, each.requires_grad) for each in checkpoint.model.parameters()]
    writer(checkpoint, directory)
    if any((each._version, each.requires_grad) != (version, trains) for each, version, trains in before):
        raise CheckpointError("changed the model", where=f"checkpoint writer {name!r}", hint="it must work on a copy")
