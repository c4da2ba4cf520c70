"""What a run saves, and what happens when it cannot."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs

from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.checkpoints.store import Store
from smolora_core.components import Writer
from smolora_core.plugins.loading import describe

__all__ = ["Saver"]

_STATE = "the trainer's state"
_FAILED_IN_A_ROW = 2


@attrs.define
class Saver:
    """Commits the checkpoints of a run.

    Attributes:
        store: where they go.
        writers: by name; one of them writes the adapter.
        checkpoint: a checkpoint of a step and its metrics.
        rule: whether the run goes on after a save that failed.
        emit: told of what is saved, and of what is not.
    """

    store: Store
    writers: Mapping[str, Writer]
    checkpoint: Callable[[int, Mapping[str, float]], Checkpoint]
    rule: Literal["warn", "stop"]
    emit: Callable[..., None]
    _failed: int = 0

    def __call__(self, step: int, metrics: Mapping[str, float], write_state: Callable[[Path], None]) -> None:
        """Commit the checkpoint of a step.

        Raises:
            CheckpointError: it was not written, and so was the one before, or `rule` is `stop`.
        """
        state: Any = partial(_write_state, write_state)
        try:
            place = self.store.commit(self.checkpoint(step, metrics), [*self.writers.items(), (_STATE, state)])
        except Exception as error:
            # A full disk reaches us in as many types as there are writers.
            self._failed += 1
            if self.rule == "stop" or self._failed == _FAILED_IN_A_ROW:
                raise
            text = " ".join([describe(error), *getattr(error, "__notes__", ())])
            self.emit("warning", text=f"{text}; training goes on, and stops if the next checkpoint cannot be written either")
            return
        self._failed = 0
        self.emit("checkpoint", step=step, path=str(place))

    def finish(self, step: int, metrics: Mapping[str, float]) -> Path:
        """Commit the final adapter.

        Raises:
            CheckpointError: it was not written.
        """
        place = self.store.commit(self.checkpoint(step, metrics), self.writers.items(), name="adapter")
        self.emit("checkpoint", step=step, path=str(place))
        return place


def _write_state(write: Callable[[Path], None], checkpoint: Checkpoint, directory: Path) -> None:
    write(directory)
