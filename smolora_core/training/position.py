"""Where a run stands in training: the loop's record, which a checkpoint keeps in transformers' state file."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import transformers
from transformers.trainer_callback import ExportableState

from smolora_core.errors import CheckpointError

STATE_FILE = "trainer_state.json"
_OURS = "SmoLoRA"


@attrs.define(kw_only=True)
class Position:
    """What `transformers.TrainerState`, which counts the steps, does not cover.

    Attributes:
        epoch: the epoch of the next step, or the pass over streamed rows.
        done: units of that epoch trained so far: rows, or micro-batches filled up to a token budget.
        units: the number of units in an epoch; 0 for a stream.
        per_step: the number of units in an optimizer step, over all processes.
        tokens: tokens trained on, without padding, over all processes.
        skipped: optimizer steps in a row skipped just before.
        metrics: metrics of the last evaluation.
        metrics_before: metrics of the evaluation before the first step.
        evaluated_at: the step of the last evaluation.
        evaluation_due: whether this step's evaluation was interrupted and must run first on resume.
        logged_at: the step of the last log line.
        since_log: the sum of losses and their weight since then; nothing if no step since then has a loss.
        in_all: the sum of losses and their weight since the first step.
        best_metrics: metrics of the best evaluation; empty before the first one.
        seconds: seconds spent training.
        scheduler: the scheduler's `state_dict()`.
        scaler: the `state_dict()` of fp16's gradient scaler.
    """

    epoch: int = 0
    done: int = 0
    units: int = 0
    per_step: int = 1
    tokens: int = 0
    skipped: int = 0
    metrics: dict[str, float] = attrs.field(factory=dict)
    metrics_before: dict[str, float] = attrs.field(factory=dict)
    evaluated_at: int = -1
    evaluation_due: bool = False
    logged_at: int = 0
    since_log: Sequence[float] = ()
    in_all: Sequence[float] = ()
    best_metrics: dict[str, float] = attrs.field(factory=dict)
    seconds: float = 0.0
    scheduler: dict[str, Any] = attrs.field(factory=dict)
    scaler: dict[str, Any] | None = None

    def add_loss(self, loss: float, weight: float) -> None:
        """Count the sum of a step's losses, and its weight, in the means that are logged."""
        for name in ("since_log", "in_all"):
            before = getattr(self, name) or (0.0, 0.0)
            setattr(self, name, (before[0] + loss, before[1] + weight))

    def take_mean(self) -> float | None:
        """Return the mean loss since the last log line, and start the next one; None if no step since then has a loss."""
        sums, self.since_log = self.since_log, ()
        return mean(*sums) if sums else None

    def next_epoch(self) -> None:
        """Go to the start of the next epoch, unless this one has not begun."""
        if self.done:
            self.epoch, self.done = self.epoch + 1, 0

    def fit_to(self, units: int, per_step: int) -> None:
        """Keep the place in the epoch if a step has another size, or keep its share if an epoch is cut into other units."""
        if self.units and units != self.units:
            self.done = self.done * units // self.units
        self.units, self.per_step = units, per_step


def mean(loss: float, weight: float) -> float:
    """Return a mean loss; the sum where nothing has a weight."""
    return loss / weight if weight else loss


def write_position(folder: Path, position: Position, state: transformers.TrainerState, callbacks: list[Any]) -> None:
    """Write a file that `TrainerState.load_from_json` can read, too."""
    kept: dict[str, Any] = {}
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            kept.setdefault(type(callback).__name__, []).append(callback.state())
    values = {**dataclasses.asdict(state), "stateful_callbacks": {**kept, _OURS: attrs.asdict(position)}}
    (folder / STATE_FILE).write_text(json.dumps(values, indent=1, default=float), encoding="utf-8")


def read_position(folder: Path) -> tuple[Position, transformers.TrainerState, Mapping[str, Any]]:
    """Read a run's position, its state and the states of its callbacks.

    Raises:
        CheckpointError: the file cannot be read.
    """
    file = folder / STATE_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kept = dict(values["stateful_callbacks"])
        return Position(**kept.pop(_OURS)), transformers.TrainerState(**{**values, "stateful_callbacks": kept}), kept
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"cannot read the run's progress ({error!r})", where=str(file)) from error


def restore_callbacks(kept: Mapping[str, Any], callbacks: list[Any]) -> None:
    """Restore the states of exportable callbacks; several of one class are matched by their order."""
    left = {name: list(states) for name, states in kept.items()}
    for callback in callbacks:
        if isinstance(callback, ExportableState) and left.get(type(callback).__name__):
            for name, value in left[type(callback).__name__].pop(0)["attributes"].items():
                setattr(callback, name, value)
