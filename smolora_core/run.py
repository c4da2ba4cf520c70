"""A run from config to outcome: plan, prepare, train, finish."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import torch
from transformers import PrinterCallback, TrainerCallback

from smolora_core.checkpoints.store import Checkpoint, commit, keep_latest
from smolora_core.components import CheckpointWriter, Task, TaskSetup, Writer
from smolora_core.config import Resolved, RunConfig
from smolora_core.config.dump import dump, plain
from smolora_core.data.audit import audit_labels
from smolora_core.data.pipeline import Prepared
from smolora_core.data.sides import Sides, prepare_sides
from smolora_core.errors import PluginError, TrainingError
from smolora_core.model.adapter import Adapted, adaptable_modules, attach, trainable_names
from smolora_core.model.device import pick_device
from smolora_core.model.load import load_base, load_tokenizer, padding_id, source_of
from smolora_core.model.options import targets_of
from smolora_core.model.proof import prove_saved
from smolora_core.plugins import PluginManager, build
from smolora_core.plugins.choosing import Choices, default_strategies
from smolora_core.plugins.loading import describe
from smolora_core.report.events import Event, EventLog
from smolora_core.report.page import write_page
from smolora_core.run_folder import claim, locate
from smolora_core.settle import Settled, settle
from smolora_core.training.arguments import make_arguments
from smolora_core.training.callbacks import LogEvents, StepCallback
from smolora_core.training.collator import Collator, EpochCallback
from smolora_core.training.guards import LearningGuard
from smolora_core.training.memory import Strategies
from smolora_core.training.objective import make_objective
from smolora_core.training.profiling import profile_code
from smolora_core.training.trainer import SmoLoRATrainer

__all__ = ["Outcome", "Run", "execute"]

_AUDITED = 1024


@attrs.frozen
class Run:
    """What hooks and memory strategies see of a run.

    Attributes:
        config: the values.
        folder: where everything is written.
        device: where it computes.
        plugins: every plugin and component.
        emit: writes an event and shows it: `run.emit("note", text="...")`.
    """

    config: RunConfig
    folder: Path
    device: torch.device
    plugins: PluginManager
    emit: Callable[..., None]


@attrs.frozen(kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `finished`, `failed` or `interrupted`.
        steps: optimizer steps taken.
        metrics: the last loss, and the evaluation before and after: its loss and what the task measures.
        adapter: the folder of the final adapter.
        model: the trained `PeftModel`.
        tokenizer: of the base model.
        error: what ended a run that did not finish.
    """

    status: str
    steps: int = 0
    metrics: dict[str, float] = attrs.field(factory=dict)
    adapter: Path | None = None
    model: Any = None
    tokenizer: Any = None
    error: BaseException | None = None


def execute(
    resolved: Resolved, plugins: PluginManager, listener: Callable[[Event], None] = lambda event: None, rows: Any = None
) -> Outcome:
    """Run a config.

    Args:
        resolved: the config and where its values came from.
        plugins: the loaded plugins.
        listener: shown every event.
        rows: a dataset in memory, in place of `data.train`.

    Raises:
        SmoLoRAError: something the user gave cannot be used, or the run failed; plugins are told of the outcome first.
    """
    settled = settle(resolved, plugins, rows)
    resolved = settled.resolved
    device = pick_device(resolved.config.model.device, resolved.where("model.device"))
    folder = locate(resolved)
    earlier = claim(folder)
    run = Run(resolved.config, folder, device, plugins, EventLog(folder / "events.jsonl", listener).emit)
    (folder / "run.yaml").write_text(dump(resolved), encoding="utf-8")
    if earlier is not None:
        run.emit("note", text=f"an earlier run was moved to {earlier}")
    try:
        outcome = _work(settled, run, rows)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        ended = Outcome(status=status, error=error)
        text = " ".join([describe(error), *getattr(error, "__notes__", ())])
        _afterwards(run, error, lambda: run.emit(status, text=text))
        _afterwards(run, error, lambda: plugins.tell("smolora_run_finished", run=run, outcome=ended))
        _afterwards(run, error, lambda: write_page(folder))
        raise
    _afterwards(run, None, lambda: plugins.tell("smolora_run_finished", run=run, outcome=outcome))
    _afterwards(run, None, lambda: write_page(folder))
    return outcome


def _work(settled: Settled, run: Run, rows: Any) -> Outcome:
    resolved, choices = settled.resolved, settled.choices
    # What transformers refuses is refused before any row is read.
    arguments = make_arguments(run.config, run.folder, run.device, evaluates=run.config.data.eval is not None)
    tokenizer = load_tokenizer(run.config.model, resolved.where("model.path"))
    sides = prepare_sides(settled.resolved, choices, tokenizer, settled.vocab_size, rows, run.emit)
    collator = Collator(choices.task.build(), padding_id(tokenizer), run.config.seed)
    if run.config.data.streaming:
        run.emit("note", text=f"rows are prepared while training · {sides.train.shape}: {', '.join(sides.train.columns)}")
    else:
        _account(run, sides)
    changes = _configure(collator, run, sides, tokenizer, settled.base_config)
    _audit(run, choices, sides.train, collator, tokenizer)
    chosen = default_strategies(run.plugins.registry, run.device.type) if choices.memory is None else choices.memory
    strategies = Strategies(tuple((each.registered.origin, each.build()) for each in chosen), run)
    try:
        adapted = _adapt(resolved, run, choices, settled.base_config, changes, strategies)
        outcome = _train(run, choices, adapted, collator, tokenizer, sides, strategies, arguments)
    except BaseException as error:
        _afterwards(run, error, strategies.run_finished)
        raise
    _afterwards(run, None, strategies.run_finished)
    return outcome


def _account(run: Run, sides: Sides) -> None:
    """Say and write down what became of each row."""
    ledger, train = sides.ledgers(), sides.train
    (run.folder / "ledger.json").write_text(json.dumps(ledger, indent=1, ensure_ascii=False), encoding="utf-8")
    run.emit("data", shape=train.shape, columns=train.columns, cached=train.cached, **ledger)
    if run.config.debug.save_intermediate and not run.config.data.streaming:
        train.dataset.save_to_disk(str(run.folder / "prepared"))


def _configure(collator: Collator, run: Run, sides: Sides, tokenizer: Any, base_config: Any) -> dict[str, Any]:
    """Let the task look at the encoded rows, and say what the model's config must hold for them."""
    configure = getattr(collator.task, "configure", None)
    if configure is None:
        return {}
    setup = TaskSetup(
        train=sides.train.dataset,
        held_out=sides.held_out.dataset if sides.held_out else None,
        tokenizer=tokenizer,
        pad_token_id=collator.pad_token_id,
        model_config=base_config,
        label_field=run.config.data.label_field,
    )
    return dict(configure(setup))


def _adapt(
    resolved: Resolved, run: Run, choices: Choices, base_config: Any, changes: Mapping[str, Any], strategies: Strategies
) -> Adapted:
    """Load the base, choose its targets and attach the adapter."""
    config, task = run.config, _task_of(choices)
    base = load_base(config.model, task, run.device, base_config, strategies.load_kwargs(), changes, config.seed)
    run.emit(
        "base",
        model=config.model.path,
        device=str(run.device),
        threads=torch.get_num_threads(),
        dtype=str(base.precision.dtype).removeprefix("torch."),
        reason=base.precision.reason,
    )
    targets = targets_of(
        config.lora,
        base_config.model_type,
        {name: shape for name, shape in adaptable_modules(base.model).items() if name not in base.heads},
        run.plugins.registry,
        resolved.where,
        tied=bool(getattr(base_config.get_text_config(), "tie_word_embeddings", False)),
    )
    adapted = attach(base.model, config.lora, targets, task, source_of(config.model), config.seed, modules_to_save=base.heads)
    trained = trainable_names(adapted.model)
    strategies.model_ready(adapted.model)
    run.plugins.tell("smolora_adapter_attached", model=adapted.model, run=run)
    if changed := sorted(trainable_names(adapted.model) ^ trained):
        raise TrainingError(
            f"a plugin changed what is trained: {len(changed)} tensors, {changed[0]!r} among them",
            hint="the adapter would not hold them: leave requires_grad as it is",
        )
    run.emit(
        "targets",
        patterns=targets.shown,
        modules=len(targets.modules),
        reason=targets.reason,
        trainable=adapted.trainable,
        total=adapted.total,
    )
    return adapted


def _train(
    run: Run,
    choices: Choices,
    adapted: Adapted,
    collator: Collator,
    tokenizer: Any,
    sides: Sides,
    strategies: Strategies,
    arguments: Any,
) -> Outcome:
    config, model = run.config, adapted.model
    writers = {each.name: each.build() for each in choices.writers}
    # The final folder is an adapter whatever else is written.
    adapter_writer = build(run.plugins.registry.resolve(CheckpointWriter, "adapter"))
    values = plain(config)

    def save(name: str, step: int, metrics: Mapping[str, float], chosen: Mapping[str, Writer]) -> Path:
        checkpoint = Checkpoint(step=step, model=model, tokenizer=tokenizer, metrics=metrics, config=values)
        place = commit(checkpoint, run.folder / name, chosen.items())
        run.emit("checkpoint", step=step, path=str(place))
        return place

    def save_checkpoint(step: int, metrics: Mapping[str, float]) -> None:
        save(f"checkpoint-{step}", step, metrics, writers)
        keep_latest(run.folder, config.checkpoints.keep)

    def warn(text: str) -> None:
        run.emit("warning", text=text)

    trainer = SmoLoRATrainer(
        objective=make_objective(
            choices.loss.registered,
            choices.loss.build(),
            model,
            predicts=_task_of(choices).predicts,
            weight_field=config.data.weight_field,
            observe=getattr(collator.task, "observe", None),
        ),
        save=save_checkpoint,
        summarise=getattr(collator.task, "metrics", None),
        eval_collator=attrs.evolve(collator, epoch=None),
        warn=warn,
        model=model,
        args=arguments,
        train_dataset=sides.train.dataset,
        eval_dataset=sides.held_out.dataset if sides.held_out else None,
        data_collator=collator,
        callbacks=[StepCallback(strategies), EpochCallback(collator), LearningGuard(warn), *_callbacks(run)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogEvents(run.emit, lambda: trainer.tokens_seen))
    if not config.data.streaming and len(trainer.get_train_dataloader()) == 0:
        raise TrainingError(f"{len(sides.train.dataset)} sequences make no batch", hint="make batches smaller")
    before = trainer.evaluate_now() if sides.held_out else {}
    with profile_code(run.folder / "profile.pstats") if config.debug.profile_training else nullcontext():
        result = trainer.train()
    after = trainer.evaluate_now() if sides.held_out else {}
    if config.data.streaming:
        # Only now is it known what became of each row.
        _account(run, sides)
    metrics = {"train_loss": result.training_loss, **after, **{f"{name}_before": value for name, value in before.items()}}
    adapter = save("adapter", trainer.state.global_step, metrics, {"adapter": adapter_writer, **writers})
    proved = prove_saved(model, adapter)
    run.emit("finished", steps=trainer.state.global_step, adapter=str(adapter), tensors_proved=proved, **metrics)
    return Outcome(
        status="finished", steps=trainer.state.global_step, metrics=metrics, adapter=adapter, model=model, tokenizer=tokenizer
    )


def _task_of(choices: Choices) -> Task:
    task = choices.task.registered.component
    assert isinstance(task, Task)
    return task


def _audit(run: Run, choices: Choices, train: Prepared, collate: Collator, tokenizer: Any) -> None:
    """Look at what the batches will train, before anything is trained: whether the model learns to write, and to stop."""
    if not _task_of(choices).writes:
        return
    size = run.config.training.per_device_train_batch_size
    audit = audit_labels(train.some(_AUDITED), collate, tokenizer, size, train.prompts)
    run.emit("labels", **attrs.asdict(audit))
    for text in audit.warnings():
        run.emit("warning", text=text)


def _callbacks(run: Run) -> list[TrainerCallback]:
    callbacks = []
    for origin, offered in run.plugins.tell("smolora_callbacks", run=run):
        for callback in offered if isinstance(offered, Iterable) else [offered]:
            if not isinstance(callback, TrainerCallback):
                what = f"smolora_callbacks gave {type(callback).__name__}"
                raise PluginError(what, where=f"{origin.title}:", hint="it gives transformers.TrainerCallback objects")
            callbacks.append(callback)
    return callbacks


def _afterwards(run: Run, error: BaseException | None, action: Callable[[], object]) -> None:
    """Let plugins clean up; what goes wrong there must not hide how the run ended."""
    try:
        action()
    except Exception as late:
        text = " ".join([describe(late), *getattr(late, "__notes__", ())])
        if error is not None:
            error.add_note(f"after that came {text}")
        else:
            run.emit("warning", text=text)
