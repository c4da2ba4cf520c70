"""The rows to train on and the rows held out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import attrs

from smolora_core.config import DataConfig
from smolora_core.config.dump import canonical_json
from smolora_core.data.sources import Source, open_source
from smolora_core.data.sources.located import Located, OnBad
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError

_NOTES = 10

Reader = Callable[[OnBad | None], Iterator[Located]]
"""Reads rows afresh at each call; told of rows that cannot be read, it goes on."""


@attrs.frozen
class Splits:
    """Both sides of the data. Where a fraction leaves one of them without a row, reading that one is a DatasetError.

    Attributes:
        train: reads the rows to train on.
        held_out: reads the rows to evaluate on, or None.
        sources: where the rows are: one source for both sides, or the one to train on and the one to evaluate on.
    """

    train: Reader
    held_out: Reader | None
    sources: tuple[Source, ...]

    def notes(self) -> tuple[str, ...]:
        """Say what was guessed about the files of both sides, each guess once.

        Raises:
            DatasetError: a file cannot be read.
        """
        notes = tuple(dict.fromkeys(note for source in self.sources for note in source.notes()))
        more = len(notes) - _NOTES
        return (*notes[:_NOTES], f"as much was guessed in {more} more cases") if more > 0 else notes


def open_splits(config: DataConfig, where: str = "", where_eval: str = "", rows: Any = None) -> Splits:
    """Open the sources of a config.

    Args:
        config: `train`, and `eval` as a fraction or a source of its own.
        where: where the user wrote `train`.
        where_eval: where the user wrote `eval`.
        rows: a dataset in memory, in place of `config.train`.

    Raises:
        DatasetError: a source is not there or cannot be read.
    """
    reading = Reading.of(config)
    train = open_source(config.train if rows is None else rows, where, reading)
    if config.eval is None:
        return Splits(train.rows, None, (train,))
    if isinstance(config.eval, str):
        held_out = open_source(config.eval, where_eval, reading, held_out=True)
        return Splits(train.rows, held_out.rows, (train, held_out))
    kept, held_back = (_side(train, config.eval, where_eval, held_out=held_out) for held_out in (False, True))
    return Splits(kept, held_back, (train,))


def _side(source: Source, fraction: float, where: str, *, held_out: bool) -> Reader:
    def read(on_bad: OnBad | None) -> Iterator[Located]:
        seen, found = 0, False

        def counted(rows: Iterable[Located]) -> Iterator[Located]:
            nonlocal seen
            for seen, located in enumerate(rows, start=1):  # noqa: B007
                yield located

        # Both sides read the whole source; a bad row is accounted for once, on the side that trains.
        report = (lambda problem: None) if held_out and on_bad else on_bad
        for located, is_held_out in hold_out(counted(source.rows(report)), fraction, documents=source.documents):
            if is_held_out == held_out:
                found = True
                yield located
        if not found:
            raise _empty(fraction, seen, "document" if source.documents else "row", where, held_out=held_out)

    return read


def _empty(fraction: float, seen: int, noun: str, where: str, *, held_out: bool) -> DatasetError:
    if held_out:
        hint = f"raise it, or give more {noun}s"
        return DatasetError(f"data.eval {fraction} holds out none of {seen} {noun}s", where=where, hint=hint)
    return DatasetError(f"data.eval {fraction} leaves no {noun} of {seen} to train on", where=where, hint="lower it")


_DIGEST_SIZE = 8
_DIGESTS = float(1 << 8 * _DIGEST_SIZE)


def hold_out(rows: Iterable[Located], fraction: float, *, documents: bool) -> Iterator[tuple[Located, bool]]:
    """Yield each row and whether it is held out; each document in two parts, of which the second is.

    A small source may come out with no row held out, because every row is judged by itself.
    """
    for located in rows:
        if not documents:
            yield located, is_held_out(located.row, fraction)
            continue
        for part, held_out in zip(cut_document(located, fraction), (False, True), strict=True):
            if part.row["text"]:
                yield part, held_out


def is_held_out(row: Mapping[str, Any], fraction: float) -> bool:
    """Whether a row falls into the fraction.

    It depends on nothing but the row's content: equal rows share a side, and a row keeps its side when others come or go or the
    fraction grows.

    Example:
        >>> is_held_out({"text": "fine", "stars": 4}, 0.5) == is_held_out({"stars": 4, "text": "fine"}, 0.5)
        True
    """
    digest = blake2b(canonical_json(row, default=str).encode(), digest_size=_DIGEST_SIZE).digest()
    return int.from_bytes(digest, "big") < fraction * _DIGESTS


def cut_document(located: Located, fraction: float) -> tuple[Located, Located]:
    """Part a document into its head and the last `fraction` of its characters, at a line break if one is near.

    Returns:
        Two rows whose texts make up the document's; the second says the line it starts on.
    """
    text: str = located.row["text"]
    cut = len(text) - round(len(text) * fraction)
    # A break in the first half, after a title say, would hold out nearly everything.
    if (line_break := text.rfind("\n", cut // 2, cut)) >= 0:
        cut = line_break + 1
    head = attrs.evolve(located, row={**located.row, "text": text[:cut]})
    line = text.count("\n", 0, cut) + 1
    return head, Located({**located.row, "text": text[cut:]}, f"{located.where}:{line}")
