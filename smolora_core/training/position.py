"""The position of a run in training, which a checkpoint keeps in the state file of transformers."""

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
_OURS = "SmoLoRATrainer"


@attrs.frozen(kw_only=True)
class Progress:
    """The state of training that `transformers.TrainerState` does not cover.

    Attributes:
        epoch: the epoch of the next micro-batch, or the pass over streamed rows.
        batches: micro-batches of that epoch trained so far.
        unit: optimizer steps per epoch and micro-batches per step; `epoch` and `batches` count in these.
        tokens: tokens each rank has trained on, without padding.
        skipped: optimizer steps in a row skipped just before.
        metrics: metrics of the last evaluation.
        metrics_before: metrics of the evaluation before the first step.
        evaluated_at: the step of the last evaluation.
        evaluation_due: whether this step's evaluation was interrupted and must run first on resume.
        loss_since_log: the sum of losses since the last log line.
        loss_before: the sum of losses before it.
        logged_at: the step of that line, plus the steps skipped since, which have no loss.
        steps_without_loss: steps skipped so far.
        seconds: seconds spent training.
        scheduler: the scheduler's `state_dict()`.
        scaler: the `state_dict()` of fp16's gradient scaler.
    """

    epoch: int
    batches: int
    unit: Sequence[int]
    tokens: list[int]
    skipped: int
    metrics: dict[str, float]
    metrics_before: dict[str, float]
    evaluated_at: int
    evaluation_due: bool
    loss_since_log: float
    loss_before: float
    logged_at: int
    steps_without_loss: int
    seconds: float
    scheduler: dict[str, Any]
    scaler: dict[str, Any] | None


def write_progress(folder: Path, progress: Progress, state: transformers.TrainerState, callbacks: list[Any]) -> None:
    """Write a file that `TrainerState.load_from_json` can read, too."""
    kept: dict[str, Any] = {}
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            kept.setdefault(type(callback).__name__, []).append(callback.state())
    values = {**dataclasses.asdict(state), "stateful_callbacks": {**kept, _OURS: attrs.asdict(progress)}}
    (folder / STATE_FILE).write_text(json.dumps(values, indent=1, default=float), encoding="utf-8")


def read_progress(folder: Path) -> tuple[Progress, Mapping[str, Any]]:
    """Read a run's progress and the states of its callbacks.

    Raises:
        CheckpointError: the file cannot be read.
    """
    file = folder / STATE_FILE
    try:
        kept = dict(json.loads(file.read_text(encoding="utf-8"))["stateful_callbacks"])
        return Progress(**kept.pop(_OURS)), kept
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"cannot read the run's progress ({error!r})", where=str(file)) from error


def continue_callbacks(kept: Mapping[str, Any], callbacks: list[Any]) -> None:
    """Restore the states of exportable callbacks; several of one class are matched by their order."""
    left = {name: list(states) for name, states in kept.items()}
    for callback in callbacks:
        if isinstance(callback, ExportableState) and left.get(type(callback).__name__):
            for name, value in left[type(callback).__name__].pop(0)["attributes"].items():
                setattr(callback, name, value)
