"""Prepare a run's rows, count those kept and dropped, and audit their labels as they will be batched; or only the first."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import attrs
from datasets.combine import concatenate_datasets

from smolora_core.batches.padding import Collator
from smolora_core.batches.tokens import padding_id
from smolora_core.checkpoints.disk import replace_file
from smolora_core.components import TaskImplementation
from smolora_core.data.fingerprint import text_digest
from smolora_core.data.label_audit import audit_labels
from smolora_core.data.pipeline import EncodedBatches
from smolora_core.data.prepare import PreparedSplits, chat_notes, prepare_splits, recipe_for, set_template
from smolora_core.data.splits import open_splits
from smolora_core.model.load import load_tokenizer
from smolora_core.run.context import OpenRun
from smolora_core.run.job import Job

_AUDITED = 1024


@attrs.frozen(kw_only=True)
class Dataset:
    """The rows of a run.

    Attributes:
        tokenizer: the base model's tokenizer.
        splits: the rows to train on and those held out.
        collator: collates them into micro-batches.
        digests: digests of the rows and the chat template, by config key.
    """

    tokenizer: Any
    splits: PreparedSplits
    collator: Collator
    digests: Mapping[str, str | None]

    @property
    def train(self) -> Any:
        """The encoded rows to train on."""
        return self.splits.train.dataset

    @property
    def held_out(self) -> Mapping[str, Any]:
        """The encoded rows of each held-out set, by name; a single set without one is called ''."""
        return {key.removeprefix("data.eval").lstrip("."): each.dataset for key, each in self.splits.held_out.items()}


def prepare_rows(job: Job, run: OpenRun) -> Dataset:
    """Tokenize the rows or load them from the cache; of several processes, the first one tokenizes.

    Raises:
        DatasetError: a row cannot be used, or no row is left to train on.
        ModelLoadError: the tokenizer cannot be loaded.
    """
    run.emit("status", text="reading rows")
    tokenizer = load_tokenizer(job.config.model, job.where("model.path"))
    recipe = recipe_for(job.resolved, job.choices, tokenizer, job.vocab_size)
    with run.ranks.leader_first():
        splits = prepare_splits(job.resolved, job.choices, recipe, job.rows, run.emit)
    digests = {"data.chat_template": text_digest(tokenizer.chat_template), **splits.digests}
    collator = Collator(recipe.task, padding_id(tokenizer), job.config.seed)
    return Dataset(tokenizer=tokenizer, splits=splits, collator=collator, digests=digests)


def inspect_rows(job: Job, run: OpenRun, dataset: Dataset) -> dict[str, Any]:
    """Report how many rows were kept and dropped, let the task inspect them, and audit their labels.

    Returns:
        Changes to the model's config that the task needs for these rows.

    Raises:
        SmoLoRAError: the task cannot use the rows, or every label is masked.
    """
    train = dataset.splits.train
    if job.config.data.streaming:
        run.emit("note", text=f"rows are prepared during training · {train.shape}: {', '.join(train.columns)}")
    else:
        write_ledger(run, dataset.splits)
    held_out = concatenate_datasets([*dataset.held_out.values()]) if dataset.held_out else None
    changes = dataset.collator.configure(dataset.train, held_out, dataset.tokenizer, job.base_config, job.config.data)
    if job.choices.task.component.writes:
        run.emit("status", text="checking labels")
        _audit(run, dataset)
    return changes


def write_ledger(run: OpenRun, splits: PreparedSplits) -> None:
    """Record and report how many rows were kept or dropped, and why."""
    if not run.leads:
        return
    ledgers, train = splits.ledgers(), splits.train
    content = json.dumps(ledgers, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    replace_file(run.folder / "ledger.json", content)
    run.emit("data", shape=train.shape, columns=train.columns, cached=train.cached, **ledgers)
    if run.config.debug.save_intermediate and not run.config.data.streaming:
        train.dataset.save_to_disk(str(run.folder / "prepared"))


def _audit(run: OpenRun, dataset: Dataset) -> None:
    training, train = run.config.training, dataset.splits.train
    size = training.per_device_train_batch_size
    # The micro-batch size is not measured before the model is loaded.
    size = training.units_per_step() if size == "auto" else size
    found = audit_labels(train.sample(_AUDITED), dataset.collator, dataset.tokenizer, size, train.prompts)
    run.emit("labels", **attrs.asdict(found))
    for text in found.warnings():
        run.warn(text)


@attrs.frozen
class FirstRows:
    """The first rows of a run, encoded while they are iterated over, which is possible once.

    Attributes:
        task: the task's implementation.
        tokenizer: the base model's tokenizer.
    """

    task: TaskImplementation
    tokenizer: Any
    _parts: EncodedBatches
    _notes: tuple[str, ...]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (row for part in self._parts if part.table is not None for row in part.table.to_pylist())

    def account(self) -> dict[str, Any]:
        """Return the `shape`, `columns` and `ledger` of the rows so far, at least one, and `notes` on what was guessed."""
        found = self._parts.account()
        notes = (*self._notes, *chat_notes(self.tokenizer, found["shape"]))
        return {"shape": found["shape"], "columns": found["columns"], "notes": notes, "ledger": self._parts.ledger}


def encode_first(job: Job, limit: int | None) -> FirstRows:
    """Encode at most `limit` of the rows to train on, as they are read.

    Raises:
        SmoLoRAError: the tokenizer cannot be loaded, or a row cannot be used.
    """
    tokenizer = load_tokenizer(job.config.model, job.where("model.path"))
    template = set_template(tokenizer, job.resolved)
    recipe = recipe_for(job.resolved, job.choices, tokenizer, job.vocab_size)
    splits = open_splits(job.config.data, job.where, job.rows)
    parts = EncodedBatches(lambda on_bad: islice(splits.train(on_bad), limit), recipe)
    return FirstRows(recipe.task, tokenizer, parts, (*splits.notes(), *template))
