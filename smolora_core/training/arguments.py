"""From a config to `transformers.TrainingArguments`."""

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolora_core.config import RunConfig
from smolora_core.errors import Problem, did_you_mean

__all__ = ["make_arguments", "unknown_arguments"]


def make_arguments(config: RunConfig, device: Any, *, evaluates: bool) -> Any:
    """Make the Trainer's arguments.

    Args:
        config: of the run.
        device: where it computes.
        evaluates: whether rows are held out.
    """
    import transformers

    training = config.training
    values: dict[str, Any] = {
        "output_dir": config.output_dir,
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
        "learning_rate": training.learning_rate,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "per_device_eval_batch_size": training.per_device_eval_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "logging_steps": training.logging_steps,
        "eval_steps": training.eval_steps,
        "eval_strategy": "steps" if evaluates else "no",
        "save_strategy": "steps",
        "save_steps": config.checkpoints.save_steps,
        "seed": config.seed,
        "use_cpu": device.type == "cpu",
        "dataloader_pin_memory": device.type == "cuda",
        # Every column is wanted, and a NaN must not be logged as 0.
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        "report_to": "none",
        "log_level": "info" if config.debug.log_level == "DEBUG" else "error",
    }
    return transformers.TrainingArguments(**{**values, **training.extra})


def unknown_arguments(extra: Mapping[str, Any], where: str) -> list[Problem]:
    """Check `training.extra` against the names `TrainingArguments` really has, without importing transformers."""
    if not extra:
        return []
    package = importlib.util.find_spec("transformers")
    assert package is not None and package.origin is not None
    source = Path(package.origin).with_name("training_args.py").read_text(encoding="utf-8")
    known = {
        field.target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    return [
        Problem(f"transformers.TrainingArguments has no {name!r}", where=where, hint=did_you_mean(name, known))
        for name in extra
        if name not in known
    ]
