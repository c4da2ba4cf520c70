"""From a config to `transformers.TrainingArguments`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from smolora_core.config import RunConfig, TrainingSection
from smolora_core.config.passthrough import unknown_fields
from smolora_core.errors import ConfigError, Problem

_OWN_KEYS = {
    **{field.name: f"training.{field.name}" for field in attrs.fields(TrainingSection)},
    "output_dir": "output_dir",
    "seed": "seed",
    "use_cpu": "model.device",
    "save_steps": "checkpoints.save_steps",
    "save_total_limit": "checkpoints.keep",
}
_NO_EFFECT = {
    "eval_on_start": "with data.eval there is always an evaluation before the first step",
    "eval_strategy": "with data.eval there is an evaluation every training.eval_steps",
    "label_names": "a loss declares the columns it needs",
    "prediction_loss_only": "only the loss is computed",
    "push_to_hub": "nothing is uploaded",
    "resume_from_checkpoint": "say where to go on from with --resume",
    "auto_find_batch_size": "set training.per_device_train_batch_size",
    "enable_jit_checkpoint": "SIGTERM always ends a run with a checkpoint",
    "ignore_data_skip": "a run goes on with the rows that come next",
    "restore_callback_states_from_checkpoint": "callbacks go on with the state that they had",
    "save_only_model": "a checkpoint holds all that a run goes on from",
    "save_strategy": "set checkpoints.save_steps",
    "use_liger_kernel": "the loss is computed in chunks by SmoLoRA itself",
    "label_smoothing_factor": "choose a loss",
    "load_best_model_at_end": "the adapter of the last step is kept",
    "metric_for_best_model": "the adapter of the last step is kept",
    "remove_unused_columns": "no column is removed",
    "torch_empty_cache_steps": "choose the memory strategy clear-cache",
}


_RENAMED = {
    "evaluation_strategy": "set training.eval_steps",
    "group_by_length": "write train_sampling_strategy: group_by_length",
    "no_cuda": "set model.device to cpu",
    "warmup_ratio": "write warmup_steps with a fraction below 1",
}

_NO_MODEL_YET = re.compile(r"pass a `?model")
_QUANT = re.compile("bitsandbytes|torchao")


def make_arguments(config: RunConfig, folder: Path, device: Any, *, evaluates: bool, **measured: Any) -> Any:
    """Make the Trainer's arguments.

    Args:
        config: of the run.
        folder: of the run.
        device: where it computes.
        evaluates: whether rows are held out.
        measured: what the model and the rows have shown since: the size of micro-batches, how rows are sampled.

    Raises:
        ConfigError: something in `training.extra` cannot be used.
    """
    import transformers

    training = config.training
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
        "learning_rate": training.learning_rate,
        # One until it is known how many fit.
        "per_device_train_batch_size": 1 if (rows := training.per_device_train_batch_size) == "auto" else rows,
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
    problems = [*unknown_arguments(training.extra, "training.extra:"), *streaming_conflicts(config, "")]
    if problems := [*problems, *conflicting_batch_sizes(config, "")]:
        raise ConfigError.of(problems)
    try:
        made = transformers.TrainingArguments(**{**values, **training.extra, **measured})
    except (TypeError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"transformers.TrainingArguments refuses it ({first})", where="training.extra:") from error
    _check_optimizer(made)
    return made


def _check_optimizer(arguments: Any) -> None:
    """Make an optimizer and a schedule for nothing, because Trainer would only find out when the model is loaded."""
    import torch
    import transformers

    name = arguments.optim.value
    try:
        kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(arguments)
        optimizer = kind([torch.nn.Parameter(torch.zeros(1))], **options)
    except (ImportError, ValueError, TypeError) as error:
        # A few look at the model too, which is not there yet.
        if not _NO_MODEL_YET.search(str(error)):
            hint = "pip install 'smolora[quant]'" if _QUANT.search(str(error)) else ""
            raise ConfigError(f"the optimizer {name} cannot be made ({error})", where="training.extra:", hint=hint) from error
        return
    schedule, options = arguments.lr_scheduler_type, arguments.lr_scheduler_kwargs
    try:
        transformers.get_scheduler(schedule, optimizer, 1, 100, scheduler_specific_kwargs=options)
    except (ValueError, TypeError) as error:
        what = f"the schedule {getattr(schedule, 'value', schedule)} cannot be made ({error})"
        raise ConfigError(what, where="training.extra:") from error


def unknown_arguments(extra: Mapping[str, Any], where: str) -> list[Problem]:
    """Check `training.extra` without importing transformers: names must exist, have an effect here, and no key of their own."""
    unusable = {name: ("has no effect here", hint) for name, hint in _NO_EFFECT.items()}
    source = ("transformers", "training_args.py", "TrainingArguments")
    return unknown_fields(extra, where, *source, own=_OWN_KEYS, unusable=unusable, renamed=_RENAMED)


def conflicting_batch_sizes(config: RunConfig, where: str) -> list[Problem]:
    """Refuse to try out micro-batches whose size something else decides, or whose rows nobody knows beforehand."""
    training, problems, rows = config.training, [], "training.per_device_train_batch_size is auto"
    if training.per_device_train_batch_size == "auto":
        if training.max_tokens_per_batch is not None:
            what = f"{rows}, and training.max_tokens_per_batch also sizes micro-batches"
            problems.append(Problem(what, where=where, hint="leave one of them out"))
        if config.data.streaming:
            what = f"{rows}, which tries the longest rows, and streamed rows are not known in advance"
            problems.append(Problem(what, where=where, hint="set a number"))
    if training.max_tokens_per_batch is not None and (strategy := training.extra.get("train_sampling_strategy")):
        what = (
            f"training.max_tokens_per_batch and train_sampling_strategy {strategy!r} both decide which rows share a micro-batch"
        )
        problems.append(Problem(what, where=where, hint="leave one of them out"))
    return problems


def streaming_conflicts(config: RunConfig, where: str) -> list[Problem]:
    """Refuse a run of streamed rows that nobody could tell the length of, or the order."""
    problems = []
    if config.data.streaming and config.training.max_steps <= 0:
        what = "data.streaming does not count rows in advance"
        problems.append(Problem(what, where=where, hint="set training.max_steps"))
    if config.data.streaming and config.training.max_tokens_per_batch is not None:
        what = "data.streaming cannot group rows by length"
        problems.append(Problem(what, where=where, hint="leave training.max_tokens_per_batch out"))
    if config.data.streaming and config.training.extra.get("dataloader_num_workers"):
        what = "data.streaming cannot split rows among dataloader workers, which would change their order"
        problems.append(Problem(what, where=where, hint="set data.num_proc instead"))
    return problems
