"""Causal language modelling: texts are cut into sequences, prompts stay out of the loss."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from smolora_core import Drop, Encoded
from smolora_core.batches import IGNORED, concatenate, pad, token_ids
from smolora_core.data import Example, encode_chats
from smolora_plugins.tasks.measures import observe_tokens, token_measures

_NOTHING = Drop("there is no token to predict")


class CausalLM:
    """Encodes and collates for a decoder that predicts the next token."""

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise examples in one call; a text ends with the end-of-sequence token, where the tokenizer has one.

        What can be written as turns or as text is written as turns where the tokenizer has a chat template.
        """
        turns = [each.conversation if tokenizer.chat_template or not each.text else None for each in examples]
        chats = iter(encode_chats([each for each in turns if each is not None], tokenizer, max_length))
        texts = _texts([each for each, said in zip(examples, turns, strict=True) if said is None], tokenizer, max_length)
        return [next(texts if said is None else chats) for said in turns]

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad on the right: `input_ids`, `attention_mask` and `labels`, each `[B, T]`."""
        return pad(rows, pad_token_id)

    def concatenate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor | int]:
        """Lay sequences one behind the other, for a model that keeps them apart."""
        return concatenate(rows)

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep what perplexity and accuracy are made of."""
        return observe_tokens(outputs, targets)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Perplexity and accuracy of the supervised tokens."""
        return token_measures(observed)


def _texts(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Iterator[Encoded | Drop]:
    # Asked for once: a tokenizer looks its special tokens up by name each time.
    end: int | None = tokenizer.eos_token_id
    # Some tokenizers end every text on their own; a prompt goes on. One that its writer ended stays so.
    closes = end is not None and token_ids(tokenizer, ["a"])[0][-1:] == [end]
    # The prompt is tokenised as it will be when it is alone before the model, so that training meets the same tokens.
    prompts = [example.prompt for example in examples if example.prompt]
    tokens = token_ids(tokenizer, [*((example.prompt or "") + example.text for example in examples), *prompts])
    whole, alone = tokens[: len(examples)], (ids[:-1] if closes else ids for ids in tokens[len(examples) :])
    begun = [next(alone) if example.prompt else None for example in examples]
    # Where a token straddles the border, the completion is tokenised alone too.
    straddles = [start is not None and ids[: len(start)] != start for ids, start in zip(whole, begun, strict=True)]
    apart = [example.text for example, straddle in zip(examples, straddles, strict=True) if straddle]
    completions = iter(token_ids(tokenizer, apart, special=False))
    for ids, start, straddle in zip(whole, begun, straddles, strict=True):
        if start is None:
            yield _pieces(_ended(ids, end), end, max_length)
        else:
            yield _completed(start, _ended(start + next(completions) if straddle else ids, end), end, max_length)


def _completed(prompt: list[int], whole: list[int], end: int | None, max_length: int) -> Encoded | Drop:
    if len(prompt) >= max_length:
        return Drop(f"the prompt fills data.max_seq_length {max_length}", size=len(prompt))
    if len(whole) == len(prompt):
        return _NOTHING
    kept = whole[:max_length]
    sequence = {"input_ids": kept, "labels": [IGNORED] * len(prompt) + kept[len(prompt) :]}
    return Encoded((sequence,), len(kept) - len(prompt), len(whole) - len(kept), _open(kept, end))


def _pieces(ids: list[int], end: int | None, max_length: int) -> Encoded | Drop:
    """Cut a long text into sequences that overlap by one token, so that every token but the first is predicted once."""
    if len(ids) < 2:
        return _NOTHING
    starts = range(0, len(ids) - 1, max_length - 1)
    pieces = [ids[start : start + max_length] for start in starts]
    sequences = tuple({"input_ids": piece, "labels": [IGNORED, *piece[1:]]} for piece in pieces)
    return Encoded(sequences, supervised=len(ids) - 1, open_ended=_open(ids, end))


def _open(ids: list[int], end: int | None) -> int:
    return int(end is None or ids[-1:] != [end])


def _ended(ids: list[int], end: int | None) -> list[int]:
    return ids if end is None or ids[-1:] == [end] else [*ids, end]
