"""Drop blank rows."""

from typing import Any

from smolora_core import Drop
from smolora_plugins.preprocessors.columns import column


def drop_empty(row: dict[str, Any], *, fields: tuple[str, ...]) -> dict[str, Any] | Drop:
    """Drop a row if one of `fields` is blank; without `fields`, if no column contains text."""
    for field in fields:
        if _is_blank(column(row, field)):
            return Drop(f"column {field!r} is blank")
    # A label alone is not a row; a list of messages may be.
    if not fields and all(_is_blank(value) for value in row.values() if not isinstance(value, int | float)):
        return Drop("contains no text")
    return row


def _is_blank(value: Any) -> bool:
    return not value.strip() if isinstance(value, str) else value in (None, [], {})
