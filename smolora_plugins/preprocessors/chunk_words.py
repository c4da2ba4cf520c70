"""Cut long texts at words."""

import re
from typing import Any

from smolora_plugins.preprocessors.columns import text

_WORD = re.compile(r"\S+")


def chunk_words(row: dict[str, Any], context: Any, *, size: int, overlap: int, field: str | None) -> list[dict[str, Any]]:
    """Make a row of every `size` words; the other columns go with each.

    White space stays with the word before it: without overlap, the pieces make up the text.

    Raises:
        DatasetError: the column is not there, or is no text.
    """
    field = field or context.text_field
    whole = text(row, field)
    starts = [word.start() for word in _WORD.finditer(whole)]
    borders = [0, *starts[1:], len(whole)]
    firsts = range(0, max(1, len(starts) - overlap), size - overlap)
    return [{**row, field: whole[borders[first] : borders[min(first + size, len(borders) - 1)]]} for first in firsts]
