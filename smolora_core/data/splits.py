"""The rows to train on and the rows held out."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from smolora_core.config import DataConfig
from smolora_core.data.holdout import hold_out
from smolora_core.data.sources import Source, open_source
from smolora_core.data.sources.reading import Reading
from smolora_core.data.sources.rows import Located, OnBad
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
