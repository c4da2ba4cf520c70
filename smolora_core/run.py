"""A run from config to outcome: open its folder, prepare, train, finish."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from smolora_core.checkpoints.continuation import Continuation
from smolora_core.checkpoints.disk import DISK
from smolora_core.checkpoints.index import replace_file
from smolora_core.checkpoints.saving import Saver
from smolora_core.checkpoints.store import Checkpoint
from smolora_core.components import CheckpointWriter
from smolora_core.config import Resolved
from smolora_core.config.dump import dump, plain
from smolora_core.config.secrets import Mask
from smolora_core.data.fingerprint import sequences_digest, text_digest
from smolora_core.data.sides import Sides, prepare_sides
from smolora_core.ending import ERROR_FILE, afterwards, close_failed, close_finished, masked
from smolora_core.errors import PluginError, SmoLoRAError, TrainingError
from smolora_core.model.adapter import Adapted
from smolora_core.model.device import pick_device
from smolora_core.model.digest import model_digest
from smolora_core.model.load import load_tokenizer, padding_id
from smolora_core.model.proof import prove_saved
from smolora_core.plugins import PluginManager, build
from smolora_core.report.events import Event, EventLog
from smolora_core.run_context import Outcome, Run
from smolora_core.run_folder import Opened, follow_run, locate, open_run
from smolora_core.settle import Settled, settle
from smolora_core.stages import account, adapt, audit, configure, measured_dtype, task_of
from smolora_core.training.arguments import make_arguments
from smolora_core.training.callbacks import LogEvents, StepCallback
from smolora_core.training.collator import Collator
from smolora_core.training.guards import LearningGuard
from smolora_core.training.memory import Strategies, build_strategies
from smolora_core.training.objective import make_objective
from smolora_core.training.profiling import profile_run
from smolora_core.training.ranks import Ranks
from smolora_core.training.signals import Interrupted
from smolora_core.training.speed import Speed, make_fast
from smolora_core.training.trainer import SmoLoRATrainer

__all__ = ["Outcome", "Run", "execute"]


def execute(
    resolved: Resolved,
    plugins: PluginManager,
    listener: Callable[[Event], None] = lambda event: None,
    rows: Any = None,
    *,
    resume: str = "never",
    overrides: Collection[str] = (),
) -> Outcome:
    """Run a config.

    Args:
        resolved: the config and where its values came from.
        plugins: the loaded plugins.
        listener: shown every event.
        rows: a dataset in memory, in place of `data.train`.
        resume: `never`, `auto`, or the checkpoint to go on from.
        overrides: keys that may be other than they were when the checkpoint was written.

    Raises:
        SmoLoRAError: something the user gave cannot be used, or the run failed; plugins are told of the outcome first.
        Interrupted: a signal has stopped the run, and its state is committed.
    """
    settled = settle(resolved, plugins, rows)
    config = settled.resolved.config
    device = pick_device(config.model.device, settled.resolved.where("model.device"))
    folder = locate(settled.resolved)
    ranks = Ranks.join(device)
    with _opened(folder, resume, config.checkpoints.keep, ranks) as opened:
        continuation = Continuation(opened.resumed_from, overrides, settled.resolved.where)
        continuation.config(plain(config), plugins.plugins)
        mask = Mask.of(config)
        emit = EventLog(folder / "events.jsonl", listener, mask).emit if ranks.leads else _say_nothing
        run = Run(config, folder, ranks.device(device), plugins, emit, mask, ranks.leads)
        opened.store.warn = run.warn
        if ranks.leads:
            replace_file(folder / "run.yaml", mask(dump(settled.resolved)).encode(), DISK)
            (folder / ERROR_FILE).unlink(missing_ok=True)
        for text in opened.notes:
            run.emit("note", text=text)
        try:
            outcome = _work(settled, run, rows, opened, continuation, ranks)
        except BaseException as error:
            if isinstance(error, SmoLoRAError):
                masked(error, mask)
            close_failed(run, error, opened.store)
            raise
        close_finished(run, outcome)
        return outcome


@contextmanager
def _opened(folder: Path, resume: str, keep: int, ranks: Ranks) -> Iterator[Opened]:
    """Open the run's folder in the first process, and let the others follow."""
    if not ranks.leads:
        yield follow_run(folder, *ranks.share(("", None)))
        return
    with open_run(folder, resume, keep=keep) as opened:
        place = opened.resumed_from.place if opened.resumed_from else None
        ranks.share((opened.store.run_id, place))
        yield opened


def _say_nothing(kind: str, **values: Any) -> None:
    """Leave speaking to the first process."""


@attrs.frozen(kw_only=True)
class _Prepared:
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


def _work(settled: Settled, run: Run, rows: Any, opened: Opened, continuation: Continuation, ranks: Ranks) -> Outcome:
    resolved, choices, config = settled.resolved, settled.choices, run.config
    # What transformers or a strategy refuses is refused before any row is read.
    arguments = make_arguments(config, run.folder, run.device, evaluates=config.data.eval is not None)
    strategies = build_strategies(choices.memory, run, resolved.where)
    tokenizer = load_tokenizer(config.model, resolved.where("model.path"))
    continuation.content("model.path", model_digest(config.model.path, settled.base_config))
    with ranks.leader_first():
        sides = prepare_sides(resolved, choices, tokenizer, settled.vocab_size, rows, run.emit)
    continuation.content("data.chat_template", text_digest(tokenizer.chat_template))
    continuation.content("data.train", sequences_digest(sides.train.dataset))
    collator = Collator(choices.task.build(), padding_id(tokenizer), config.seed)
    if config.data.streaming:
        run.emit("note", text=f"rows are prepared while training · {sides.train.shape}: {', '.join(sides.train.columns)}")
    else:
        account(run, sides)
    changes = configure(collator, run, sides, tokenizer, settled.base_config)
    audit(run, settled, sides.train, collator, tokenizer)
    prepared = _Prepared(
        settled=settled,
        run=run,
        opened=opened,
        continuation=continuation,
        arguments=arguments,
        tokenizer=tokenizer,
        sides=sides,
        collator=collator,
        strategies=strategies,
        ranks=ranks,
    )
    try:
        dtype = continuation.dtype or (ranks.share(measured_dtype(settled, run)) if ranks.size > 1 else None)
        adapted = adapt(settled, run, changes, strategies, dtype)
        continuation.model(adapted.model, str(adapted.model.dtype).removeprefix("torch."), str(run.device))
        outcome = _train(prepared, adapted)
    except BaseException as error:
        afterwards(run, error, strategies.run_finished)
        raise
    afterwards(run, None, strategies.run_finished)
    return outcome


def _train(prepared: _Prepared, adapted: Adapted) -> Outcome:
    save = _saver(prepared, adapted)
    trainer, speed = _trainer(prepared, adapted, save)
    try:
        return _run(prepared, adapted, save, trainer)
    finally:
        speed.undo()


def _run(prepared: _Prepared, adapted: Adapted, save: Saver, trainer: SmoLoRATrainer) -> Outcome:
    run, config, sides, tokenizer = prepared.run, prepared.run.config, prepared.sides, prepared.tokenizer
    if not config.data.streaming and len(trainer.get_train_dataloader()) == 0:
        raise TrainingError(f"{len(sides.train.dataset)} sequences make no batch", hint="make batches smaller")
    resumed_from = prepared.opened.resumed_from
    if resumed_from is not None:
        run.emit("resumed", step=resumed_from.manifest.step, checkpoint=str(resumed_from.place))
        for text in prepared.continuation.news():
            run.emit("note", text=text)
    elif sides.held_out:
        trainer.evaluate_now()
    with profile_run(run.folder / "profile.pstats", run.emit) if config.debug.profile_training else nullcontext():
        result = trainer.train(resume_from=resumed_from.place if resumed_from else None)
    step = trainer.state.global_step
    if trainer.stopped_by is not None:
        raise Interrupted(trainer.stopped_by, step)
    after = trainer.evaluate_now() if sides.held_out else {}
    if config.data.streaming:
        # Only now is it known what became of each row.
        account(run, sides)
    before = {f"{name}_before": value for name, value in trainer.metrics_before.items()}
    metrics = {"train_loss": result.training_loss, **after, **before}
    adapter = run.folder / "adapter"
    if run.leads:
        save.finish(step, metrics)
        run.emit("finished", steps=step, adapter=str(adapter), tensors_proved=prove_saved(adapted.model, adapter), **metrics)
    prepared.ranks.wait()
    return Outcome(status="finished", steps=step, metrics=metrics, adapter=adapter, model=adapted.model, tokenizer=tokenizer)


def _saver(prepared: _Prepared, adapted: Adapted) -> Saver:
    run, config = prepared.run, prepared.run.config
    # An adapter is written whatever else is: runs go on from it, and the final folder is one.
    adapter_writer = build(run.plugins.registry.resolve(CheckpointWriter, "adapter"))
    chosen = {each.name: each.build() for each in prepared.settled.choices.writers}
    values, facts = run.mask(plain(config)), prepared.continuation.facts

    def checkpoint(step: int, metrics: Mapping[str, float]) -> Checkpoint:
        return Checkpoint(
            step=step, model=adapted.model, tokenizer=prepared.tokenizer, metrics=metrics, config=values, facts=facts
        )

    writers = {"adapter": adapter_writer, **chosen}
    return Saver(prepared.opened.store, writers, checkpoint, config.checkpoints.save_failure, run.emit)


def _trainer(prepared: _Prepared, adapted: Adapted, save: Saver) -> tuple[SmoLoRATrainer, Speed]:
    run, sides, collator, loss = prepared.run, prepared.sides, prepared.collator, prepared.settled.choices.loss
    training = run.config.training
    wanted = "padded" if run.config.data.streaming and training.batching == "auto" else training.batching
    kind = getattr(loss.registered.component, "kind", "")
    speed = make_fast(adapted.model, collator.task, kind, batching=wanted, kernels=training.fast_kernels)
    for text in speed.describe():
        run.emit("note", text=text)
    if speed.batching.name == "grouped" and "train_sampling_strategy" not in training.extra:
        prepared.arguments.train_sampling_strategy = "group_by_length"
    observe = getattr(collator.task, "observe", None)
    trainer = SmoLoRATrainer(
        objective=make_objective(
            loss.registered,
            loss.build(),
            adapted.model,
            predicts=task_of(prepared.settled).predicts,
            weight_field=run.config.data.weight_field,
            observe=observe,
        ),
        save=save,
        summarise=getattr(collator.task, "metrics", None),
        # An evaluation counts its rows by the micro-batches' first dimension.
        eval_collator=attrs.evolve(collator, epoch=None),
        warn=run.warn,
        model=adapted.model,
        args=prepared.arguments,
        train_dataset=sides.train.dataset,
        eval_dataset=sides.held_out.dataset if sides.held_out else None,
        data_collator=attrs.evolve(collator, concatenate=speed.batching.collate),
        callbacks=[StepCallback(prepared.strategies), LearningGuard(run.warn), *_callbacks(run)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogEvents(run.emit, lambda: trainer.tokens_seen * prepared.ranks.size))
    return trainer, speed


def _callbacks(run: Run) -> list[TrainerCallback]:
    callbacks = []
    for origin, offered in run.plugins.tell("smolora_callbacks", run=run):
        for callback in offered if isinstance(offered, Iterable) else [offered]:
            if not isinstance(callback, TrainerCallback):
                what = f"smolora_callbacks gave {type(callback).__name__}"
                raise PluginError(what, where=f"{origin.title}:", hint="it gives transformers.TrainerCallback objects")
            callbacks.append(callback)
    return callbacks
