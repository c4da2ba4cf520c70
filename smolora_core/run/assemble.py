"""Assemble the adapted model, the saver and the training loop of a run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments

from smolora_core.batches.padding import Collator
from smolora_core.batches.token_budget import Rows, fill_micro_batches, token_counts
from smolora_core.checkpoints.saver import Saver
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.components import CheckpointWriter
from smolora_core.config.validators import seconds_of
from smolora_core.errors import PluginError, Problem, TrainingError
from smolora_core.fast.apply import Speed, applied
from smolora_core.lora.attach import Adapted, adapt, trainable_names
from smolora_core.model.load import base_source, load_base, precision_of
from smolora_core.plugins import build
from smolora_core.run.context import OpenRun
from smolora_core.run.job import Job
from smolora_core.run.prepare import Dataset
from smolora_core.training.arguments import cadence_of, make_arguments, trackers_of
from smolora_core.training.auto_batch_size import choose_rows, longest_rows, room_for_steps, sizes_of, try_micro_steps
from smolora_core.training.cadence import Cadence
from smolora_core.training.callbacks import LogEvents, StepCallback
from smolora_core.training.loaders import make_order, order_seed
from smolora_core.training.loop import TrainingLoop
from smolora_core.training.memory import Strategies
from smolora_core.training.objective import Measured, Objective, objective_of
from smolora_core.training.oom import Recovery
from smolora_core.training.step import autocast


def load_and_adapt(job: Job, run: OpenRun, changes: Mapping[str, Any], strategies: Strategies) -> Adapted:
    """Load the base model with the task's changes to its config, choose its targets and attach the adapter.

    Raises:
        SmoLoRAError: the weights cannot be loaded or adapted, or a plugin changed which parameters are trainable.
    """
    run.emit("status", text="loading the model")
    config, task = job.config, job.choices.task.component
    dtype: Any = run.identity.dtype
    if dtype is None and run.ranks.size > 1:
        # Separate measurements could differ.
        dtype = run.ranks.share(str(precision_of(config.model, run.device, job.base_config).dtype).removeprefix("torch."))
    model = attrs.evolve(config.model, dtype=dtype) if dtype and config.model.dtype == "auto" else config.model
    base = load_base(model, task, run.device, job.base_config, strategies.load_kwargs(), changes, config.seed)
    run.emit(
        "base",
        model=config.model.path,
        device=str(run.device),
        threads=torch.get_num_threads(),
        dtype=str(base.precision.dtype).removeprefix("torch."),
        reason=base.precision.reason if model.dtype == config.model.dtype else "from the checkpoint or the first process",
    )
    adapted = attach_adapter(job, base.model, base.heads)
    trained = trainable_names(adapted.model)
    strategies.model_ready(adapted.model)
    run.plugins.call_hook("smolora_adapter_attached", model=adapted.model, run=run)
    if changed := sorted(trainable_names(adapted.model) ^ trained):
        raise TrainingError(
            f"a plugin changed which parameters are trainable: {len(changed)} tensors, including {changed[0]!r}",
            hint="leave requires_grad as it is, because the adapter contains only the original ones",
        )
    targets = adapted.targets
    run.emit(
        "targets",
        patterns=targets.shown,
        modules=len(targets.modules),
        reason=targets.reason,
        trainable=adapted.trainable,
        total=adapted.total,
    )
    run.identity.model(adapted.model, str(adapted.model.dtype).removeprefix("torch."), str(run.device))
    return adapted


def attach_adapter(job: Job, base: Any, heads: Sequence[str] = ()) -> Adapted:
    """Choose the job's target modules of a base model and attach an adapter, in place; `heads` are trained in full instead.

    Raises:
        ConfigError: a name matches nothing, or PEFT rejects an option.
        ModelLoadError: the base model cannot be adapted as chosen.
    """
    task, path = job.choices.task.component, base_source(job.config.model)
    return adapt(base, job.base_config, job.config, task, job.plugins.registry, job.where, path, heads)


@attrs.frozen
class MicroStep:
    """How a job makes and computes micro-batches.

    Attributes:
        collate: makes a micro-batch of encoded rows to train on.
        objective: computes the loss of a model and a micro-batch: its `sum`, and its `weight`.
        speed: the optimisations applied to the model.
    """

    collate: Collator
    objective: Objective
    speed: Speed


@contextmanager
def micro_step(job: Job, model: Any, collator: Collator) -> Iterator[MicroStep]:
    """Speed up an adapted model for the duration of a block, and choose how its micro-batches are made and computed."""
    task, choices = collator.task, job.choices
    with applied(model, task, choices.loss.component.kind, job.config) as speed:
        objective = objective_of(choices, model, task, job.config.data.weight_field, speed.row_parallel.run)
        yield MicroStep(attrs.evolve(collator, concatenate=speed.batching.collate), objective, speed)


def make_saver(job: Job, run: OpenRun, dataset: Dataset, adapted: Adapted) -> Saver:
    """Build the saver that commits the run's checkpoints."""
    # The adapter is always written: runs resume from it, and it is the final result.
    adapter_writer = build(job.plugins.registry.resolve(CheckpointWriter, "adapter"))
    chosen = {each.name: each.build() for each in job.choices.writers}
    values, facts = run.identity.values, run.identity.facts

    def checkpoint(step: int, metrics: Mapping[str, float]) -> Checkpoint:
        return Checkpoint(
            step=step, model=adapted.model, tokenizer=dataset.tokenizer, metrics=metrics, config=values, facts=facts
        )

    writers = {"adapter": adapter_writer, **chosen}
    return Saver(run.store, writers, checkpoint, job.config.checkpoints.save_failure, run.emit)


def make_loop(
    job: Job, run: OpenRun, dataset: Dataset, adapted: Adapted, strategies: Strategies, micro: MicroStep, saver: Saver
) -> TrainingLoop:
    """Build the training loop of a run.

    Raises:
        SmoLoRAError: no micro-batch fits in memory, or a plugin returned an object that is not a callback.
    """
    training, collator = job.config.training, dataset.collator
    evaluates = bool(dataset.held_out)
    # An unknown metric must not be found out after hours of training.
    overrides: dict[str, Any] = {"eval_on_start": evaluates}
    if micro.speed.batching.name == "grouped" and "train_sampling_strategy" not in training.extra:
        overrides["train_sampling_strategy"] = "group_by_length"
    rows = training.per_device_train_batch_size
    if rows == "auto":
        arguments = make_arguments(job.config, run.folder, run.device, evaluates=evaluates, **overrides)
        rows = overrides["per_device_train_batch_size"] = _micro_batch(run, dataset, adapted, strategies, micro, arguments)
    if training.max_tokens_per_batch is None:
        overrides["gradient_accumulation_steps"] = _times(run, rows)
    arguments = make_arguments(job.config, run.folder, run.device, evaluates=evaluates, **overrides)
    filled = _filled(run, dataset, arguments, padded=micro.speed.batching.collate is None)
    auto = {name for name, steps in cadence_of(job.config).items() if steps == "auto"}
    auto -= {"logging_steps"} if arguments.logging_strategy != "steps" else set()
    loop = TrainingLoop(
        model=adapted.model,
        args=arguments,
        objective=micro.objective,
        save=saver,
        train_dataset=dataset.train,
        eval_dataset=dataset.held_out,
        data_collator=micro.collate,
        # Evaluations need padded batches: their rows are counted by the first dimension.
        eval_collator=attrs.evolve(collator, epoch=None),
        compute_task_metrics=getattr(collator.task, "metrics", None),
        processing_class=dataset.tokenizer,
        callbacks=[*trackers_of(arguments), StepCallback(strategies), *_callbacks(run, dataset.splits.train.shape)],
        cadence=Cadence(auto, seconds_of(training.max_time or "") or math.inf),
        recovery=Recovery(strategies.out_of_memory, run.emit, strategies.remedies(smaller_batch=False)),
        order=make_order(dataset.train, arguments, run.units_per_step, filled),
        warn=run.warn,
        emit=run.emit,
    )
    loop.add_callback(LogEvents(run.emit))
    if training.early_stopping is not None:
        loop.add_callback(EarlyStoppingCallback(training.early_stopping))
    return loop


def _micro_batch(
    run: OpenRun,
    dataset: Dataset,
    adapted: Adapted,
    strategies: Strategies,
    micro: MicroStep,
    arguments: TrainingArguments,
) -> int:
    """Measure how many rows fit."""
    ranks, rows = run.ranks, dataset.train
    sizes = sizes_of(run.units_per_step, ranks.size, len(rows))

    def measure(batch: Mapping[str, Any]) -> Measured:
        with autocast(arguments):
            return micro.objective(adapted.model, batch)

    def choose() -> tuple[int, str]:
        if run.identity.micro_batch in sizes:
            return run.identity.micro_batch or 0, "from the checkpoint"
        run.emit("status", text="measuring how many rows fit")
        try_out = try_micro_steps(adapted.model, measure, micro.collate, longest_rows(rows, sizes[-1]), run.device)
        return choose_rows(sizes, try_out, room_for_steps(adapted.model, run.device, ranks.size))

    # Separate measurements could differ.
    size, reason = ranks.share(choose() if ranks.leads else (0, ""))
    if not size:
        what = "out of memory with one of the longest rows, before training"
        raise TrainingError(what, hint=strategies.remedies(smaller_batch=False))
    run.identity.note("micro_batch", size)
    run.emit("note", text=f"micro-batches of {size} rows on {run.device}, accumulated {_times(run, size)} times ({reason})")
    return size


def _times(run: OpenRun, rows: int) -> int:
    """Count the micro-batches of `rows` that the process with the most rows of a step has."""
    return math.ceil(run.units_per_step / (rows * run.ranks.size))


def _filled(run: OpenRun, dataset: Dataset, arguments: TrainingArguments, *, padded: bool) -> list[Rows] | None:
    """Fill micro-batches up to the budget of tokens, if there is one."""
    budget = run.config.training.max_tokens_per_batch
    if budget is None:
        return None
    lengths = token_counts(dataset.train)
    found = fill_micro_batches(lengths, budget, order_seed(arguments), padded=padded)
    full = sum(lengths) / (len(found) * budget)
    run.emit("note", text=f"{len(lengths)} rows make {len(found)} micro-batches of up to {budget} tokens, {full:.0%} full")
    return found


def _callbacks(run: OpenRun, row_format: str) -> list[TrainerCallback]:
    offered = list(run.plugins.collect("smolora_callbacks", TrainerCallback, run=run, row_format=row_format))
    if problems := [each for each in offered if isinstance(each, Problem)]:
        raise PluginError.of(problems)
    return offered
