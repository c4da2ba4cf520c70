"""What a run saves, and what happens when it cannot."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs

from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.checkpoints.store import Store
from smolora_core.components import Writer
from smolora_core.errors import CheckpointError
from smolora_core.plugins.loading import describe_whole

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
        # First, so that a plugin which writes a file of the same name is the one that is named.
        state: Any = partial(_write_state, write_state)
        try:
            place = self.store.commit(self.checkpoint(step, metrics), [(_STATE, state), *self._watched()])
        except Exception as error:
            # A full disk reaches us in as many types as there are writers.
            self._failed += 1
            if self.rule == "stop" or self._failed == _FAILED_IN_A_ROW:
                raise
            text = describe_whole(error)
            self.emit("warning", text=f"{text}; training goes on, and stops if the next checkpoint cannot be written either")
            return
        self._failed = 0
        self.emit("checkpoint", step=step, path=str(place))

    def finish(self, step: int, metrics: Mapping[str, float]) -> Path:
        """Commit the final adapter.

        Raises:
            CheckpointError: it was not written.
        """
        place = self.store.commit(self.checkpoint(step, metrics), self._watched(), name="adapter")
        self.emit("checkpoint", step=step, path=str(place))
        return place

    def _watched(self) -> list[tuple[str, Writer]]:
        return [(name, partial(_write_and_look, name, writer)) for name, writer in self.writers.items()]


def _write_and_look(name: str, writer: Writer, checkpoint: Checkpoint, directory: Path) -> None:
    """Let a writer write, and see that the model is as it was: what else is saved, and the run, go on from it."""
    before = [(each, each._version, each.requires_grad) for each in checkpoint.model.parameters()]
    writer(checkpoint, directory)
    if any((each._version, each.requires_grad) != (version, trains) for each, version, trains in before):
        raise CheckpointError("changed the model", where=f"checkpoint writer {name!r}", hint="it must work on a copy")


def _write_state(write: Callable[[Path], None], checkpoint: Checkpoint, directory: Path) -> None:
    write(directory)
