"""Audit the labels of collated batches: the final check, after every plugin, truncation and padding."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import attrs
from torch import Tensor

from smolora_core.batches.padding import IGNORED
from smolora_core.errors import DatasetError

_FEW = 0.01
_LONG_PROMPT = 32


@attrs.define
class Audit:
    """Counts over the batches that were audited.

    Attributes:
        rows: sequences.
        tokens: their tokens, without padding.
        supervised: the tokens that the loss sees.
        unsupervised_rows: sequences without a supervised token.
        ended_rows: sequences whose last supervised token ends a text or a turn.
        prompted_rows: sequences known to have a prompt.
        leaking_rows: sequences whose supervised tokens contain the text of their prompt.
    """

    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    unsupervised_rows: int = 0
    ended_rows: int = 0
    prompted_rows: int = 0
    leaking_rows: int = 0

    def warnings(self) -> Iterator[str]:
        """Yield the warnings to show before training on these labels."""
        if self.unsupervised_rows:
            yield f"{self.unsupervised_rows} of {self.rows} sequences have no supervised token and do not contribute"
        if self.supervised < _FEW * self.tokens:
            yield f"only {self.supervised} of {self.tokens} tokens are supervised"
        if not self.ended_rows:
            yield "no sequence ends with a supervised end token, so the model will not learn to stop"
        if self.leaking_rows * 2 > self.prompted_rows:
            yield f"{self.leaking_rows} of {self.prompted_rows} sequences have their prompt among the supervised tokens"


def audit_labels(
    sequences: Iterable[Mapping[str, Any]],
    collate: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Tensor]],
    tokenizer: Any,
    batch_size: int,
    prompts: Mapping[int, Sequence[str]],
) -> Audit:
    """Collate sequences as training does, and count what the labels supervise.

    Args:
        sequences: the encoded rows.
        collate: makes a batch with `labels` `[B, T]`.
        tokenizer: the base model's tokenizer.
        batch_size: the rows in a batch.
        prompts: the unsupervised texts of a sequence, by its index.

    Raises:
        DatasetError: nothing is supervised.
    """
    audit = Audit()
    ends = _end_tokens(tokenizer)
    remaining = iter(sequences)
    while batch := list(islice(remaining, batch_size)):
        labels = collate(batch)["labels"]
        supervised = labels != IGNORED
        audit.tokens += sum(len(row["input_ids"]) for row in batch)
        audit.supervised += int(supervised.sum())
        for row, mask in zip(labels, supervised, strict=True):
            labelled = row[mask]
            audit.unsupervised_rows += not len(labelled)
            audit.ended_rows += bool(len(labelled)) and int(labelled[-1]) in ends
            if long_prompts := [text for text in prompts.get(audit.rows, ()) if len(text) >= _LONG_PROMPT]:
                text = tokenizer.decode(labelled.tolist())
                audit.prompted_rows += 1
                audit.leaking_rows += any(prompt in text for prompt in long_prompts)
            audit.rows += 1
    if not audit.supervised:
        what = f"0 trainable tokens in the first {audit.rows} sequences as batched"
        raise DatasetError(what, hint="the task's collate, or a plugin, masks every label")
    return audit


def _end_tokens(tokenizer: Any) -> frozenset[int]:
    """Collect the tokens that may end a text or a turn: all special tokens, including the end-of-sequence token."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token for token, content in added.items() if getattr(content, "special", False)}
    return frozenset(special | {tokenizer.eos_token_id} - {None})
