"""A row and the place it came from."""

import json
from collections.abc import Callable
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
