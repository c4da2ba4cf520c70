"""Cut long texts at tokens."""

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
    """Make a row of every `size` tokens; the other columns go with each.

    Without overlap, the pieces make up the text.

    Raises:
        DatasetError: the column is not there, or is no text that this tokenizer can take.
        ConfigError: there is more overlap than fits into `data.max_seq_length`.
    """
    field = field or context.text_field
    whole, tokenizer = text(row, field), context.tokenizer
    if not tokenizer.is_fast:
        raise DatasetError("the tokenizer does not say where its tokens stand in a text", hint="take chunk-words")
    if size is None:
        # A text gets the tokens that frame it, and one that ends it.
        size = max(1, context.max_seq_length - tokenizer.num_special_tokens_to_add() - 1)
        if overlap >= size:
            raise ConfigError(f"overlap must be below the {size} tokens that data.max_seq_length leaves, is {overlap}")
    return [{**row, field: piece} for piece in _pieces(whole, size, overlap, field, tokenizer)]


def _pieces(whole: str, size: int, overlap: int, field: str, tokenizer: Any) -> Iterator[str]:
    offsets = tokenized(whole, field, tokenizer, return_offsets_mapping=True)["offset_mapping"]
    if len(offsets) <= size:
        yield whole
        return
    # Where the text before each token ends; the tokens of one character end together.
    borders = list(accumulate((end for _, end in offsets), max, initial=0))
    borders[-1] = len(whole)
    start, end = 0, 0
    while end < len(whole):
        first = bisect_right(borders, start) - 1
        last = min(first + size, len(offsets))
        # A piece alone may have more tokens than it has within the text.
        while last > first + 1 and (excess := _count(whole[start : borders[last]], field, tokenizer) - size) > 0:
            last = max(first + 1, last - excess)
        end = borders[last]
        yield whole[start:end]
        start = borders[max(first + 1, last - overlap)]


def _count(piece: str, field: str, tokenizer: Any) -> int:
    return len(tokenized(piece, field, tokenizer)["input_ids"])
