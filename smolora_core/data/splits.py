"""The rows to train on and the rows held out."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from smolora_core.config import DataConfig
from smolora_core.data.holdout import hold_out
from smolora_core.data.rows import Located, OnBad
from smolora_core.data.sources import Source, open_source

__all__ = ["Reader", "Splits", "open_splits"]

Reader = Callable[[OnBad | None], Iterator[Located]]
"""Reads rows afresh at each call; told of rows that cannot be read, it goes on."""


@attrs.frozen
class Splits:
    """Both sides of the data.

    Attributes:
        train: reads the rows to train on.
        held_out: reads the rows to evaluate on, or None.
    """

    train: Reader
    held_out: Reader | None


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
    train = open_source(config.train if rows is None else rows, where)
    if config.eval is None:
        return Splits(train.rows, None)
    if isinstance(config.eval, str):
        return Splits(train.rows, open_source(config.eval, where_eval).rows)
    return Splits(_side(train, config.eval, held_out=False), _side(train, config.eval, held_out=True))


def _side(source: Source, fraction: float, *, held_out: bool) -> Reader:
    def read(on_bad: OnBad | None) -> Iterator[Located]:
        # Both sides read the whole source; a bad row is accounted for once, on the side that trains.
        report = (lambda problem: None) if held_out and on_bad else on_bad
        parts = hold_out(source.rows(report), fraction, documents=source.documents)
        return (located for located, is_held_out in parts if is_held_out == held_out)

    return read
