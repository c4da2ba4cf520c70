"""The stages of a run before its first step: rows accounted for, the model configured for them and adapted, labels audited."""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from smolora_core.batches.collator import Collator
from smolora_core.checkpoints.placing import replace_file
from smolora_core.components import Task, TaskSetup
from smolora_core.data.label_audit import audit_labels
from smolora_core.data.pipeline import Prepared
from smolora_core.data.prepare import Sides
from smolora_core.errors import TrainingError
from smolora_core.lora.attach import Adapted, adaptable_modules, attach, trainable_names
from smolora_core.lora.options import targets_of
from smolora_core.model.load import load_base, precision_of, source_of
from smolora_core.run.context import Run
from smolora_core.run.job import Settled
from smolora_core.training.memory import Strategies

_AUDITED = 1024


def account(run: Run, sides: Sides) -> None:
    """Say and write down what became of each row."""
    if not run.leads:
        return
    ledger, train = sides.ledgers(), sides.train
    content = json.dumps(ledger, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    replace_file(run.folder / "ledger.json", content)
    run.emit("data", shape=train.shape, columns=train.columns, cached=train.cached, **ledger)
    if run.config.debug.save_intermediate and not run.config.data.streaming:
        train.dataset.save_to_disk(str(run.folder / "prepared"))


def configure(collator: Collator, run: Run, sides: Sides, tokenizer: Any, base_config: Any) -> dict[str, Any]:
    """Let the task look at the encoded rows, and say what the model's config must hold for them."""
    look = getattr(collator.task, "configure", None)
    if look is None:
        return {}
    setup = TaskSetup(
        train=sides.train.dataset,
        held_out=sides.held_out.dataset if sides.held_out else None,
        tokenizer=tokenizer,
        pad_token_id=collator.pad_token_id,
        model_config=base_config,
        label_field=run.config.data.label_field,
    )
    return dict(look(setup))


def adapt(settled: Settled, run: Run, changes: Mapping[str, Any], strategies: Strategies, dtype: Any = None) -> Adapted:
    """Load the base, choose its targets and attach the adapter.

    Args:
        settled: what the run is made from.
        run: whose device and events are used.
        changes: of the model's config.
        strategies: asked for arguments of loading, and shown the model.
        dtype: of the base, where a run that is continued has measured it already.
    """
    config, task, base_config = run.config, task_of(settled), settled.base_config
    model = attrs.evolve(config.model, dtype=dtype) if dtype and config.model.dtype == "auto" else config.model
    base = load_base(model, task, run.device, base_config, strategies.load_kwargs(), changes, config.seed)
    run.emit(
        "base",
        model=config.model.path,
        device=str(run.device),
        threads=torch.get_num_threads(),
        dtype=str(base.precision.dtype).removeprefix("torch."),
        reason=base.precision.reason if model.dtype == config.model.dtype else "as before, or as in the first process",
    )
    targets = targets_of(
        config.lora,
        base_config.model_type,
        {name: shape for name, shape in adaptable_modules(base.model).items() if name not in base.heads},
        run.plugins.registry,
        settled.resolved.where,
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


def measured_dtype(settled: Settled, run: Run) -> str:
    """Choose the format of the base once for all processes; each would measure, and they might not agree."""
    return str(precision_of(run.config.model, run.device, settled.base_config).dtype).removeprefix("torch.")


def audit(run: Run, settled: Settled, train: Prepared, collate: Collator, tokenizer: Any) -> None:
    """Look at what the batches will train, before anything is trained: whether the model learns to write, and to stop."""
    if not task_of(settled).writes:
        return
    training = run.config.training
    size = training.per_device_train_batch_size
    # How many rows fit is not known before there is a model.
    size = training.effective_batch_size if size == "auto" else size
    found = audit_labels(train.some(_AUDITED), collate, tokenizer, size, train.prompts)
    run.emit("labels", **attrs.asdict(found))
    for text in found.warnings():
        run.warn(text)


def task_of(settled: Settled) -> Task:
    """The record of the task that is learned."""
    task = settled.choices.task.registered.component
    assert isinstance(task, Task)
    return task
