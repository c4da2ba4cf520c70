"""A run from config to outcome: open its folder, prepare, train, finish."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from smolora_core.batches.collator import Collator
from smolora_core.checkpoints.identity import Continuation
from smolora_core.checkpoints.placing import replace_file
from smolora_core.checkpoints.resume_rules import check_overrides
from smolora_core.checkpoints.saver import Saver
from smolora_core.config import Resolved
from smolora_core.config.dump import dump, plain
from smolora_core.config.secrets import Mask
from smolora_core.data.fingerprint import text_digest
from smolora_core.data.prepare import prepare_sides
from smolora_core.errors import SmoLoRAError, TrainingError
from smolora_core.lora.attach import Adapted
from smolora_core.lora.proof import prove_saved
from smolora_core.model.device import pick_device
from smolora_core.model.load import load_tokenizer, model_digest, padding_id
from smolora_core.plugins import PluginManager
from smolora_core.plugins.source_digest import code_of
from smolora_core.report.events import Event, EventLog
from smolora_core.run.assemble import Prepared, make_saver, make_trainer
from smolora_core.run.context import Outcome, Run
from smolora_core.run.finish import ERROR_FILE, afterwards, close_failed, close_finished, masked
from smolora_core.run.folder import Opened, follow_run, locate, open_run
from smolora_core.run.job import Settled, settle
from smolora_core.run.prepare import account, adapt, audit, configure, measured_dtype
from smolora_core.training.arguments import make_arguments
from smolora_core.training.guards import failing_at
from smolora_core.training.memory import build_strategies
from smolora_core.training.oom import is_out_of_memory, out_of_memory
from smolora_core.training.profiling import profile_run
from smolora_core.training.ranks import Ranks
from smolora_core.training.signals import Interrupted
from smolora_core.training.trainer import SmoLoRATrainer


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
    check_overrides(overrides)
    mask = Mask.of(config)
    ranks = Ranks.join(device)
    with _opened(folder, resume, config.checkpoints.keep, ranks) as opened:
        continuation = Continuation(opened.resumed_from, overrides, settled.resolved.where)
        continuation.config(plain(config, mask), plugins.plugins)
        emit = EventLog(folder / "events.jsonl", listener, mask).emit if ranks.leads else _say_nothing
        run = Run(
            config, folder, ranks.device(device), plugins, emit, mask, ranks.leads, resumes=opened.resumed_from is not None
        )
        opened.store.warn = run.warn
        # A run that may not go on leaves everything as it is.
        if opened.resumed_from is None:
            _describe(run, settled.resolved)
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


def _describe(run: Run, resolved: Resolved) -> None:
    """Write down what the run is made from."""
    if run.leads:
        replace_file(run.folder / "run.yaml", dump(resolved, run.mask).encode())
        (run.folder / ERROR_FILE).unlink(missing_ok=True)


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


def _work(settled: Settled, run: Run, rows: Any, opened: Opened, continuation: Continuation, ranks: Ranks) -> Outcome:
    resolved, choices, config = settled.resolved, settled.choices, run.config
    # What transformers or a strategy refuses is refused before any row is read.
    arguments = make_arguments(config, run.folder, run.device, evaluates=config.data.eval is not None)
    strategies = build_strategies(choices.memory, run, resolved.where)
    continuation.content("memory", strategies.lossy)
    tokenizer = load_tokenizer(config.model, resolved.where("model.path"))
    continuation.content("model.path", model_digest(config.model.path, settled.base_config))
    with ranks.leader_first():
        sides = prepare_sides(resolved, choices, tokenizer, settled.vocab_size, rows, run.emit)
    continuation.content("data.chat_template", text_digest(tokenizer.chat_template))
    for key, digest in sides.fingerprints.items():
        continuation.content(key, digest)
    for chosen in (choices.task, choices.loss):
        # Of a package the version speaks; of a file or an object nothing else does.
        if not chosen.registered.origin.distribution:
            continuation.content(chosen.registered.component.noun, code_of(chosen.registered))
    if opened.resumed_from is not None:
        _describe(run, resolved)
    collator = Collator(choices.task.build(), padding_id(tokenizer), config.seed)
    if config.data.streaming:
        run.emit("note", text=f"rows are prepared while training · {sides.train.shape}: {', '.join(sides.train.columns)}")
    else:
        account(run, sides)
    changes = configure(collator, run, sides, tokenizer, settled.base_config)
    audit(run, settled, sides.train, collator, tokenizer)
    prepared = Prepared(
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
        if is_out_of_memory(error) and not isinstance(error, SmoLoRAError):
            raise out_of_memory("outside of a micro-batch", strategies.remedies(smaller_batch=False)) from error
        raise
    afterwards(run, None, strategies.run_finished)
    return outcome


def _train(prepared: Prepared, adapted: Adapted) -> Outcome:
    save = make_saver(prepared, adapted)
    trainer, speed = make_trainer(prepared, adapted, save)
    prepared.continuation.note("speed", list(speed.describe()))
    try:
        return _run(prepared, adapted, save, trainer)
    finally:
        speed.undo()


def _run(prepared: Prepared, adapted: Adapted, save: Saver, trainer: SmoLoRATrainer) -> Outcome:
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
    profiled = profile_run(run.folder / "profile.pstats", run.emit) if config.debug.profile_training else nullcontext()
    with profiled, failing_at(lambda: trainer.state.global_step):
        result = trainer.train(resume_from=resumed_from.place if resumed_from else None)
    step = trainer.state.global_step
    if trainer.stopped_by is not None:
        raise Interrupted(trainer.stopped_by, step)
    if step < trainer.state.max_steps:
        run.warn(f"training ended at step {step} of {trainer.state.max_steps}")
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
