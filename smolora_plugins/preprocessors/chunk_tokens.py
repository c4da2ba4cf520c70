"""Split long texts between tokens."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from smolora_core import ConfigError, DatasetError
from smolora_plugins.preprocessors.columns import text
from smolora_plugins.preprocessors.tokens import tokenized


def chunk_tokens(
    row: dict[str, Any], context: Any, *, size: int | None, overlap: int, field: str | None
) -> list[dict[str, Any]]:
    """Make a row of every `size` tokens, with the other columns copied to each.

    Without overlap, the pieces add up to the text.

    Raises:
        DatasetError: the column is missing, is not text, or cannot be tokenised with offsets.
        ConfigError: the overlap does not fit in `data.max_seq_length`.
    """
    field = field or context.text_field
    value, tokenizer = text(row, field), context.tokenizer
    if not tokenizer.is_fast:
        raise DatasetError("the tokenizer has no character offsets of its tokens", hint="use chunk-words")
    if size is None:
        # Leaves room for special tokens and the end-of-sequence token.
        size = max(1, context.max_seq_length - tokenizer.num_special_tokens_to_add() - 1)
        if overlap >= size:
            raise ConfigError(f"overlap must be below the {size} tokens that fit in data.max_seq_length, got {overlap}")
    return [{**row, field: piece} for piece in _pieces(value, size, overlap, field, tokenizer)]


def _pieces(value: str, size: int, overlap: int, field: str, tokenizer: Any) -> Iterator[str]:
    offsets = tokenized(value, field, tokenizer, return_offsets_mapping=True)["offset_mapping"]
    if len(offsets) <= size:
        yield value
        return
    # The end of the text before each token; tokens within one character share their end.
    borders = list(accumulate((end for _, end in offsets), max, initial=0))
    borders[-1] = len(value)
    start, end = 0, 0
    while end < len(value):
        first = bisect_right(borders, start) - 1
        last = min(first + size, len(offsets))
        # Tokenised alone, a piece may have more tokens than within the text.
        while last > first + 1 and (excess := _count(value[start : borders[last]], field, tokenizer) - size) > 0:
            last = max(first + 1, last - excess)
        end = borders[last]
        yield value[start:end]
        start = borders[max(first + 1, last - overlap)]


def _count(piece: str, field: str, tokenizer: Any) -> int:
    return len(tokenized(piece, field, tokenizer)["input_ids"])
