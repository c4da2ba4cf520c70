"""Causal language modelling: texts are cut into sequences, prompts stay out of the loss."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from smolora_core.components import Drop, Encoded
from smolora_core.data.batches import IGNORED, pad
from smolora_core.data.formats import Example


class CausalLM:
    """Encodes and collates for a decoder that predicts the next token."""

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise examples in one call; a text ends with the end-of-sequence token, where the tokenizer has one."""
        # The prompt is tokenised as it will be when it is alone before the model, so that training meets the same tokens.
        texts = [(example.prompt or "") + example.text for example in examples]
        prompts = [example.prompt for example in examples if example.prompt]
        tokens = iter(tokenizer([*texts, *prompts], verbose=False)["input_ids"]) if texts else iter(())
        whole = [next(tokens) for _ in texts]
        return [
            self._with_prompt(example, ids, next(tokens), tokenizer, max_length)
            if example.prompt
            else _pieces(_ended(ids, tokenizer), max_length)
            for example, ids in zip(examples, whole, strict=True)
        ]

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad on the right: `input_ids`, `attention_mask` and `labels`, each `[B, T]`."""
        return pad(rows, pad_token_id)

    def _with_prompt(
        self, example: Example, whole: list[int], prompt: list[int], tokenizer: Any, max_length: int
    ) -> Encoded | Drop:
        prompt = _unended(prompt, tokenizer)
        if whole[: len(prompt)] != prompt:
            # A token straddles the border: the completion is tokenised alone.
            whole = prompt + tokenizer(example.text, add_special_tokens=False, verbose=False)["input_ids"]
        whole = _ended(whole, tokenizer)
        if len(prompt) >= max_length:
            return Drop(f"the prompt fills data.max_seq_length {max_length}")
        kept = whole[:max_length]
        sequence = {"input_ids": kept, "labels": [IGNORED] * len(prompt) + kept[len(prompt) :]}
        return Encoded((sequence,), supervised=len(kept) - len(prompt), tokens_lost=len(whole) - len(kept))


def _pieces(ids: list[int], max_length: int) -> Encoded:
    """Cut a long text into sequences that overlap by one token, so that every token but the first is predicted once."""
    starts = range(0, max(1, len(ids) - 1), max_length - 1)
    pieces = [ids[start : start + max_length] for start in starts]
    sequences = tuple({"input_ids": piece, "labels": [IGNORED, *piece[1:]]} for piece in pieces)
    return Encoded(sequences, supervised=len(ids) - 1)


def _ended(ids: list[int], tokenizer: Any) -> list[int]:
    end = tokenizer.eos_token_id
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def _unended(ids: list[int], tokenizer: Any) -> list[int]:
    # Some tokenizers end every text on their own; a prompt goes on.
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
