"""The way of a row: source, preprocessors, example, tokens; and the ledger that accounts for each."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import attrs
from datasets.arrow_dataset import Dataset
from pyarrow.lib import Table, concat_tables

from smolora_core.components import Drop, TaskImplementation
from smolora_core.config import DataConfig
from smolora_core.data.formats import Example, Shape, peek_shape
from smolora_core.data.ledger import Ledger
from smolora_core.data.rows import OnBad
from smolora_core.data.splits import Reader
from smolora_core.data.steps import Context, Rows, Step, through
from smolora_core.errors import DatasetError, Problem

__all__ = ["Prepared", "Step", "prepare"]

_BATCH = 1000
_PEEKED = 20


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
    *,
    seed: int = 42,
    vocab_size: int | None = None,
    side: str = "data.train",
) -> Prepared:
    """Turn the rows of one side into token sequences.

    Args:
        read: reads them.
        config: fields, lengths and what to do with bad rows.
        steps: preprocessors in the user's order.
        task: encodes examples.
        tokenizer: of the base model.
        extra: columns that the loss needs.
        seed: of the run, for preprocessors.
        vocab_size: of the model, whose token ids are below it; None where it is not known.
        side: the config key the rows come by, for errors.

    Returns:
        A dataset of `input_ids` and `labels` (and the extra columns), with at least one supervised token.

    Raises:
        DatasetError: a row cannot be used and `on_bad_row` is `error`; nothing is left; nothing would be trained;
            a token is not in the vocabulary.
    """
    ledger = Ledger()
    drops = config.on_bad_row == "drop"
    where = "" if side == "data.train" else f"{side}:"

    def reject(problem: Problem) -> None:
        if not drops:
            raise DatasetError.of([problem])
        ledger.drop("read", problem.what, problem.where)

    flow = _read(read, ledger, reject if drops else None)
    for step in steps:
        flow = through(flow, step, Context(tokenizer, config.max_seq_length, seed), ledger, reject)
    # Where a bad row is an error, nothing behind the first one may be reported before it.
    first = list(islice(flow, _PEEKED if drops else 1))
    if not first:
        raise DatasetError(f"no row is left of {ledger.read}", where=where, hint=_reasons(ledger))
    shape = peek_shape(config, first, extra)
    examples = _examples(chain(first, flow), shape, reject)
    tables = list(_encoded(examples, task, tokenizer, config.max_seq_length, vocab_size, ledger))
    if not tables or not ledger.supervised:
        raise DatasetError(f"0 trainable tokens in {ledger.read} rows", where=where, hint=_reasons(ledger))
    return Prepared(Dataset(concat_tables(tables)), shape, ledger)


def _read(read: Reader, ledger: Ledger, reject: OnBad | None) -> Rows:
    def skip(problem: Problem) -> None:
        assert reject is not None
        ledger.read += 1
        reject(problem)

    for located in read(skip if reject else None):
        ledger.read += 1
        yield located


def _examples(rows: Rows, shape: Shape, reject: OnBad) -> Iterator[tuple[Example, str]]:
    for located in rows:
        example = shape.read(located.row, located.where)
        if isinstance(example, Problem):
            reject(example)
        else:
            yield example, located.where


def _encoded(
    examples: Iterator[tuple[Example, str]],
    task: TaskImplementation,
    tokenizer: Any,
    max_length: int,
    vocab_size: int | None,
    ledger: Ledger,
) -> Iterator[Table]:
    while batch := list(islice(examples, _BATCH)):
        sequences: list[dict[str, Any]] = []
        encoded = task.encode([example for example, _ in batch], tokenizer, max_length)
        for (example, where), result in zip(batch, encoded, strict=True):
            if isinstance(result, Drop):
                ledger.drop("encode", result.reason, where)
                continue
            if vocab_size is not None:
                _check_ids(result.sequences, vocab_size, where)
            ledger.kept += 1
            ledger.truncated += result.tokens_lost > 0
            ledger.tokens_lost += result.tokens_lost
            ledger.supervised += result.supervised
            sequences.extend({**sequence, **example.columns} for sequence in result.sequences)
        if sequences:
            ledger.sequences += len(sequences)
            ledger.tokens += sum(len(sequence["input_ids"]) for sequence in sequences)
            yield Table.from_pylist(sequences)


def _check_ids(sequences: Sequence[Mapping[str, Any]], vocab_size: int, where: str) -> None:
    largest = max((max(sequence["input_ids"], default=0) for sequence in sequences), default=0)
    if largest >= vocab_size:
        what = f"holds token id {largest}, and the model's vocabulary ends at {vocab_size}"
        raise DatasetError(what, where=where, hint="is it this model's tokenizer?")


def _reasons(ledger: Ledger) -> str:
    return "; ".join(f"{count} rows: {reason}" for reason, count in ledger.reasons.most_common(3))
