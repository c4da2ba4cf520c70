"""From a config to `transformers.TrainingArguments`."""

import os
import re
from pathlib import Path
from typing import Any

from smolora_core.checkpoints.retention import greater_is_better
from smolora_core.config import RunConfig
from smolora_core.errors import ConfigError, Problem, first_line
from smolora_core.training.extra import unknown_arguments

_NEEDS_MODEL = re.compile(r"pass a `?model")
_NEEDS_QUANT = re.compile("bitsandbytes|torchao")


def make_arguments(config: RunConfig, folder: Path, device: Any, *, evaluates: bool, **measured: Any) -> Any:
    """Build the loop's arguments; `measured` overrides the config with values found on the model and the rows.

    Raises:
        ConfigError: a value in `training.extra` cannot be used.
    """
    import transformers

    training = config.training
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
        "learning_rate": training.learning_rate,
        # A placeholder until `auto` has been measured.
        "per_device_train_batch_size": 1 if (rows := training.per_device_train_batch_size) == "auto" else rows,
        "per_device_eval_batch_size": training.per_device_eval_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps or 1,
        **{name: 1 if steps == "auto" else steps for name, steps in cadence_of(config).items()},
        "eval_strategy": "steps" if evaluates else "no",
        "metric_for_best_model": f"eval_{training.metric}" if evaluates else None,
        "greater_is_better": greater_is_better(training.metric),
        "save_strategy": "steps",
        "seed": config.seed,
        "use_cpu": device.type == "cpu",
        "dataloader_pin_memory": device.type == "cuda",
        "report_to": "none",
    }
    problems = [
        *unknown_arguments(training.extra, "training.extra:"),
        *streaming_conflicts(config, ""),
        *conflicting_batch_sizes(config, ""),
        *missing_evaluation(config, ""),
    ]
    if problems:
        raise ConfigError.of(problems)
    try:
        arguments = transformers.TrainingArguments(**{**values, **training.extra, **measured})
    except (TypeError, ValueError, ImportError) as error:
        what = f"transformers.TrainingArguments rejects it ({first_line(error)})"
        raise ConfigError(what, where="training.extra:") from error
    _check_optimizer(arguments)
    trackers_of(arguments)
    # Set here, because transformers would also restrict how often to save.
    arguments.load_best_model_at_end = evaluates and training.final_adapter == "best"
    return arguments


def cadence_of(config: RunConfig) -> dict[str, Any]:
    """Return the steps between log lines, evaluations and checkpoints, or auto, by transformers' names."""
    training = config.training
    return {
        "logging_steps": training.logging_steps,
        "eval_steps": training.eval_steps,
        "save_steps": config.checkpoints.save_steps,
    }


def trackers_of(arguments: Any) -> list[Any]:
    """Make the callbacks of `report_to`, which report to trackers such as TensorBoard.

    Raises:
        ConfigError: a tracker is unknown or not installed.
    """
    from transformers.integrations.integration_utils import get_reporting_integration_callbacks

    try:
        trackers = [kind() for kind in get_reporting_integration_callbacks(arguments.report_to)]
    except (ImportError, RuntimeError, ValueError) as error:
        what = f"cannot report to {', '.join(arguments.report_to)} ({first_line(error)})"
        raise ConfigError(what, where="training.extra:") from error
    for each in trackers:
        # TensorBoard's would write to the current folder.
        if getattr(each, "logging_dir", "") is None:
            each.logging_dir = str(Path(arguments.output_dir) / "tensorboard")
    return trackers


def _check_optimizer(arguments: Any) -> None:
    """Build a throwaway optimizer and schedule: the loop would only fail after the model is loaded."""
    import torch
    import transformers

    name = arguments.optim.value
    try:
        kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(arguments)
        optimizer = kind([torch.nn.Parameter(torch.zeros(1))], **options)
    except (ImportError, ValueError, TypeError) as error:
        if _NEEDS_MODEL.search(str(error)):
            return
        hint = "pip install 'smolora[quant]'" if _NEEDS_QUANT.search(str(error)) else ""
        raise ConfigError(f"cannot create the optimizer {name} ({error})", where="training.extra:", hint=hint) from error
    schedule, options = arguments.lr_scheduler_type, arguments.lr_scheduler_kwargs
    try:
        transformers.get_scheduler(schedule, optimizer, 1, 100, scheduler_specific_kwargs=options)
    except (ValueError, TypeError) as error:
        what = f"cannot create the schedule {getattr(schedule, 'value', schedule)} ({error})"
        raise ConfigError(what, where="training.extra:") from error


def missing_evaluation(config: RunConfig, where: str) -> list[Problem]:
    """Find settings that need an evaluation which does not happen, or a metric whose better direction is unknown."""
    training, problems = config.training, []
    if config.data.eval is None:
        for name, default in (("metric", "loss"), ("early_stopping", None)):
            if (value := getattr(training, name)) != default:
                what = f"training.{name} is {value!r}, but no rows are held out"
                problems.append(Problem(what, where=where, hint="set data.eval"))
    elif greater_is_better(training.metric) is None and "greater_is_better" not in training.extra:
        what = f"nothing is known of the metric {training.metric!r}"
        problems.append(Problem(what, where=where, hint="set training.extra.greater_is_better to true or false"))
    return problems


def conflicting_batch_sizes(config: RunConfig, where: str) -> list[Problem]:
    """Find settings that compete to size a micro-batch."""
    training, problems, rows = config.training, [], "training.per_device_train_batch_size is auto"
    size, times, effective = (
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
        training.effective_batch_size,
    )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if effective is not None and training.max_tokens_per_batch is not None:
        what = "training.effective_batch_size counts rows, but training.max_tokens_per_batch puts any number in a micro-batch"
        problems.append(Problem(what, where=where, hint="set training.gradient_accumulation_steps instead"))
    elif times is not None and size == "auto":
        what = f"{rows}, which decides training.gradient_accumulation_steps"
        problems.append(Problem(what, where=where, hint="remove it, or set training.effective_batch_size"))
    elif effective is not None and times is not None and size != "auto" and effective != size * times * processes:
        what = f"training.effective_batch_size is {effective}, but micro-batches of {size} rows, accumulated {times} times"
        what += f" by {processes} processes" if processes > 1 else ""
        problems.append(Problem(f"{what}, have {size * times * processes}", where=where, hint="remove one of them"))
    if size == "auto":
        if training.max_tokens_per_batch is not None:
            what = f"{rows}, but training.max_tokens_per_batch also sizes micro-batches"
            problems.append(Problem(what, where=where, hint="remove one of them"))
        if config.data.streaming:
            what = f"{rows}, which needs the longest rows, but streamed rows are not known in advance"
            problems.append(Problem(what, where=where, hint="set a number"))
    if training.max_tokens_per_batch is not None and (strategy := training.extra.get("train_sampling_strategy")):
        what = f"training.max_tokens_per_batch and train_sampling_strategy {strategy!r} both decide how rows are batched"
        problems.append(Problem(what, where=where, hint="remove one of them"))
    if training.batching == "padding-free" and training.extra.get("neftune_noise_alpha") is not None:
        what = "training.batching is padding-free, but neftune_noise_alpha scales noise by the length of padded rows"
        problems.append(Problem(what, where=where, hint="set training.batching to grouped"))
    return problems


def streaming_conflicts(config: RunConfig, where: str) -> list[Problem]:
    """Find settings that need the number, the lengths or the order of rows, which streamed rows do not have."""
    if not config.data.streaming:
        return []
    problems = []
    if config.training.max_steps <= 0:
        what = "data.streaming does not count rows in advance"
        problems.append(Problem(what, where=where, hint="set training.max_steps"))
    if config.training.max_tokens_per_batch is not None:
        what = "data.streaming cannot group rows by length"
        problems.append(Problem(what, where=where, hint="remove training.max_tokens_per_batch"))
    if (strategy := config.training.extra.get("train_sampling_strategy", "sequential")) != "sequential":
        what = f"data.streaming reads rows in their order, but train_sampling_strategy is {str(strategy)!r}"
        problems.append(Problem(what, where=where, hint="remove it"))
    if config.training.extra.get("dataloader_num_workers"):
        what = "data.streaming cannot split rows among dataloader workers without changing their order"
        problems.append(Problem(what, where=where, hint="set data.num_proc instead"))
    return problems
