"""Where a run stands in training: the loop's record, which a checkpoint keeps in transformers' state file."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from transformers import TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from smolora_core.errors import CheckpointError, TrainingError
from smolora_core.training.order import RowOrder

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
        per_block: the number of rows of similar length that are put together.
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
    per_block: int = 0
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

    def count_steps(self, state: TrainerState, order: RowOrder, arguments: TrainingArguments, *, streams: bool) -> None:
        """Adopt the order of a run, and count its optimizer steps.

        If a step has another size than before the resume, the place in the epoch is kept; if an epoch has other units, its
        share.

        Raises:
            TrainingError: the rows do not fill a step.
        """
        if self.units and order.count != self.units:
            self.done = self.done * order.count // self.units
        self.units, self.per_step, self.per_block = order.count, order.per_step, order.per_block
        per_epoch = order.steps_per_epoch
        if per_epoch == 0 and not streams:
            what = f"{order.count} rows do not fill an optimizer step of {order.per_step}"
            raise TrainingError(what, hint="lower the batch size")
        # With steps of another size, those of this epoch may not add up to as many as an epoch has.
        ahead = order.steps_after(self.done) - (self.epoch + 1) * per_epoch
        left = max(0, math.ceil(arguments.num_train_epochs * per_epoch) + ahead)
        state.max_steps = arguments.max_steps if arguments.max_steps > 0 else state.global_step + left
        state.num_train_epochs = math.ceil(state.max_steps / per_epoch) if per_epoch else 1
        state.train_batch_size = arguments.per_device_train_batch_size
        state.compute_steps(arguments, state.max_steps)


def new_state(arguments: TrainingArguments, callbacks: Sequence[Any]) -> TrainerState:
    """Make transformers' state of a run that has not begun."""
    stateful: list[Any] = [each for each in callbacks if isinstance(each, ExportableState)]
    return TrainerState(stateful_callbacks=stateful, **_leads(arguments))


def _leads(arguments: TrainingArguments) -> dict[str, Any]:
    first, first_here = arguments.process_index == 0, arguments.local_process_index == 0
    return {"is_world_process_zero": first, "is_local_process_zero": first_here}


def mean(loss: float, weight: float) -> float:
    """Return a mean loss; the sum where nothing has a weight."""
    return loss / weight if weight else loss


def write_position(folder: Path, position: Position, state: TrainerState, callbacks: list[Any]) -> None:
    """Write a file that `TrainerState.load_from_json` can read, too."""
    kept: dict[str, Any] = {}
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            kept.setdefault(type(callback).__name__, []).append(callback.state())
    values = {**dataclasses.asdict(state), "stateful_callbacks": {**kept, _OURS: attrs.asdict(position)}}
    (folder / STATE_FILE).write_text(json.dumps(values, indent=1, default=float), encoding="utf-8")


def read_position(folder: Path, arguments: TrainingArguments) -> tuple[Position, TrainerState, Mapping[str, Any]]:
    """Read a run's position, its state and the states of its callbacks.

    Raises:
        CheckpointError: the file cannot be read.
    """
    file = folder / STATE_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kept = dict(values["stateful_callbacks"])
        return Position(**kept.pop(_OURS)), TrainerState(**{**values, "stateful_callbacks": kept, **_leads(arguments)}), kept
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"cannot read the run's progress ({error!r})", where=str(file)) from error


def restore_callbacks(kept: Mapping[str, Any], callbacks: list[Any]) -> None:
    """Restore the states of exportable callbacks; several of one class are matched by their order."""
    left = {name: list(states) for name, states in kept.items()}
    for callback in callbacks:
        if isinstance(callback, ExportableState) and left.get(type(callback).__name__):
            for name, value in left[type(callback).__name__].pop(0)["attributes"].items():
                setattr(callback, name, value)
