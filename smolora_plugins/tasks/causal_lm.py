"""Causal language modelling: long texts are split into sequences, and prompts are left out of the loss."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from smolora_core import Drop, Encoded
from smolora_core.batches import IGNORED, concatenate, pad, token_ids
from smolora_core.data import Example, encode_chats
from smolora_plugins.tasks.metrics import observe_tokens, token_metrics

_NO_TOKENS = Drop("no tokens to predict")


class CausalLM:
    """Encode and collate for a decoder that predicts the next token."""

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise examples in one call; a text ends with the end-of-sequence token if the tokenizer has one.

        An example that is both a conversation and a text is encoded as a conversation if the tokenizer has a chat template.
        """
        conversations = [each.conversation if tokenizer.chat_template or not each.text else None for each in examples]
        chats = iter(encode_chats([each for each in conversations if each is not None], tokenizer, max_length))
        plain = [example for example, chat in zip(examples, conversations, strict=True) if chat is None]
        texts = _encode_texts(plain, tokenizer, max_length)
        return [next(texts if chat is None else chats) for chat in conversations]

    # Columns of a token sequence need nothing beyond padding or concatenation.
    collate = staticmethod(pad)
    concatenate = staticmethod(concatenate)

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep each token's loss and whether it was predicted: `[n, 2]`."""
        return observe_tokens(outputs, targets)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Compute perplexity and accuracy over supervised tokens."""
        return token_metrics(observed)


def _encode_texts(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Iterator[Encoded | Drop]:
    # Read once: a tokenizer looks its special tokens up by name on every access.
    eos: int | None = tokenizer.eos_token_id
    # Some tokenizers append the end token to every text. It is removed from prompts, once: one in the prompt itself stays.
    appends_eos = eos is not None and token_ids(tokenizer, ["a"])[0][-1:] == [eos]
    # Prompts are also tokenised alone, as in inference, so that training starts completions after the same tokens.
    prompt_texts = [example.prompt for example in examples if example.prompt]
    tokens = token_ids(tokenizer, [*((example.prompt or "") + example.text for example in examples), *prompt_texts])
    full, alone = tokens[: len(examples)], (ids[:-1] if appends_eos else ids for ids in tokens[len(examples) :])
    prompts = [next(alone) if example.prompt else None for example in examples]
    # If a token straddles the boundary, the completion is tokenised alone too.
    straddles = [prompt is not None and ids[: len(prompt)] != prompt for ids, prompt in zip(full, prompts, strict=True)]
    separate = [example.text for example, straddle in zip(examples, straddles, strict=True) if straddle]
    completions = iter(token_ids(tokenizer, separate, special=False))
    for ids, prompt, straddle in zip(full, prompts, straddles, strict=True):
        if prompt is None:
            yield _split(_terminate(ids, eos), eos, max_length)
        else:
            yield _complete(prompt, _terminate(prompt + next(completions) if straddle else ids, eos), eos, max_length)


def _complete(prompt: list[int], ids: list[int], eos: int | None, max_length: int) -> Encoded | Drop:
    if len(prompt) >= max_length:
        return Drop(f"the prompt fills data.max_seq_length {max_length}", size=len(prompt))
    if len(ids) == len(prompt):
        return _NO_TOKENS
    kept = ids[:max_length]
    sequence = {"input_ids": kept, "labels": [IGNORED] * len(prompt) + kept[len(prompt) :]}
    return Encoded((sequence,), len(kept) - len(prompt), len(ids) - len(kept), _is_open(kept, eos))


def _split(ids: list[int], eos: int | None, max_length: int) -> Encoded | Drop:
    """Split a long text into sequences that overlap by one token, so that every token but the first is predicted once."""
    if len(ids) < 2:
        return _NO_TOKENS
    starts = range(0, len(ids) - 1, max_length - 1)
    pieces = [ids[start : start + max_length] for start in starts]
    sequences = tuple({"input_ids": piece, "labels": [IGNORED, *piece[1:]]} for piece in pieces)
    return Encoded(sequences, supervised=len(ids) - 1, open_ended=_is_open(ids, eos))


def _is_open(ids: list[int], eos: int | None) -> int:
    return int(eos is None or ids[-1:] != [eos])


def _terminate(ids: list[int], eos: int | None) -> list[int]:
    return ids if eos is None or ids[-1:] == [eos] else [*ids, eos]
