"""The fields of `transformers.TrainingArguments` that `training.extra` may set, and why it may not set the others."""

from collections.abc import Mapping
from typing import Any

import attrs

from smolora_core.config import TrainingSection
from smolora_core.config.passthrough import unknown_fields
from smolora_core.errors import Problem

_OWN_KEYS = {
    **{field.name: f"training.{field.name}" for field in attrs.fields(TrainingSection)},
    "output_dir": "output_dir",
    "metric_for_best_model": "training.metric",
    "seed": "seed",
    "use_cpu": "model.device",
    "save_steps": "checkpoints.save_steps",
    "save_total_limit": "checkpoints.keep",
}
# What the loop, transformers' factories or its integrations read. Whatever is not listed is refused, so that nothing is lost.
_USED = """
    adam_beta1 adam_beta2 adam_epsilon bf16 data_seed dataloader_drop_last
    dataloader_multiprocessing_context dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor eval_delay
    fp16 full_determinism greater_is_better hub_private_repo include_num_input_tokens_seen logging_first_step
    logging_strategy lr_scheduler_kwargs lr_scheduler_type max_grad_norm neftune_noise_alpha optim optim_args
    optim_target_modules project report_to run_name tf32 trackio_bucket_id trackio_space_id trackio_static_space_id
    train_sampling_strategy warmup_steps weight_decay
"""
# What else is refused, by the reason or by what to do instead.
_NO_EFFECT = {
    "models are replicated on every process": "accelerator_config deepspeed fsdp fsdp_config parallelism_config",
    "gradients are added up without DistributedDataParallel": "ddp_broadcast_buffers ddp_bucket_cap_mb"
    " ddp_find_unused_parameters ddp_static_graph",
    "processes are connected before it is read": "ddp_backend ddp_timeout",
    "torchrun numbers the processes": "local_rank",
    "models are not compiled": "torch_compile torch_compile_backend torch_compile_mode",
    "choose the memory strategy activation-checkpointing": "activation_checkpointing activation_checkpointing_kwargs"
    " gradient_checkpointing gradient_checkpointing_kwargs",
    "choose the memory strategy clear-cache": "torch_empty_cache_steps",
    "SmoLoRA already computes the loss in chunks": "liger_kernel_config use_liger_kernel",
    "choose a loss": "label_smoothing_factor",
    "a loss declares the columns it needs": "label_names",
    "a loss is the mean over the targets of all processes": "average_tokens_across_devices",
    "training never needs a cache of keys and values": "use_cache",
    "set training.per_device_train_batch_size to auto": "auto_find_batch_size",
    "with data.eval, an evaluation always runs before the first step": "eval_on_start",
    "with data.eval, an evaluation runs every training.eval_steps": "eval_strategy",
    "an evaluation keeps what the task's metrics need": "batch_eval_metrics eval_accumulation_steps eval_do_concat_batches"
    " eval_use_gather_object include_for_metrics prediction_loss_only",
    "evaluations run with the precision of training": "bf16_full_eval fp16_full_eval",
    "the command decides what runs": "do_eval do_predict do_train",
    "all columns are kept": "remove_unused_columns",
    "lengths are counted in the encoded rows": "length_column_name",
    "workers start again in every epoch": "dataloader_persistent_workers",
    "a step's rows always come in their order": "dataloader_in_order",
    "nothing is uploaded": "hub_always_push hub_model_id hub_revision hub_strategy hub_token push_to_hub",
    "only the first process saves": "save_on_each_node",
    "a checkpoint always contains the full training state": "save_only_model",
    "set checkpoints.save_steps": "save_strategy",
    "set training.final_adapter": "load_best_model_at_end",
    "SIGTERM always ends a run with a checkpoint": "enable_jit_checkpoint",
    "use --resume": "resume_from_checkpoint",
    "a resumed run always continues with the next rows": "ignore_data_skip",
    "callback states are always restored": "restore_callback_states_from_checkpoint",
    "set debug.log_level": "log_level log_level_replica",
    "only the first process logs": "log_on_each_node",
    "losses are logged as they are": "logging_nan_inf_filter",
    "numbers that are not finite are always reported": "debug",
    "set debug.profile_training": "skip_memory_metrics",
    "progress is one line; use --quiet": "disable_tqdm",
}
_REFUSED_VALUES: dict[str, tuple[tuple[Any, ...], str]] = {
    "include_num_input_tokens_seen": (("all",), "padding is not counted; set non_padding"),
    "train_sampling_strategy": (("batch_rebalance",), "set group_by_length"),
    "optim": (
        (
            "lomo",
            "adalomo",
            "apollo_adamw_layerwise",
            "galore_adafactor_layerwise",
            "galore_adamw_8bit_layerwise",
            "galore_adamw_layerwise",
        ),
        "it updates parameters before the gradient of the step is complete",
    ),
}
_RENAMED = {
    "evaluation_strategy": "set training.eval_steps",
    "group_by_length": "set train_sampling_strategy to group_by_length",
    "no_cuda": "set model.device to cpu",
    "warmup_ratio": "set warmup_steps to a fraction below 1",
}


def unknown_arguments(extra: Mapping[str, Any], where: str) -> list[Problem]:
    """Check, without importing transformers, that all of `training.extra` exists and takes effect here."""
    unusable = {name: ("has no effect here", hint) for hint, names in _NO_EFFECT.items() for name in names.split()}
    source = ("transformers", "training_args.py", "TrainingArguments")
    problems = unknown_fields(extra, where, *source, own=_OWN_KEYS, unusable=unusable, renamed=_RENAMED, used=_USED.split())
    for name, (values, hint) in _REFUSED_VALUES.items():
        if (value := extra.get(name)) in values:
            problems.append(Problem(f"{name!r} cannot be {str(value)!r} here", where=where, hint=hint))
    return problems
