"""How far a run is: what a checkpoint says beside its tensors, in the file that transformers keeps its own state in."""

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
    """What continues, beyond `transformers.TrainerState`.

    Attributes:
        epoch: that the next micro-batch is of, or the pass over streamed rows.
        batches: of that epoch that have been trained.
        unit: optimizer steps of an epoch and micro-batches of a step, which `epoch` and `batches` are counted in.
        tokens: that each rank has computed, without padding.
        skipped: optimizer steps in a row that were not taken, up to now.
        metrics: of the last evaluation.
        metrics_before: of the evaluation before the first step.
        evaluated_at: the step of the last evaluation.
        evaluation_due: whether this step's evaluation was cut short and comes first after a resume.
        loss_since_log: sum over the steps since the last line of the log.
        loss_before: sum over the steps before that.
        logged_at: the step of that line, moved on by each skipped step since, as these have no loss.
        steps_without_loss: skipped so far.
        seconds: spent training.
        scheduler: its `state_dict()`.
        scaler: that of fp16's gradient scaler.
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
    """Write a file that `TrainerState.load_from_json` reads too."""
    kept: dict[str, Any] = {}
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            kept.setdefault(type(callback).__name__, []).append(callback.state())
    values = {**dataclasses.asdict(state), "stateful_callbacks": {**kept, _OURS: attrs.asdict(progress)}}
    # NaN is written as such, so that it is NaN again.
    (folder / STATE_FILE).write_text(json.dumps(values, indent=1, default=float), encoding="utf-8")


def read_progress(folder: Path) -> tuple[Progress, Mapping[str, Any]]:
    """Read how far a run was, and the states of its callbacks.

    Raises:
        CheckpointError: it cannot be read.
    """
    file = folder / STATE_FILE
    try:
        kept = dict(json.loads(file.read_text(encoding="utf-8"))["stateful_callbacks"])
        return Progress(**kept.pop(_OURS)), kept
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"the run's progress cannot be read ({error!r})", where=str(file)) from error


def continue_callbacks(kept: Mapping[str, Any], callbacks: list[Any]) -> None:
    """Give callbacks that export a state the one they had; of several of a class, in their order."""
    left = {name: list(states) for name, states in kept.items()}
    for callback in callbacks:
        if isinstance(callback, ExportableState) and left.get(type(callback).__name__):
            for name, value in left[type(callback).__name__].pop(0)["attributes"].items():
                setattr(callback, name, value)
