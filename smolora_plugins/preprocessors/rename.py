"""Rename columns."""

from collections.abc import Mapping
from typing import Any

from smolora_core import DatasetError
from smolora_plugins.preprocessors.columns import column, columns_of


def rename(row: dict[str, Any], *, columns: Mapping[str, str]) -> dict[str, Any]:
    """Rename columns, all at once, so that two can swap names.

    Raises:
        DatasetError: a column is missing, or its new name is taken.
    """
    for old, new in columns.items():
        column(row, old)
        if new in row and new not in columns:
            raise DatasetError(f"cannot rename {old!r}: column {new!r} exists", hint=columns_of(row))
    return {columns.get(name, name): value for name, value in row.items()}
