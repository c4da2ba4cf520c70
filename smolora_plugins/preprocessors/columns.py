"""Access to the columns of a row, with errors that name them."""

from collections.abc import Mapping
from typing import Any

from smolora_core import DatasetError
from smolora_core.data import canonical_json, describe_type


def columns_of(row: Mapping[str, Any]) -> str:
    """List the columns of a row, as a hint for an error."""
    return f"it has: {', '.join(map(str, row)) or 'none'}"


def column(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column; raise a DatasetError if it is missing."""
    if name not in row:
        raise DatasetError(f"has no column {name!r}", hint=columns_of(row))
    return row[name]


def text(row: Mapping[str, Any], name: str) -> str:
    """Return the text of a column; raise a DatasetError if it is missing or not text."""
    value = column(row, name)
    if not isinstance(value, str):
        raise DatasetError(f"column {name!r} must be text, got {describe_type(value)}")
    return value


def canonical(value: Any) -> bytes:
    """Serialise a value so that equal values, and only those, have equal bytes, whatever the order of columns."""
    return canonical_json(value, default=str).encode()
