"""Texts as single sequences, truncated inside their special tokens."""

from collections.abc import Sequence
from typing import Any

from smolora_core.batches import token_ids


def truncated_ids(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[tuple[list[int], int]]:
    """Tokenise texts; return each one's tokens, at most `max_length`, and the number of tokens cut off."""
    return [
        (ids, 0) if len(ids) <= max_length else (_truncated(tokenizer, text, max_length), len(ids) - max_length)
        for ids, text in zip(token_ids(tokenizer, texts), texts, strict=True)
    ]


def _truncated(tokenizer: Any, text: str, max_length: int) -> list[int]:
    # The tokenizer truncates before it adds special tokens, so a closing one stays.
    ids: list[int] = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    return ids
