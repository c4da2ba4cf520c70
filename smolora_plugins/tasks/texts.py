"""Texts as whole sequences: special tokens stay where a text is cut."""

from collections.abc import Sequence
from typing import Any

from smolora_core.batches import token_ids


def cut_ids(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[tuple[list[int], int]]:
    """Tokenise texts, and cut long ones inside their special tokens.

    Returns:
        Of each text its tokens, `max_length` at most, and the number that was cut off.
    """
    whole = token_ids(tokenizer, texts)
    return [
        (ids, 0) if len(ids) <= max_length else (_cut(tokenizer, text, max_length), len(ids) - max_length)
        for ids, text in zip(whole, texts, strict=True)
    ]


def _cut(tokenizer: Any, text: str, max_length: int) -> list[int]:
    ids: list[int] = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    return ids
