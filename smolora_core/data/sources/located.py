"""A row and its place in the source, and the problems that rows can have."""

import json
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import attrs

from smolora_core.errors import Problem

OnBad = Callable[[Problem], object]
"""Called with the problem of each row that cannot be used; it raises, or returns to let the reader skip the row."""

DROP = "set data.on_bad_row to drop"
"""The hint for a row that cannot be used."""

_NOUNS = {
    bool: "a boolean",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a string",
    type(None): "null",
}


@attrs.frozen
class Located:
    """A row and its place.

    Attributes:
        row: column names to values.
        where: `reviews.jsonl:12`, the row's first line; `file.parquet:row 12` in files without lines; `folder/a.txt` for a
            whole document.

    Example:
        >>> Located({"text": "fine"}, "reviews.jsonl:12").row["text"]
        'fine'
    """

    row: dict[str, Any]
    where: str


def describe_type(value: Any) -> str:
    """Name the type of a value as a data file's user would: `a list`, `null`."""
    return _NOUNS.get(type(value), f"a {type(value).__name__}")


def row_problem(value: Any, *, escaped: bool = False) -> str:
    r"""Explain why a value cannot be a row; empty if it can.

    `escaped` tells that it was decoded from JSON with a `\ud...` in it. Only then can it contain a lone surrogate, and the
    search for one takes as long as reading the row.
    """
    if not isinstance(value, dict):
        return f"is {describe_type(value)}, not an object with columns"
    if escaped:
        return _lone_surrogate(json.dumps(value, ensure_ascii=False))
    return ""


def text_problem(column: str, text: str, where: str) -> Problem | None:
    """Explain why a text cannot be encoded, whether it was read or made by a preprocessor; None if it can."""
    what = _lone_surrogate(text)
    return Problem(f"column {column!r} {what}", where=where, hint=DROP) if what else None


def _lone_surrogate(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # The tokenizer or Arrow would fail on it, without knowing the row.
        return f"contains a lone surrogate, {error.object[error.start]!r}"
    return ""


def describe(value: Any) -> str:
    """Describe a value by type and content, shortened to 40 characters: `null`, `int 3`, `str 'why'`."""
    if value is None:
        return "null"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else f'{text[:37]}...'}"


def misfit(column: str, expected: str, value: Any, where: str) -> Problem:
    """Report a column whose value has the wrong type."""
    return Problem(f"column {column!r} must be {expected}, got {describe(value)}", where=where, hint=DROP)


def finite(value: Any) -> float | None:
    """Convert a number to a float; None if it is not a number, or not finite."""
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def from_json(value: Any) -> Any:
    """Decode JSON text; return other values, and text that is not JSON, unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
