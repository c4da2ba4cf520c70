"""What built-in preprocessors ask of a row."""

from collections.abc import Mapping
from typing import Any

from smolora_core import DatasetError
from smolora_core.data import canonical_json, noun


def has(row: Mapping[str, Any]) -> str:
    """Say which columns a row has."""
    return f"it has: {', '.join(map(str, row)) or 'none'}"


def column(row: Mapping[str, Any], name: str) -> Any:
    """Take the value of a column.

    Raises:
        DatasetError: there is no such column.
    """
    if name not in row:
        raise DatasetError(f"has no column {name!r}", hint=has(row))
    return row[name]


def text(row: Mapping[str, Any], name: str) -> str:
    """Take the text of a column.

    Raises:
        DatasetError: there is no such column, or it holds something else.
    """
    value = column(row, name)
    if not isinstance(value, str):
        raise DatasetError(f"column {name!r} must be text, is {noun(value)}")
    return value


def canonical(value: Any) -> bytes:
    """Spell out a value so that equal ones, and no others, have the same bytes, whatever the order of columns."""
    return canonical_json(value, default=str).encode()
