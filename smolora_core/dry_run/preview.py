"""A preview: the first rows as the model will see them, tokens and labels, without loading the model."""

from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

import attrs

from smolora_core.batches.padding import IGNORED
from smolora_core.data.ledger import Ledger
from smolora_core.data.pipeline import EncodedBatches, Recipe
from smolora_core.data.prepare import chat_notes, recipe_for, set_template
from smolora_core.data.sources.located import Located, OnBad
from smolora_core.data.splits import open_splits
from smolora_core.model.load import load_tokenizer
from smolora_core.run.check import Checked
from smolora_core.run.job import Job, resolve_job

# A preprocessor of whole datasets is given this many rows.
_READ_AT_ONCE = 1000


@attrs.frozen
class Piece:
    """Adjacent tokens that are all supervised, or all unsupervised."""

    text: str
    tokens: int
    supervised: bool


@attrs.frozen
class TokenSequence:
    """What the model sees of a row, or of one part of a long one.

    Attributes:
        pieces: its tokens.
        learned: labels and values of the sequence as a whole: `label spam`, `scores 3.5, 2.0`.
    """

    pieces: tuple[Piece, ...]
    learned: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        return sum(piece.tokens for piece in self.pieces)

    @property
    def supervised(self) -> int:
        return sum(piece.tokens for piece in self.pieces if piece.supervised)


@attrs.frozen
class Preview:
    """The first sequences of a run.

    Attributes:
        shape: the name of the rows' format.
        columns: the columns that were read.
        notes: guesses about the files and the chat template.
        sequences: the sequences.
        ledger: the account of the rows that were read for them.
    """

    shape: str
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    sequences: tuple[TokenSequence, ...]
    ledger: Ledger


def make_preview(checked: Checked, count: int) -> Preview:
    """Prepare as many rows as the first sequences need.

    Args:
        checked: the config, as `check_run` returns it.
        count: how many sequences to prepare.

    Raises:
        SmoLoRAError: the tokenizer cannot be loaded, or a row cannot be used.
    """
    job = resolve_job(checked)
    reads_all = any(each.component.scope == "dataset" for each in job.choices.preprocessors)
    first = encode_first(job, _READ_AT_ONCE if reads_all else None)
    sequences = tuple(_sequence(row, first.tokenizer) for row in islice(first.rows, count))
    account = first.parts.account()
    notes = (*first.notes, *chat_notes(first.tokenizer, account["shape"]))
    return Preview(account["shape"], account["columns"], notes, sequences, first.parts.ledger)


@attrs.frozen
class FirstRows:
    """The first rows of a run, encoded as they are read.

    Attributes:
        rows: the encoded rows; they can be read once.
        parts: the account of the rows read so far.
        recipe: how the rows are encoded.
        notes: guesses about the files and the chat template.
    """

    rows: Iterator[dict[str, Any]]
    parts: EncodedBatches
    recipe: Recipe
    notes: tuple[str, ...]

    @property
    def tokenizer(self) -> Any:
        return self.recipe.tokenizer


def encode_first(job: Job, limit: int | None) -> FirstRows:
    """Encode at most `limit` of the rows to train on, as they are read.

    Raises:
        SmoLoRAError: the tokenizer cannot be loaded, or a row cannot be used.
    """
    resolved = job.resolved
    tokenizer = load_tokenizer(job.config.model, job.where("model.path"))
    template = set_template(tokenizer, resolved)
    recipe = recipe_for(resolved, job.choices, tokenizer, job.vocab_size)
    splits = open_splits(job.config.data, job.where)

    def read(on_bad: OnBad | None) -> Iterator[Located]:
        return islice(splits.train(on_bad), limit)

    parts = EncodedBatches(read, recipe)
    rows = (row for part in parts if part.table is not None for row in part.table.to_pylist())
    return FirstRows(rows, parts, recipe, (*splits.notes(), *template))


def _sequence(row: dict[str, Any], tokenizer: Any) -> TokenSequence:
    # Tasks that do not label each token have no labels beside their tokens.
    labels = row.get("labels")
    labels = labels if isinstance(labels, list) and len(labels) == len(row["input_ids"]) else [IGNORED] * len(row["input_ids"])
    pairs = zip(row["input_ids"], labels, strict=True)
    pieces = []
    for supervised, group in groupby(pairs, lambda pair: pair[1] != IGNORED):
        tokens = [token for token, _ in group]
        pieces.append(Piece(tokenizer.decode(tokens), len(tokens), supervised))
    return TokenSequence(tuple(pieces), tuple(_learned(row, tokenizer)))


def _learned(row: dict[str, Any], tokenizer: Any) -> Iterator[str]:
    size = len(row["input_ids"])
    for name, value in row.items():
        if not isinstance(value, list):
            # A task may mark a label at its beginning.
            yield f"{name} {str(value).lstrip(chr(0))}"
        elif name == "labels" and len(value) != size:
            yield f"answer {tokenizer.decode(value)}"
        elif any(isinstance(each, str | float) for each in value):
            yield f"{name} {', '.join(str(each) for each in value if each != '')}"
