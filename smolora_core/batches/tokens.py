"""Texts as token ids, many in one call."""

from collections.abc import Sequence
from typing import Any


def token_ids(tokenizer: Any, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    """Tokenise texts whole, however long they are.

    Args:
        tokenizer: of the base model.
        texts: any number of them.
        special: whether the tokenizer adds what it begins and ends every text with.
    """
    if not texts:
        return []
    backend = _backend(tokenizer)
    # Called once, the tokenizer puts its backend in the state that a call wants: nothing is cut, nothing is padded.
    head = texts if backend is None else texts[:1]
    called = tokenizer(list(head), add_special_tokens=special, return_attention_mask=False, verbose=False)
    ids: list[list[int]] = called["input_ids"]
    if backend is None or len(texts) == 1:
        return ids
    # The rest needs a third less time without the call's account of offsets and words.
    return ids + [each.ids for each in backend.encode_batch_fast(list(texts[1:]), add_special_tokens=special)]


def padding_id(tokenizer: Any) -> int:
    """Choose the token id that pads a batch; masks and labels tell padding from text, so any token will do.

    The tokenizer is left alone: a token made its padding token would be a special one, and vanish from decoded text.

    Args:
        tokenizer: the base model's tokenizer.

    Returns:
        The first of its padding, end-of-sequence and unknown token that it has, else 0.
    """
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, 0)
    return next(int(token) for token in known if token is not None)


def _backend(tokenizer: Any) -> Any:
    """Give the Rust tokenizer behind one that does nothing of its own to a text; else None."""
    from transformers import PreTrainedTokenizerFast

    kind = type(tokenizer)
    plain = isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(kind, name) is getattr(PreTrainedTokenizerFast, name) for name in ("__call__", "_encode_plus")
    )
    return tokenizer.backend_tokenizer if plain else None
