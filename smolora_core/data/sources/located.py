"""A row and the place it came from."""

import json
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import attrs

from smolora_core.errors import Problem

OnBad = Callable[[Problem], object]
"""Is told of each row that cannot be used but can be stepped over, and raises or lets the reader go on."""

_NOUNS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a text",
    type(None): "null",
}


@attrs.frozen
class Located:
    """A row and where it stands.

    Attributes:
        row: column names to values.
        where: `reviews.jsonl:12`, the line the row starts on; `file.parquet:row 12` where there are no lines;
            `folder/a.txt` for a whole document.

    Example:
        >>> Located({"text": "fine"}, "reviews.jsonl:12").row["text"]
        'fine'
    """

    row: dict[str, Any]
    where: str


def noun(value: Any) -> str:
    """Say what a value is, in the words of a data file."""
    return _NOUNS.get(type(value), f"a {type(value).__name__}")


def flaw(value: Any, *, escaped: bool = False) -> str:
    r"""Say why a value is no row; empty if it is one.

    Args:
        value: the value.
        escaped: whether it was decoded from JSON that holds `\ud...`. Only then can it hold half of a surrogate pair, and
            looking for one takes as long as reading the row.
    """
    if not isinstance(value, dict):
        return f"is {noun(value)}, not an object with columns"
    if escaped:
        return _holds_half(json.dumps(value, ensure_ascii=False))
    return ""


def text_problem(column: str, text: str, where: str) -> Problem | None:
    """Say why a text of a row cannot be used, whoever made it; None if it can."""
    what = _holds_half(text)
    return Problem(f"column {column!r} {what}", where=where, hint="set data.on_bad_row to drop") if what else None


def _holds_half(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # It would fail in the tokenizer or in Arrow, which do not know the row.
        return f"holds {error.object[error.start]!r}, half of a character"
    return ""


DROP = "set data.on_bad_row to drop"
"""What a person can do about a row that cannot be used."""


def describe(value: Any) -> str:
    """Say what a value is: `empty`, `int 3`, `str 'why'`, cut where it is long."""
    if value is None:
        return "empty"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else f'{text[:37]}...'}"


def misfit(column: str, expected: str, value: Any, where: str) -> Problem:
    """Say that a column holds something else than it must."""
    return Problem(f"column {column!r} must be {expected}, is {describe(value)}", where=where, hint=DROP)


def finite(value: Any) -> float | None:
    """Read a number as float; None if it is none, or has no end."""
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def from_json(value: Any) -> Any:
    """Read what may be written as JSON text; any other value, and text that is no JSON, is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
