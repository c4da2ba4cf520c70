"""Strip whitespace from texts."""

from typing import Any


def strip(row: dict[str, Any]) -> dict[str, Any]:
    """Strip every text of a row; other values are unchanged."""
    return {name: value.strip() if isinstance(value, str) else value for name, value in row.items()}
