"""The first rows as the model will see them, tokens and labels, without loading the model."""

from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

import attrs

from smolora_core.batches import IGNORED
from smolora_core.data import Ledger
from smolora_core.run import Checked, encode_first, resolve_job

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
    sequences = tuple(_sequence(row, first.tokenizer) for row in islice(first, count))
    return Preview(sequences=sequences, **first.account())


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
