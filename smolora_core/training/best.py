"""The best evaluation so far, by the metric that the config chooses."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerState, TrainingArguments

from smolora_core.checkpoints.manifest import MANIFEST, verify
from smolora_core.checkpoints.optimizer_state import load_adapter, read_tensors
from smolora_core.checkpoints.staging import name_of
from smolora_core.errors import CheckpointError, ConfigError


def metric_of(metrics: Mapping[str, float], arguments: TrainingArguments) -> float:
    """Return the metric that decides what is best.

    Raises:
        ConfigError: the evaluation has no such metric.
    """
    name = arguments.metric_for_best_model or "eval_loss"
    if name not in metrics:
        known = [each.removeprefix("eval_") for each in metrics]
        wanted = name.removeprefix("eval_")
        hint = f"choose one of {', '.join(known)}"
        raise ConfigError(f"the evaluation has no metric {wanted!r}", where="training.metric:", hint=hint)
    return metrics[name]


def is_better(value: float, state: TrainerState, arguments: TrainingArguments) -> bool:
    """Whether a metric beats the best one so far; only a finite one does, and of equal ones the first is the best."""
    if not math.isfinite(value):
        return False
    best = state.best_metric
    return best is None or (value > best if arguments.greater_is_better else value < best)


def load_best(model: Any, state: TrainerState, arguments: TrainingArguments, warn: Callable[[str], object]) -> int | None:
    """Load the adapter of the best checkpoint, if that is not the last step's.

    Returns:
        The best step; None if the model is unchanged, because there is no better one or it cannot be read.
    """
    step = state.best_global_step
    if step in (None, state.global_step):
        return None
    folder = Path(str(arguments.output_dir)) / name_of(step or 0)
    try:
        if (folder / MANIFEST).exists():
            verify(folder)
        load_adapter(read_tensors(folder, model), model)
    except CheckpointError as error:
        warn(f"the best adapter, of step {step}, is lost; the last one is kept ({error})")
        return None
    return step


def describe_best(state: TrainerState, arguments: TrainingArguments) -> str:
    """Say which adapter is kept, and how it compares with the last one."""
    name = str(arguments.metric_for_best_model)
    last = next((entry[name] for entry in reversed(state.log_history) if name in entry), math.nan)
    what = name.removeprefix("eval_").replace("_", " ")
    kept = f"the adapter of step {state.best_global_step} of {state.global_step} is kept"
    return f"{kept}, because its held-out {what} is the best: {state.best_metric:.4g}, against {last:.4g} after the last step"


def stopped_early(callbacks: Iterable[Any]) -> int | None:
    """Return the patience that ran out, if early stopping ended training."""
    for each in callbacks:
        if isinstance(each, EarlyStoppingCallback) and each.early_stopping_patience_counter >= each.early_stopping_patience:
            return int(each.early_stopping_patience)
    return None
