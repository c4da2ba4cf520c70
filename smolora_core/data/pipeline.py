"""The way of a row: source, preprocessors, example, tokens; and the ledger that accounts for each."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import attrs
from datasets.arrow_dataset import Dataset
from pyarrow.lib import Table, concat_tables

from smolora_core.components import Drop, Preprocessor, TaskImplementation
from smolora_core.config import DataConfig
from smolora_core.data.formats import Example, Shape, detect_shape
from smolora_core.data.ledger import Ledger
from smolora_core.data.rows import Located
from smolora_core.data.splits import Reader
from smolora_core.errors import DatasetError, Problem
from smolora_core.plugins import Registered
from smolora_core.plugins.loading import noting

__all__ = ["Prepared", "Step", "prepare"]

_BATCH = 1000

Rows = Iterator[Located]


@attrs.frozen
class Step:
    """A preprocessor ready to run: its record and origin, and the function with its options bound."""

    registered: Registered
    run: Callable[..., Any]

    @property
    def name(self) -> str:
        return self.registered.component.name


@attrs.frozen
class Prepared:
    """Token sequences of one split, what shape the rows had, and what became of each row."""

    dataset: Dataset
    shape: Shape
    ledger: Ledger


def prepare(
    read: Reader,
    config: DataConfig,
    steps: Sequence[Step],
    task: TaskImplementation,
    tokenizer: Any,
    extra: tuple[str, ...] = (),
) -> Prepared:
    """Turn the rows of one side into token sequences.

    Args:
        read: reads them.
        config: fields, lengths and what to do with bad rows.
        steps: preprocessors in the user's order.
        task: encodes examples.
        tokenizer: of the base model.
        extra: columns that the loss needs.

    Returns:
        A dataset of `input_ids` and `labels` (and the extra columns), with at least one supervised token.

    Raises:
        DatasetError: a row cannot be used and `on_bad_row` is `error`; nothing is left; nothing would be trained.
    """
    ledger = Ledger()
    flow = _read(read, config, ledger)
    for step in steps:
        flow = _through(flow, step, ledger)
    first = next(flow, None)
    if first is None:
        raise DatasetError(
            f"no row is left of {ledger.read}", hint=_reasons(ledger) or "data.eval holds out none: raise it, or give more rows"
        )
    shape = detect_shape(config, first.row, first.where, extra)
    examples = _examples(chain([first], flow), shape, config, ledger)
    tables = list(_encoded(examples, task, tokenizer, config, ledger))
    if not tables or not ledger.supervised:
        raise DatasetError(f"0 trainable tokens in {ledger.read} rows", hint=_reasons(ledger))
    return Prepared(Dataset(concat_tables(tables)), shape, ledger)


def _read(read: Reader, config: DataConfig, ledger: Ledger) -> Rows:
    def skip(problem: Problem) -> None:
        ledger.read += 1
        ledger.drop("read", problem.what, problem.where)

    for located in read(skip if config.on_bad_row == "drop" else None):
        ledger.read += 1
        yield located


def _through(rows: Rows, step: Step, ledger: Ledger) -> Rows:
    component = step.registered.component
    assert isinstance(component, Preprocessor)
    return _rows_through(rows, step, ledger) if component.scope == "row" else _dataset_through(rows, step, ledger)


def _rows_through(rows: Rows, step: Step, ledger: Ledger) -> Rows:
    for located in rows:
        with noting(step.registered.origin, f"preprocessing {located.where}"):
            result = step.run(dict(located.row))
        if isinstance(result, dict):
            yield Located(result, located.where)
        elif result is None or isinstance(result, Drop):
            ledger.drop(step.name, result.reason if result else "dropped", located.where)
        elif isinstance(result, list) and all(isinstance(row, dict) for row in result):
            if not result:
                ledger.drop(step.name, "made no rows", located.where)
            ledger.added += max(0, len(result) - 1)
            yield from (Located(row, located.where) for row in result)
        else:
            raise DatasetError(
                f"preprocessor {step.name!r} ({step.registered.origin}) returned {type(result).__name__}",
                where=located.where,
                hint="return the row, None, Drop('reason') or a list of rows",
            )


def _dataset_through(rows: Rows, step: Step, ledger: Ledger) -> Rows:
    before = [located.row for located in rows]
    if not before:
        return
    with noting(step.registered.origin, f"preprocessing {len(before)} rows"):
        after = step.run(Dataset.from_list(before), ledger)
    if not isinstance(after, Dataset):
        raise DatasetError(
            f"preprocessor {step.name!r} ({step.registered.origin}) returned {type(after).__name__}, not a Dataset"
        )
    ledger.added += max(0, len(after) - len(before))
    for _ in range(len(before) - len(after)):
        ledger.drop(step.name, "left out", step.name)
    for index, row in enumerate(after, start=1):
        yield Located(row, f"row {index} after {step.name}")


def _examples(rows: Rows, shape: Shape, config: DataConfig, ledger: Ledger) -> Iterator[tuple[Example, str]]:
    for located in rows:
        example = shape.read(located.row, located.where)
        if isinstance(example, Problem):
            if config.on_bad_row == "error":
                raise DatasetError.of([example])
            ledger.drop("read", example.what, located.where)
        else:
            yield example, located.where


def _encoded(
    examples: Iterator[tuple[Example, str]], task: TaskImplementation, tokenizer: Any, config: DataConfig, ledger: Ledger
) -> Iterator[Table]:
    while batch := list(islice(examples, _BATCH)):
        sequences: list[dict[str, Any]] = []
        encoded = task.encode([example for example, _ in batch], tokenizer, config.max_seq_length)
        for (example, where), result in zip(batch, encoded, strict=True):
            if isinstance(result, Drop):
                ledger.drop("encode", result.reason, where)
                continue
            ledger.kept += 1
            ledger.truncated += result.tokens_lost > 0
            ledger.tokens_lost += result.tokens_lost
            ledger.supervised += result.supervised
            sequences.extend({**sequence, **example.columns} for sequence in result.sequences)
        if sequences:
            ledger.sequences += len(sequences)
            ledger.tokens += sum(len(sequence["input_ids"]) for sequence in sequences)
            yield Table.from_pylist(sequences)


def _reasons(ledger: Ledger) -> str:
    return "; ".join(f"{count} rows: {reason}" for reason, count in ledger.reasons.most_common(3))
