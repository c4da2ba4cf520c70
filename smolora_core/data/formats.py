"""Row shapes: which columns hold what is trained, and what of a row is prompt."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import attrs

from smolora_core.config import DataConfig
from smolora_core.data.rows import Located, text_problem
from smolora_core.errors import DatasetError, Problem

__all__ = ["Example", "Shape", "detect_shape", "peek_shape"]

_DEFAULTS = attrs.fields(DataConfig)


@attrs.frozen
class Example:
    """One row as the task sees it.

    Attributes:
        text: what is trained.
        prompt: what comes before it and is not trained; None where a row is text only.
        columns: values of the further columns that the loss asked for.
    """

    text: str
    prompt: str | None = None
    columns: dict[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Shape:
    """How rows of a source are read.

    Attributes:
        name: `text` or `prompt-completion`.
        prompt: the prompt's column, or None.
        text: the column that is trained.
        extra: columns of numbers that the loss needs besides.
    """

    name: str
    text: str
    prompt: str | None = None
    extra: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column a row must have."""
        return tuple(filter(None, (self.prompt, self.text, *self.extra)))

    def read(self, row: dict[str, Any], where: str) -> Example | Problem:
        """Take an example out of a row, or say why that cannot be."""
        for column in self.columns:
            if column not in row:
                return _no_column(column, row, where)
        for column in filter(None, (self.prompt, self.text)):
            if not isinstance(row[column], str):
                return _wrong_value(column, "text", row[column], where)
            if problem := text_problem(column, row[column], where):
                return problem
        # Whole numbers become floats too: one column has one type in every batch, whichever values come first.
        numbers = {column: _finite(row[column]) for column in self.extra}
        for column, number in numbers.items():
            if number is None:
                return _wrong_value(column, "a finite number", row[column], where)
        prompt = row[self.prompt] if self.prompt else None
        if not row[self.text].strip():
            return Problem(f"column {self.text!r} has nothing to train", where=where, hint="set data.on_bad_row to drop")
        return Example(row[self.text], prompt, {column: number for column, number in numbers.items() if number is not None})


def detect_shape(config: DataConfig, columns: Iterable[str], where: str, extra: tuple[str, ...] = ()) -> Shape:
    """Choose the shape that the columns of a source have.

    Args:
        config: the format and the names of the fields.
        columns: what the source has.
        where: its first row, for the error.
        extra: columns that the loss needs.

    Raises:
        DatasetError: a column that is needed is not there.
    """
    found = tuple(columns)
    candidates = _candidates(config, extra)
    chosen = next((shape for shape in candidates if set(shape.columns) <= {*found, *extra}), candidates[0])
    missing = next((column for column in chosen.columns if column not in found), None)
    if missing is not None:
        raise DatasetError.of([_no_column(missing, found, where)])
    return chosen


def peek_shape(config: DataConfig, rows: Sequence[Located], extra: tuple[str, ...] = ()) -> Shape:
    """Choose the shape of a source by its first rows.

    Where a bad row is an error, the first row decides. Where bad rows are dropped, it may be one of them: the shape is that
    of most rows.

    Args:
        config: the format, the names of the fields, and what becomes of bad rows.
        rows: at least one.
        extra: columns that the loss needs.

    Raises:
        DatasetError: a column that is needed is not there.
    """
    first = rows[0]
    if config.on_bad_row == "error":
        return detect_shape(config, first.row, first.where, extra)
    candidates = _candidates(config, extra)
    fits = (next((shape for shape in candidates if set(shape.columns) <= set(each.row)), None) for each in rows)
    most = Counter(shape for shape in fits if shape).most_common(1)
    return most[0][0] if most else detect_shape(config, _union(rows), first.where, extra)


def _candidates(config: DataConfig, extra: tuple[str, ...]) -> tuple[Shape, ...]:
    pair = Shape("prompt-completion", config.completion_field, config.prompt_field, extra)
    plain = Shape("text", config.text_field, extra=extra)
    named = (
        config.prompt_field != _DEFAULTS.prompt_field.default or config.completion_field != _DEFAULTS.completion_field.default
    )
    return {"text": (plain,), "prompt-completion": (pair,)}.get(config.format, (pair, plain) if named else (plain, pair))


def _union(rows: Iterable[Located]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column for each in rows for column in each.row))


def _no_column(column: str, present: Iterable[str], where: str) -> Problem:
    return Problem(f"has no column {column!r}", where=where, hint=f"it has: {', '.join(map(str, present))}")


def _wrong_value(column: str, expected: str, value: Any, where: str) -> Problem:
    found = "empty" if value is None else f"{type(value).__name__} {_short(value)}"
    return Problem(f"column {column!r} must be {expected}, is {found}", where=where, hint="set data.on_bad_row to drop")


def _finite(value: Any) -> float | None:
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
