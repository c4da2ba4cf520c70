"""What the collated batches really train: the last look at labels, after every plugin, cut and padding."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from smolora_core.batches.padding import IGNORED
from smolora_core.errors import DatasetError

_LITTLE = 0.01
_LONG_PROMPT = 32


@attrs.define
class Audit:
    """What was seen in some batches.

    Attributes:
        rows: sequences looked at.
        tokens: in them, without padding.
        supervised: tokens that the loss sees.
        unsupervised_rows: sequences without any.
        ended_rows: sequences whose last supervised token ends a text or a turn.
        prompted_rows: sequences known to have a prompt.
        leaking_rows: of these, the ones whose supervised tokens hold the prompt's text.
    """

    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    unsupervised_rows: int = 0
    ended_rows: int = 0
    prompted_rows: int = 0
    leaking_rows: int = 0

    def warnings(self) -> Iterator[str]:
        """Say what a person would want to know before training on these labels."""
        if self.unsupervised_rows:
            yield f"{self.unsupervised_rows} of {self.rows} sequences have no supervised token and teach nothing"
        if self.supervised < _LITTLE * self.tokens:
            yield f"only {self.supervised} of {self.tokens} tokens are supervised"
        if not self.ended_rows:
            yield "no sequence ends with a supervised end token: the model will not learn to stop"
        if self.leaking_rows * 2 > self.prompted_rows:
            yield f"{self.leaking_rows} of {self.prompted_rows} sequences have their prompt among the supervised tokens"


def audit_labels(
    sequences: Iterable[Mapping[str, Any]],
    collate: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Tensor]],
    tokenizer: Any,
    batch_size: int,
    prompts: Mapping[int, Sequence[str]],
) -> Audit:
    """Collate sequences as training will, and look at the labels.

    Args:
        sequences: encoded rows.
        collate: makes a batch with `labels` `[B, T]` of them.
        tokenizer: of the base model.
        batch_size: rows in a batch.
        prompts: by the number of a sequence, from 0, the texts before or between what is trained.

    Raises:
        DatasetError: nothing is supervised.
    """
    audit = Audit()
    ends = _end_tokens(tokenizer)
    for batch in _batches(sequences, batch_size):
        features = collate(batch)
        labels = features["labels"]
        supervised = labels != IGNORED
        audit.tokens += sum(len(row["input_ids"]) for row in batch)
        audit.supervised += int(supervised.sum())
        for row, mask in zip(labels, supervised, strict=True):
            trained = row[mask]
            audit.unsupervised_rows += not len(trained)
            audit.ended_rows += bool(len(trained)) and int(trained[-1]) in ends
            if given := [text for text in prompts.get(audit.rows, ()) if len(text) >= _LONG_PROMPT]:
                text = tokenizer.decode(trained.tolist())
                audit.prompted_rows += 1
                audit.leaking_rows += any(prompt in text for prompt in given)
            audit.rows += 1
    if not audit.supervised:
        what = f"0 trainable tokens in the first {audit.rows} sequences as they are batched"
        raise DatasetError(what, hint="the task's collate, or a plugin, masks every label")
    return audit


def _batches(sequences: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    batch: list[Mapping[str, Any]] = []
    for sequence in sequences:
        batch.append(sequence)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _end_tokens(tokenizer: Any) -> frozenset[int]:
    """The tokens that a text or a turn can end with: every special one, the end-of-sequence token among them."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token for token, content in added.items() if getattr(content, "special", False)}
    return frozenset(special | {tokenizer.eos_token_id} - {None})
