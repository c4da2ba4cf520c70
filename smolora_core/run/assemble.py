"""The trainer of a run, put together from what the stages before it have made."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from smolora_core.batches.collator import Collator
from smolora_core.batches.token_budget import BudgetSampler, fill_micro_batches, token_counts
from smolora_core.checkpoints.identity import Continuation
from smolora_core.checkpoints.saver import Saver
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.components import CheckpointWriter
from smolora_core.data.prepare import Sides
from smolora_core.errors import PluginError
from smolora_core.fast.apply import Speed
from smolora_core.lora.attach import Adapted
from smolora_core.plugins import build
from smolora_core.run.context import Run
from smolora_core.run.folder import Opened
from smolora_core.run.job import Settled
from smolora_core.training.auto_batch_size import choose_rows, longest_rows, room_for_steps, sizes_of, try_micro_steps
from smolora_core.training.callbacks import LogEvents, StepCallback
from smolora_core.training.guards import LearningGuard
from smolora_core.training.learning import make_learning
from smolora_core.training.memory import Strategies
from smolora_core.training.objective import Measured, Objective
from smolora_core.training.oom import Recovery, out_of_memory
from smolora_core.training.ranks import Ranks
from smolora_core.training.trainer import SmoLoRATrainer


@attrs.frozen(kw_only=True)
class Prepared:
    """A run that has its rows."""

    settled: Settled
    run: Run
    opened: Opened
    continuation: Continuation
    arguments: TrainingArguments
    tokenizer: Any
    sides: Sides
    collator: Collator
    strategies: Strategies
    ranks: Ranks


def make_saver(prepared: Prepared, adapted: Adapted) -> Saver:
    """Make what commits the checkpoints of a run."""
    run, config = prepared.run, prepared.run.config
    # An adapter is written whatever else is: runs go on from it, and the final folder is one.
    adapter_writer = build(run.plugins.registry.resolve(CheckpointWriter, "adapter"))
    chosen = {each.name: each.build() for each in prepared.settled.choices.writers}
    values, facts = prepared.continuation.values, prepared.continuation.facts

    def checkpoint(step: int, metrics: Mapping[str, float]) -> Checkpoint:
        return Checkpoint(
            step=step, model=adapted.model, tokenizer=prepared.tokenizer, metrics=metrics, config=values, facts=facts
        )

    writers = {"adapter": adapter_writer, **chosen}
    return Saver(prepared.opened.store, writers, checkpoint, config.checkpoints.save_failure, run.emit)


def make_trainer(prepared: Prepared, adapted: Adapted, save: Saver) -> tuple[SmoLoRATrainer, Speed]:
    """Make the trainer, and the model fast that it trains; what was done to the model is to be undone afterwards."""
    run, sides, collator = prepared.run, prepared.sides, prepared.collator
    training = run.config.training
    speed, objective = make_learning(adapted.model, prepared.settled.choices, collator.task, run.config)
    for text in speed.describe():
        run.emit("note", text=text)
    if speed.batching.name == "grouped" and "train_sampling_strategy" not in training.extra:
        prepared.arguments.train_sampling_strategy = "group_by_length"
    collate = attrs.evolve(collator, concatenate=speed.batching.collate)
    if training.per_device_train_batch_size == "auto":
        _size_micro_batches(prepared, adapted, objective, collate)
    trainer = SmoLoRATrainer(
        objective=objective,
        save=save,
        train_sampler=_budget_sampler(prepared, padded=speed.batching.collate is None),
        summarise=getattr(collator.task, "metrics", None),
        # An evaluation counts its rows by the micro-batches' first dimension.
        eval_collator=attrs.evolve(collator, epoch=None),
        warn=run.warn,
        recovery=Recovery(
            prepared.strategies.out_of_memory, run.emit, prepared.strategies.remedies(smaller_batch=prepared.ranks.size > 1)
        ),
        model=adapted.model,
        args=prepared.arguments,
        train_dataset=sides.train.dataset,
        eval_dataset=sides.held_out.dataset if sides.held_out else None,
        data_collator=collate,
        callbacks=[StepCallback(prepared.strategies), LearningGuard(run.warn), *_callbacks(run)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogEvents(run.emit, lambda: trainer.tokens_seen * prepared.ranks.size))
    return trainer, speed


def _size_micro_batches(prepared: Prepared, adapted: Adapted, objective: Objective, collate: Collator) -> None:
    """Find out how many rows fit, and let accumulation do the rest."""
    run, ranks, arguments = prepared.run, prepared.ranks, prepared.arguments
    dataset, effective = prepared.sides.train.dataset, run.config.training.effective_batch_size
    sizes = sizes_of(effective, ranks.size, len(dataset))

    def measure(batch: Mapping[str, Any]) -> Measured:
        dtype = torch.bfloat16 if arguments.bf16 else torch.float16
        with torch.autocast(run.device.type, dtype=dtype, enabled=arguments.bf16 or arguments.fp16):
            return objective(adapted.model, batch)

    def choose() -> tuple[int, str]:
        if prepared.continuation.micro_batch in sizes:
            return prepared.continuation.micro_batch or 0, "as before"
        try_out = try_micro_steps(adapted.model, measure, collate, longest_rows(dataset, sizes[-1]), run.device)
        return choose_rows(sizes, try_out, room_for_steps(adapted.model, run.device, ranks.size))

    # Processes that each measure may not agree.
    rows, reason = ranks.share(choose() if ranks.leads else (0, ""))
    if not rows:
        raise out_of_memory("with one of the longest rows, before training", prepared.strategies.remedies(smaller_batch=False))
    times = effective // (rows * ranks.size)
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = rows, times
    prepared.continuation.note("micro_batch", rows)
    run.emit("note", text=f"micro-batches of {rows} rows on {run.device}, accumulated {times} times ({reason})")


def _budget_sampler(prepared: Prepared, *, padded: bool) -> BudgetSampler | None:
    run, ranks, budget = prepared.run, prepared.ranks, prepared.run.config.training.max_tokens_per_batch
    if budget is None:
        return None
    seed = run.config.seed if prepared.arguments.data_seed is None else prepared.arguments.data_seed
    lengths = token_counts(prepared.sides.train.dataset)
    found = fill_micro_batches(lengths, budget, seed, padded=padded, ranks=ranks.size)
    full = sum(lengths) / (len(found) * budget)
    run.emit("note", text=f"{len(lengths)} rows make {len(found)} micro-batches of up to {budget} tokens, {full:.0%} full")
    return BudgetSampler(found, seed, ranks.rank, ranks.size)


def _callbacks(run: Run) -> list[TrainerCallback]:
    callbacks = []
    for origin, offered in run.plugins.tell("smolora_callbacks", run=run):
        for callback in offered if isinstance(offered, Iterable) else [offered]:
            if not isinstance(callback, TrainerCallback):
                what = f"smolora_callbacks gave {type(callback).__name__}"
                raise PluginError(what, where=f"{origin.title}:", hint="it gives transformers.TrainerCallback objects")
            callbacks.append(callback)
    return callbacks
