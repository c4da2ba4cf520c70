"""A run from config to outcome: plan, prepare, train, finish."""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import torch
from transformers import PrinterCallback

from smolora_core.checkpoints.store import Checkpoint, commit, keep_latest
from smolora_core.components import Task, TaskImplementation
from smolora_core.config import Resolved, RunConfig
from smolora_core.config.dump import dump, plain
from smolora_core.data.pipeline import Prepared, Step, prepare
from smolora_core.data.splits import open_splits
from smolora_core.model.adapter import Adapted, adaptable_modules, attach
from smolora_core.model.device import pick_device
from smolora_core.model.header import is_folder, read_header
from smolora_core.model.load import load_base, load_tokenizer, padding_id, read_config, source_of
from smolora_core.model.proof import prove_saved
from smolora_core.model.targets import choose_targets
from smolora_core.plugins import PluginManager
from smolora_core.plugins.choosing import Choices, choose_components, default_strategies, spell_out
from smolora_core.report.events import Event, EventLog
from smolora_core.training.arguments import make_arguments
from smolora_core.training.callbacks import LogEvents, StepCallback
from smolora_core.training.memory import Strategies
from smolora_core.training.objective import make_objective
from smolora_core.training.profiling import profile_code
from smolora_core.training.trainer import SmoLoRATrainer

__all__ = ["Outcome", "Run", "execute"]


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
        metrics: the last loss, and the evaluation before and after.
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
    config = resolved.config
    folder = Path(config.output_dir)
    where = resolved.where("model")
    if is_folder(config.model.path):
        architectures = read_header(config.model.path, where).config.get("architectures")
    else:
        architectures = read_config(config.model, where).architectures
    choices = choose_components(resolved, plugins.registry, architectures or ())
    assert choices is not None
    resolved = spell_out(resolved, choices)
    config = resolved.config
    device = pick_device(config.model.device, resolved.where("model.device"))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    events = EventLog(folder / "events.jsonl", listener)
    run = Run(config, folder, device, plugins, events.emit)
    (folder / "run.yaml").write_text(dump(resolved), encoding="utf-8")
    try:
        outcome = _work(resolved, run, choices, rows)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        _tell_finished(run, Outcome(status=status, error=error))
        raise
    _tell_finished(run, outcome)
    return outcome


def _work(resolved: Resolved, run: Run, choices: Choices, rows: Any) -> Outcome:
    tokenizer = load_tokenizer(run.config.model, resolved.where("model"))
    task = choices.task.build()
    train, held_out = _prepare(resolved, run, choices, task, tokenizer, rows)
    chosen = default_strategies(run.plugins.registry, run.device.type) if choices.memory is None else choices.memory
    strategies = Strategies(tuple((each.registered.origin, each.build()) for each in chosen), run)
    adapted = _adapt(resolved, run, choices, strategies)
    try:
        return _train(run, choices, adapted, task, tokenizer, train, held_out, strategies)
    finally:
        strategies.run_finished()


def _prepare(
    resolved: Resolved, run: Run, choices: Choices, task: TaskImplementation, tokenizer: Any, rows: Any
) -> tuple[Prepared, Prepared | None]:
    """Turn rows into token sequences, and write down what became of each."""
    config = run.config.data
    columns = getattr(choices.loss.registered.component, "columns", ())
    steps = [Step(each.registered, each.build()) for each in choices.preprocessors]
    splits = open_splits(config, resolved.where("data.train"), resolved.where("data.eval"), rows)
    train = prepare(splits.train, config, steps, task, tokenizer, columns)
    held_out = prepare(splits.held_out, config, steps, task, tokenizer, columns) if splits.held_out else None
    ledger = {"train": train.ledger.as_dict(), **({"eval": held_out.ledger.as_dict()} if held_out else {})}
    (run.folder / "ledger.json").write_text(json.dumps(ledger, indent=1, ensure_ascii=False), encoding="utf-8")
    run.emit("data", shape=train.shape.name, columns=train.shape.columns, **ledger)
    if run.config.debug.save_intermediate:
        train.dataset.save_to_disk(str(run.folder / "prepared"))
    return train, held_out


def _adapt(resolved: Resolved, run: Run, choices: Choices, strategies: Strategies) -> Adapted:
    """Load the base, choose its targets and attach the adapter."""
    config = run.config
    task = choices.task.registered.component
    assert isinstance(task, Task)
    transformers_config = read_config(config.model, resolved.where("model"))
    base = load_base(config.model, task, run.device, transformers_config, strategies.load_kwargs())
    run.emit(
        "base",
        model=config.model.path,
        device=str(run.device),
        threads=torch.get_num_threads(),
        dtype=str(base.precision.dtype).removeprefix("torch."),
        reason=base.precision.reason,
    )
    targets = choose_targets(
        config.lora.target_modules,
        transformers_config.model_type,
        adaptable_modules(base.model),
        run.plugins.registry,
        resolved.where("lora.target_modules"),
    )
    adapted = attach(base.model, config.lora, targets, task, source_of(config.model), config.seed)
    strategies.model_ready(adapted.model)
    for _ in run.plugins.tell("smolora_adapter_attached", model=adapted.model, run=run):
        pass
    run.emit(
        "targets",
        patterns=targets.patterns,
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
    task: TaskImplementation,
    tokenizer: Any,
    train: Prepared,
    held_out: Prepared | None,
    strategies: Strategies,
) -> Outcome:
    config, model = run.config, adapted.model
    writers = [(each.name, each.build()) for each in choices.writers]
    values = plain(config)

    def save(step: int, metrics: Mapping[str, float], name: str = "") -> Path:
        checkpoint = Checkpoint(step=step, model=model, tokenizer=tokenizer, metrics=metrics, config=values)
        place = commit(checkpoint, run.folder / (name or f"checkpoint-{step}"), writers)
        run.emit("checkpoint", step=step, path=str(place))
        if not name:
            keep_latest(run.folder, config.checkpoints.keep)
        return place

    callbacks = [callback for _, offered in run.plugins.tell("smolora_callbacks", run=run) for callback in offered]
    trainer = SmoLoRATrainer(
        objective=make_objective(choices.loss.registered, choices.loss.build(), model),
        save=lambda step, metrics: save(step, metrics),
        model=model,
        args=make_arguments(config, run.device, evaluates=held_out is not None),
        train_dataset=train.dataset,
        eval_dataset=held_out.dataset if held_out else None,
        data_collator=lambda rows: task.collate(rows, padding_id(tokenizer)),
        callbacks=[StepCallback(strategies), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LogEvents(run.emit, lambda: trainer.tokens_seen))
    before = trainer.evaluate_now() if held_out else {}
    with profile_code(run.folder / "profile.pstats") if config.debug.profile_training else nullcontext():
        result = trainer.train()
    after = trainer.evaluate_now() if held_out else {}
    metrics = {"train_loss": result.training_loss, **after, **{f"{name}_before": value for name, value in before.items()}}
    adapter = save(trainer.state.global_step, metrics, "adapter")
    proved = prove_saved(model, adapter)
    run.emit("finished", steps=trainer.state.global_step, adapter=str(adapter), tensors_proved=proved, **metrics)
    return Outcome(
        status="finished", steps=trainer.state.global_step, metrics=metrics, adapter=adapter, model=model, tokenizer=tokenizer
    )


def _tell_finished(run: Run, outcome: Outcome) -> None:
    for _ in run.plugins.tell("smolora_run_finished", run=run, outcome=outcome):
        pass
