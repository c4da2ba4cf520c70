"""Join several texts into one."""

from typing import Any

from smolora_plugins.preprocessors.columns import column, text


def combine_fields(
    row: dict[str, Any], context: Any, *, fields: tuple[str, ...], into: str | None, separator: str
) -> dict[str, Any]:
    """Join the texts of `fields`; blank and null ones are skipped, with their separators.

    Raises:
        DatasetError: a column is missing, or is neither text nor null.
    """
    texts = [text(row, field) for field in fields if column(row, field) is not None]
    return {**row, into or context.text_field: separator.join(each for each in texts if each.strip())}
