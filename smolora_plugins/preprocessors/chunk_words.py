"""Split long texts between words."""

import re
from typing import Any

from smolora_plugins.preprocessors.columns import text

_WORD = re.compile(r"\S+")


def chunk_words(row: dict[str, Any], context: Any, *, size: int, overlap: int, field: str | None) -> list[dict[str, Any]]:
    """Make a row of every `size` words, with the other columns copied to each.

    Whitespace stays with the word before it, so without overlap the pieces add up to the text.

    Raises:
        DatasetError: the column is missing or not text.
    """
    field = field or context.text_field
    value = text(row, field)
    starts = [word.start() for word in _WORD.finditer(value)]
    borders = [0, *starts[1:], len(value)]
    firsts = range(0, max(1, len(starts) - overlap), size - overlap)
    return [{**row, field: value[borders[first] : borders[min(first + size, len(borders) - 1)]]} for first in firsts]
