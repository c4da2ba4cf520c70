"""From a config to transformers' arguments: nothing that the user says is lost on the way."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers

from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.config.passthrough import unknown_fields
from smolora_core.errors import ConfigError
from smolora_core.training.arguments import conflicting_batch_sizes, make_arguments, streaming_conflicts
from smolora_core.training.extra import unknown_arguments

# Fields that take effect, and who reads them.
USED = {
    "adam_beta1": "transformers' optimizer factory",
    "adam_beta2": "transformers' optimizer factory",
    "adam_epsilon": "transformers' optimizer factory",
    "bf16": "the loop: autocast",
    "data_seed": "the loop: the order of rows",
    "dataloader_drop_last": "the loop: the last step of an epoch",
    "dataloader_multiprocessing_context": "DataLoader",
    "dataloader_num_workers": "DataLoader",
    "dataloader_pin_memory": "DataLoader",
    "dataloader_prefetch_factor": "DataLoader",
    "eval_delay": "transformers' DefaultFlowCallback",
    "fp16": "the loop: autocast and the gradient scaler",
    "full_determinism": "the run, before the model is loaded",
    "greater_is_better": "the loop: the best adapter",
    "hub_private_repo": "transformers' integration of Trackio: whether a Space is private",
    "include_num_input_tokens_seen": "the loop: what a log line contains",
    "logging_first_step": "transformers' DefaultFlowCallback",
    "logging_strategy": "transformers' DefaultFlowCallback",
    "lr_scheduler_kwargs": "transformers' schedule factory",
    "lr_scheduler_type": "transformers' schedule factory",
    "max_grad_norm": "the loop: clipping",
    "neftune_noise_alpha": "the loop: noise in embeddings",
    "optim": "transformers' optimizer factory",
    "optim_args": "transformers' optimizer factory",
    "optim_target_modules": "transformers' optimizer factory: GaLore and APOLLO",
    "project": "transformers' integrations: the project of Trackio and others",
    "report_to": "transformers' integrations: which trackers",
    "run_name": "transformers' integrations: the name of the run",
    "tf32": "TrainingArguments itself, which sets it in torch",
    "trackio_bucket_id": "transformers' integration of Trackio",
    "trackio_space_id": "transformers' integration of Trackio",
    "trackio_static_space_id": "transformers' integration of Trackio",
    "train_sampling_strategy": "the loop: the order of rows",
    "warmup_steps": "transformers' schedule factory",
    "weight_decay": "the loop: the optimizer's groups of parameters",
}
# Fields that have a config key, so that there is one place to set them.
OWN = {
    "eval_steps": "training.eval_steps",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "learning_rate": "training.learning_rate",
    "logging_steps": "training.logging_steps",
    "max_steps": "training.max_steps",
    "metric_for_best_model": "training.metric",
    "num_train_epochs": "training.num_train_epochs",
    "output_dir": "output_dir",
    "per_device_eval_batch_size": "training.per_device_eval_batch_size",
    "per_device_train_batch_size": "training.per_device_train_batch_size",
    "save_steps": "checkpoints.save_steps",
    "save_total_limit": "checkpoints.keep",
    "seed": "seed",
    "use_cpu": "model.device",
}
# Fields that mean nothing here: why, or what to do instead.
REPLICATED = "models are replicated on every process"
NO_DDP = "gradients are added up without DistributedDataParallel"
METRICS = "an evaluation keeps what the task's metrics need"
CHECKPOINTING = "choose the memory strategy activation-checkpointing"
MEANINGLESS = {
    "accelerator_config": REPLICATED,
    "activation_checkpointing": CHECKPOINTING,
    "activation_checkpointing_kwargs": CHECKPOINTING,
    "auto_find_batch_size": "set training.per_device_train_batch_size to auto",
    "average_tokens_across_devices": "a loss is the mean over the targets of all processes",
    "batch_eval_metrics": METRICS,
    "bf16_full_eval": "evaluations run with the precision of training",
    "dataloader_in_order": "a step's rows always come in their order",
    "dataloader_persistent_workers": "workers start again in every epoch",
    "ddp_backend": "processes are connected before it is read",
    "ddp_broadcast_buffers": NO_DDP,
    "ddp_bucket_cap_mb": NO_DDP,
    "ddp_find_unused_parameters": NO_DDP,
    "ddp_static_graph": NO_DDP,
    "ddp_timeout": "processes are connected before it is read",
    "debug": "numbers that are not finite are always reported",
    "deepspeed": REPLICATED,
    "disable_tqdm": "progress is one line; use --quiet",
    "do_eval": "the command decides what runs",
    "do_predict": "the command decides what runs",
    "do_train": "the command decides what runs",
    "enable_jit_checkpoint": "SIGTERM always ends a run with a checkpoint",
    "eval_accumulation_steps": METRICS,
    "eval_do_concat_batches": METRICS,
    "eval_on_start": "with data.eval, an evaluation always runs before the first step",
    "eval_strategy": "with data.eval, an evaluation runs every training.eval_steps",
    "eval_use_gather_object": METRICS,
    "fp16_full_eval": "evaluations run with the precision of training",
    "fsdp": REPLICATED,
    "fsdp_config": REPLICATED,
    "gradient_checkpointing": CHECKPOINTING,
    "gradient_checkpointing_kwargs": CHECKPOINTING,
    "hub_always_push": "nothing is uploaded",
    "hub_model_id": "nothing is uploaded",
    "hub_revision": "nothing is uploaded",
    "hub_strategy": "nothing is uploaded",
    "hub_token": "nothing is uploaded",
    "ignore_data_skip": "a resumed run always continues with the next rows",
    "include_for_metrics": METRICS,
    "label_names": "a loss declares the columns it needs",
    "label_smoothing_factor": "choose a loss",
    "length_column_name": "lengths are counted in the encoded rows",
    "liger_kernel_config": "SmoLoRA already computes the loss in chunks",
    "load_best_model_at_end": "set training.final_adapter",
    "local_rank": "torchrun numbers the processes",
    "log_level": "set debug.log_level",
    "log_level_replica": "set debug.log_level",
    "log_on_each_node": "only the first process logs",
    "logging_nan_inf_filter": "losses are logged as they are",
    "parallelism_config": REPLICATED,
    "prediction_loss_only": METRICS,
    "push_to_hub": "nothing is uploaded",
    "remove_unused_columns": "all columns are kept",
    "restore_callback_states_from_checkpoint": "callback states are always restored",
    "resume_from_checkpoint": "use --resume",
    "save_on_each_node": "only the first process saves",
    "save_only_model": "a checkpoint always contains the full training state",
    "save_strategy": "set checkpoints.save_steps",
    "skip_memory_metrics": "set debug.profile_training",
    "torch_compile": "models are not compiled",
    "torch_compile_backend": "models are not compiled",
    "torch_compile_mode": "models are not compiled",
    "torch_empty_cache_steps": "choose the memory strategy clear-cache",
    "use_cache": "training never needs a cache of keys and values",
    "use_liger_kernel": "SmoLoRA already computes the loss in chunks",
}
MESSAGES = {
    **{name: f"'{name}' has its own config key; set {key}" for name, key in OWN.items()},
    **{name: f"'{name}' has no effect here; {reason}" for name, reason in MEANINGLESS.items()},
}
# Another version of transformers may lack some.
FIELDS = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}


def config(**sections):
    return resolve(Document({"model": {"path": "here"}, "data": {"train": "rows"}, **sections}, {})).config


def arguments(evaluates=False, **sections):
    return make_arguments(config(**sections), Path("there"), torch.device("cpu"), evaluates=evaluates)


def test_every_field_of_transformers_is_in_one_group():
    groups = [*USED, *OWN, *MEANINGLESS]
    assert sorted(set(groups)) == sorted(groups)
    assert set(groups) >= FIELDS


@pytest.mark.parametrize("name", sorted({*USED, *OWN, *MEANINGLESS}))
def test_a_field_is_used_or_refused_with_the_reason(name):
    if name in USED and name not in FIELDS:
        pytest.skip("this version of transformers lacks it")
    expected = [f"run.yaml:7 {MESSAGES[name]}"] if name in MESSAGES else []
    assert [str(problem) for problem in unknown_arguments({name: None}, "run.yaml:7")] == expected


def test_a_field_of_a_later_transformers_is_refused():
    source = ("transformers", "training_args.py", "TrainingArguments")
    problems = unknown_fields({"fp16", "bf16"}, "run.yaml:7", *source, own={}, unusable={}, used=["bf16"])
    assert [str(problem) for problem in problems] == ["run.yaml:7 'fp16' has no effect here; remove it"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train_sampling_strategy", "batch_rebalance", "set group_by_length"),
        ("include_num_input_tokens_seen", "all", "padding is not counted; set non_padding"),
        ("optim", "lomo", "it updates parameters before the gradient of the step is complete"),
        ("optim", "galore_adamw_layerwise", "it updates parameters before the gradient of the step is complete"),
    ],
)
def test_a_value_with_another_meaning_here_is_refused(name, value, message):
    problems = unknown_arguments({name: value}, "run.yaml:7")
    assert [str(problem) for problem in problems] == [f"run.yaml:7 '{name}' cannot be '{value}' here; {message}"]


@pytest.mark.parametrize(
    ("sections", "name", "value"),
    [
        ({}, "output_dir", "there"),
        ({}, "use_cpu", True),
        ({"seed": 7}, "seed", 7),
        ({"training": {"learning_rate": 0.5}}, "learning_rate", 0.5),
        ({"training": {"per_device_train_batch_size": 3}}, "per_device_train_batch_size", 3),
        ({"training": {"gradient_accumulation_steps": 5}}, "gradient_accumulation_steps", 5),
        ({"training": {"max_steps": 9}}, "max_steps", 9),
        ({"checkpoints": {"save_steps": 11}}, "save_steps", 11),
        ({"training": {"extra": {"warmup_steps": 4}}}, "warmup_steps", 4),
        ({"training": {"extra": {"lr_scheduler_type": "cosine"}}}, "lr_scheduler_type", "cosine"),
    ],
)
def test_a_key_becomes_an_argument(sections, name, value):
    assert getattr(arguments(**sections), name) == value


@pytest.mark.parametrize(("evaluates", "strategy"), [(True, "steps"), (False, "no")])
def test_rows_held_out_are_evaluated(evaluates, strategy):
    assert arguments(evaluates=evaluates).eval_strategy == strategy


MISTAKES = {
    "warmup_step": "transformers.TrainingArguments has no 'warmup_step'; did you mean 'warmup_steps'?",
    "learning_rate": MESSAGES["learning_rate"],
    "label_smoothing_factor": MESSAGES["label_smoothing_factor"],
    "warmup_ratio": "transformers.TrainingArguments has no 'warmup_ratio'; set warmup_steps to a fraction below 1",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_argument_that_would_be_lost_is_refused(name):
    with pytest.raises(ConfigError) as error:
        arguments(training={"extra": {name: 1}})
    assert str(error.value) == f"training.extra: {MISTAKES[name]}"


def test_all_mistakes_are_named_at_once():
    problems = unknown_arguments(dict.fromkeys([*MISTAKES, "warmup_steps"]), "run.yaml:7")
    assert [str(problem) for problem in problems] == [f"run.yaml:7 {message}" for message in MISTAKES.values()]


def test_a_value_that_transformers_refuses_is_an_error_of_the_config():
    with pytest.raises(ConfigError) as error:
        arguments(training={"extra": {"optim": "adamm"}})
    message = "training.extra: transformers.TrainingArguments rejects it (adamm is not a valid OptimizerNames"
    assert str(error.value).startswith(message)


def test_a_tracker_that_is_not_installed_is_an_error_of_the_config(monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    with pytest.raises(ConfigError) as error:
        arguments(training={"extra": {"report_to": ["wandb"]}})
    assert str(error.value) == (
        "training.extra: cannot report to wandb (WandbCallback requires wandb to be installed. Run `pip install wandb`.)"
    )


def test_noise_in_embeddings_needs_padded_rows():
    given = config(training={"batching": "padding-free", "extra": {"neftune_noise_alpha": 5}})
    assert [str(problem) for problem in conflicting_batch_sizes(given, "run.yaml:7")] == [
        "run.yaml:7 training.batching is padding-free, but neftune_noise_alpha scales noise by the length of padded rows; "
        "set training.batching to grouped"
    ]


def test_streamed_rows_have_an_order_already():
    given = config(
        data={"train": "rows", "streaming": True}, training={"max_steps": 1, "extra": {"train_sampling_strategy": "random"}}
    )
    assert [str(problem) for problem in streaming_conflicts(given, "run.yaml:7")] == [
        "run.yaml:7 data.streaming reads rows in their order, but train_sampling_strategy is 'random'; remove it"
    ]
