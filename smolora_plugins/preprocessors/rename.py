"""Give columns other names."""

from collections.abc import Mapping
from typing import Any

from smolora_core import DatasetError
from smolora_plugins.preprocessors.columns import column, has


def rename(row: dict[str, Any], *, columns: Mapping[str, str]) -> dict[str, Any]:
    """Rename columns, all at once, so that two may swap their names.

    Raises:
        DatasetError: a column is not there, or its new name is taken.
    """
    for old, new in columns.items():
        column(row, old)
        if new in row and new not in columns:
            raise DatasetError(f"has a column {new!r} already, which {old!r} cannot become", hint=has(row))
    return {columns.get(name, name): value for name, value in row.items()}
