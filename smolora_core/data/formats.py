"""Row shapes: which columns hold what is trained, and what of a row is prompt."""

from collections.abc import Iterable
from typing import Any

import attrs

from smolora_core.config import DataConfig
from smolora_core.errors import DatasetError, Problem

__all__ = ["Example", "Shape", "detect_shape"]

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
    columns: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Shape:
    """How rows of a source are read.

    Attributes:
        name: `text` or `prompt-completion`.
        prompt: the prompt's column, or None.
        text: the column that is trained.
        extra: columns that the loss needs besides.
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
                found = "empty" if row[column] is None else f"{type(row[column]).__name__} {_short(row[column])}"
                return Problem(f"column {column!r} must be text, is {found}", where=where, hint="set data.on_bad_row to drop")
        prompt = row[self.prompt] if self.prompt else None
        if not row[self.text].strip():
            return Problem(f"column {self.text!r} has nothing to train", where=where, hint="set data.on_bad_row to drop")
        return Example(row[self.text], prompt, {column: row[column] for column in self.extra})


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
    pair = Shape("prompt-completion", config.completion_field, config.prompt_field, extra)
    plain = Shape("text", config.text_field, extra=extra)
    named = (
        config.prompt_field != _DEFAULTS.prompt_field.default or config.completion_field != _DEFAULTS.completion_field.default
    )
    candidates = {"text": (plain,), "prompt-completion": (pair,)}.get(config.format, (pair, plain) if named else (plain, pair))
    for shape in candidates:
        if set(shape.columns) <= {*found, *extra}:
            chosen = shape
            break
    else:
        chosen = candidates[0]
    missing = next((column for column in chosen.columns if column not in found), None)
    if missing is not None:
        raise DatasetError.of([_no_column(missing, found, where)])
    return chosen


def _no_column(column: str, present: Iterable[str], where: str) -> Problem:
    return Problem(f"has no column {column!r}", where=where, hint=f"it has: {', '.join(map(str, present))}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
