"""The way of a batch of rows: preprocessors, examples, tokens; what one process does of the work."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
from pyarrow.lib import Table, array, int32, list_

from smolora_core.components import Drop, TaskImplementation
from smolora_core.data.formats import Example, Shape
from smolora_core.data.ledger import Ledger
from smolora_core.data.preprocess import Context, Step, through
from smolora_core.data.sources.located import Located
from smolora_core.data.splits import Reader
from smolora_core.errors import DatasetError, Problem

# Half the size of what Arrow would choose, and no vocabulary needs more.
_TOKENS = list_(int32())
_TOKEN_COLUMNS = ("input_ids", "labels")


@attrs.frozen
class Rules:
    """What holds for every row of a side.

    Attributes:
        context: what preprocessors are told.
        drops: whether rows that cannot be used are dropped and counted, and not an error.
        vocab_size: of the model, whose token ids are below it; None where it is not known.
    """

    context: Context
    drops: bool
    vocab_size: int | None = None

    def reject(self, ledger: Ledger, step: str, problem: Problem) -> None:
        """Account for a row that cannot be used.

        Raises:
            DatasetError: such a row is an error.
        """
        if not self.drops:
            raise DatasetError.of([problem])
        ledger.drop(step, problem.what, problem.where, lost=True)


@attrs.frozen
class Part:
    """What became of a batch of rows.

    Attributes:
        table: token sequences, or None where no row is left.
        ledger: the account of these rows.
        digests: of each example that was kept.
        prompts: of the first sequences, by their number, as far as asked for: the texts in them that are not trained.
    """

    table: Table | None
    ledger: Ledger
    digests: tuple[int, ...]
    prompts: Mapping[int, Sequence[str]]


@attrs.frozen
class Maker:
    """Makes parts; it holds all that a process needs for that.

    Attributes:
        steps: preprocessors that look at one row at a time.
        shape: how an example is taken out of a row.
        task: encodes examples.
    """

    steps: tuple[Step, ...]
    shape: Shape
    task: TaskImplementation
    rules: Rules

    def __call__(self, rows: Iterable[Located]) -> Part:
        """Put rows through the steps, take examples out of them, and encode these."""
        ledger = Ledger()
        return self.encode(run_steps(iter(rows), self.steps, self.rules, ledger), ledger)

    def encode(self, rows: Iterable[Located], ledger: Ledger, sampled: int = 0) -> Part:
        """Take examples out of rows that have been through the steps, and encode them.

        Args:
            rows: of a batch.
            ledger: the account of these rows.
            sampled: of how many sequences to keep the prompts.
        """
        examples = list(self._examples(rows, ledger))
        context = self.rules.context
        sequences: list[Mapping[str, Any]] = []
        digests: list[int] = []
        prompts: dict[int, Sequence[str]] = {}
        encoded = self.task.encode([example for example, _ in examples], context.tokenizer, context.max_seq_length)
        for (example, where), result in zip(examples, encoded, strict=True):
            if isinstance(result, Drop):
                ledger.drop("encode", result.reason, where, result.size, lost=True)
                continue
            if self.rules.vocab_size is not None:
                _check_ids(result.sequences, self.rules.vocab_size, where)
            ledger.kept += 1
            ledger.truncated += result.tokens_lost > 0
            ledger.tokens_lost += result.tokens_lost
            ledger.supervised += result.supervised
            ledger.open_ended += result.open_ended
            digests.append(example.digest())
            if len(sequences) < sampled:
                numbers = range(len(sequences), len(sequences) + len(result.sequences))
                prompts.update(dict.fromkeys(numbers, _untrained(example)))
            if example.columns:
                sequences.extend({**sequence, **example.columns} for sequence in result.sequences)
            else:
                sequences.extend(result.sequences)
        ledger.passed("encode", len(examples), ledger.kept)
        ledger.sequences += len(sequences)
        ledger.tokens += sum(len(sequence["input_ids"]) for sequence in sequences)
        return Part(_table(sequences) if sequences else None, ledger, tuple(digests), prompts)

    def _examples(self, rows: Iterable[Located], ledger: Ledger) -> Iterator[tuple[Example, str]]:
        for located in rows:
            example = self.shape.read(located.row, located.where)
            if isinstance(example, Problem):
                self.rules.reject(ledger, "read", example)
            else:
                yield example, located.where


def read_rows(read: Reader, rules: Rules, ledger: Ledger) -> Iterator[Located]:
    """Read rows and count them, those that cannot be read too where these are dropped.

    Raises:
        DatasetError: a row cannot be read, and such a row is an error.
    """

    def skip(problem: Problem) -> None:
        ledger.read += 1
        rules.reject(ledger, "read", problem)

    for located in read(skip if rules.drops else None):
        ledger.read += 1
        yield located


def run_steps(rows: Iterator[Located], steps: Iterable[Step], rules: Rules, ledger: Ledger) -> Iterator[Located]:
    """Put rows through steps, lazily."""
    for step in steps:
        rows = through(rows, step, rules.context, ledger, partial(rules.reject, ledger, step.name))
    return rows


def _untrained(example: Example) -> tuple[str, ...]:
    """The texts of an example that nothing should be learned from, but for what an answer quotes."""
    if example.conversation is None:
        given, learned = [example.prompt or ""], [example.text]
    else:
        turns = list(zip(example.conversation.messages, example.conversation.trained, strict=True))
        given, learned = ([said.get("content") or "" for said, trained in turns if trained is side] for side in (False, True))
    return tuple(text for text in given if text and not any(text in answer for answer in learned))


def _table(sequences: Sequence[Mapping[str, Any]]) -> Table:
    names = dict.fromkeys(name for sequence in sequences for name in sequence)
    types = {name: _TOKENS if name in _TOKEN_COLUMNS else None for name in names}
    return Table.from_pydict({name: array([row.get(name) for row in sequences], kind) for name, kind in types.items()})


def _check_ids(sequences: Sequence[Mapping[str, Any]], vocab_size: int, where: str) -> None:
    largest = max((max(sequence["input_ids"], default=0) for sequence in sequences), default=0)
    if largest >= vocab_size:
        what = f"holds token id {largest}, and the model's vocabulary ends at {vocab_size}"
        raise DatasetError(what, where=where, hint="is it this model's tokenizer?")
