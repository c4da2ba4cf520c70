"""Drop rows that are too short or too long."""

from typing import Any

from smolora_core import Drop
from smolora_plugins.preprocessors.columns import text
from smolora_plugins.preprocessors.tokens import tokenized


def filter_length(
    row: dict[str, Any], context: Any, *, minimum: int | None, maximum: int | None, unit: str, field: str | None
) -> dict[str, Any] | Drop:
    """Drop a row whose text is shorter than `minimum` or longer than `maximum`.

    Raises:
        DatasetError: the column is missing, is not text, or cannot be tokenised.
    """
    field = field or context.text_field
    size = _size(text(row, field), unit, field, context.tokenizer)
    if minimum is not None and size < minimum:
        return Drop(f"shorter than {_count(minimum, unit)}", size=size)
    if maximum is not None and size > maximum:
        return Drop(f"longer than {_count(maximum, unit)}", size=size)
    return row


def _size(value: str, unit: str, field: str, tokenizer: Any) -> int:
    if unit == "tokens":
        return len(tokenized(value, field, tokenizer)["input_ids"])
    return len(value.split() if unit == "words" else value)


def _count(number: int, unit: str) -> str:
    return f"{number} {unit.removesuffix('s') if number == 1 else unit}"
