"""Turn a batch of rows into token sequences: preprocess, read examples, encode. This runs in one process."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
from pyarrow.lib import Table, array, int32, list_

from smolora_core.components import Drop, TaskImplementation
from smolora_core.data.formats import Example, Shape
from smolora_core.data.ledger import Ledger
from smolora_core.data.preprocess import Context, Step, run_step
from smolora_core.data.sources.located import Located
from smolora_core.data.splits import Reader
from smolora_core.errors import DatasetError, Problem

# Half the size of Arrow's default, and large enough for any vocabulary.
_TOKENS = list_(int32())
_TOKEN_COLUMNS = ("input_ids", "labels")


@attrs.frozen
class Rules:
    """The rules that apply to every row of a split.

    Attributes:
        context: the context for preprocessors.
        drops_bad_rows: whether rows that cannot be used are dropped and counted, instead of raising.
        vocab_size: the size of the model's vocabulary; None if unknown.
    """

    context: Context
    drops_bad_rows: bool
    vocab_size: int | None = None

    def drop_or_raise(self, ledger: Ledger, step: str, problem: Problem) -> None:
        """Count a row that cannot be used, or raise its problem as a DatasetError."""
        if not self.drops_bad_rows:
            raise DatasetError.of([problem])
        ledger.drop(step, problem.what, problem.where, lost=True)


@attrs.frozen
class EncodedBatch:
    """The result of one batch of rows.

    Attributes:
        table: the token sequences; None if no row is left.
        ledger: the ledger of these rows.
        digests: the digest of each example that was kept.
        prompts: for the first sequences, by index: their unsupervised texts.
    """

    table: Table | None
    ledger: Ledger
    digests: tuple[int, ...]
    prompts: Mapping[int, Sequence[str]]


@attrs.frozen
class Maker:
    """Makes parts from batches of rows; self-contained, so that it can be sent to a worker process."""

    steps: tuple[Step, ...]
    shape: Shape
    task: TaskImplementation
    rules: Rules

    def __call__(self, rows: Iterable[Located]) -> EncodedBatch:
        """Preprocess and encode a batch of rows."""
        ledger = Ledger()
        return self.encode(run_steps(iter(rows), self.steps, self.rules, ledger), ledger)

    def encode(self, rows: Iterable[Located], ledger: Ledger, sampled: int = 0) -> EncodedBatch:
        """Encode preprocessed rows, and keep the prompts of the first `sampled` sequences."""
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
                indices = range(len(sequences), len(sequences) + len(result.sequences))
                prompts.update(dict.fromkeys(indices, _unsupervised_texts(example)))
            sequences.extend({**sequence, **example.columns} for sequence in result.sequences)
        ledger.passed("encode", len(examples), ledger.kept)
        ledger.sequences += len(sequences)
        ledger.tokens += sum(len(sequence["input_ids"]) for sequence in sequences)
        return EncodedBatch(_table(sequences) if sequences else None, ledger, tuple(digests), prompts)

    def _examples(self, rows: Iterable[Located], ledger: Ledger) -> Iterator[tuple[Example, str]]:
        for located in rows:
            example = self.shape.read(located.row, located.where)
            if isinstance(example, Problem):
                self.rules.drop_or_raise(ledger, "read", example)
            else:
                yield example, located.where


def read_rows(read: Reader, rules: Rules, ledger: Ledger) -> Iterator[Located]:
    """Read and count rows; unreadable ones are dropped and counted too, or raise a DatasetError."""

    def skip(problem: Problem) -> None:
        ledger.read += 1
        rules.drop_or_raise(ledger, "read", problem)

    for located in read(skip if rules.drops_bad_rows else None):
        ledger.read += 1
        yield located


def run_steps(rows: Iterator[Located], steps: Iterable[Step], rules: Rules, ledger: Ledger) -> Iterator[Located]:
    """Run steps over rows, lazily."""
    for step in steps:
        rows = run_step(rows, step, rules.context, ledger, partial(rules.drop_or_raise, ledger, step.name))
    return rows


def _unsupervised_texts(example: Example) -> tuple[str, ...]:
    """List the texts of an example that must not be supervised, except those that an answer quotes."""
    if example.conversation is None:
        prompts, answers = [example.prompt or ""], [example.text]
    else:
        prompts, answers = [], []
        for message, is_trained in zip(example.conversation.messages, example.conversation.trained, strict=True):
            (answers if is_trained else prompts).append(message.get("content") or "")
    return tuple(text for text in prompts if text and not any(text in answer for answer in answers))


def _table(sequences: Sequence[Mapping[str, Any]]) -> Table:
    names = dict.fromkeys(name for sequence in sequences for name in sequence)
    types = {name: _TOKENS if name in _TOKEN_COLUMNS else None for name in names}
    return Table.from_pydict({name: array([row.get(name) for row in sequences], kind) for name, kind in types.items()})


def _check_ids(sequences: Sequence[Mapping[str, Any]], vocab_size: int, where: str) -> None:
    largest = max((max(sequence["input_ids"], default=0) for sequence in sequences), default=0)
    if largest >= vocab_size:
        what = f"contains token id {largest}, but the model's vocabulary has size {vocab_size}"
        raise DatasetError(what, where=where, hint="does the tokenizer belong to this model?")
