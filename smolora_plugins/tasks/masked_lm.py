"""Masked language modelling: predict masked tokens; each epoch masks different ones."""

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from torch import Tensor

from smolora_core import ConfigError, Drop, Encoded, TaskSetup
from smolora_core.batches import IGNORED, pad
from smolora_core.data import Example
from smolora_plugins.tasks.metrics import observe_tokens, token_metrics

_NO_TOKENS = Drop("no tokens to mask")
_SELECTED, _MASKED, _REPLACED = 0.15, 0.8, 0.1


class MaskedLM:
    """Encode and collate for an encoder that predicts masked tokens (Devlin et al. 2019, section 3.1).

    15% of a sequence's tokens are selected: 80% of them are masked, 10% replaced by a random token, and 10% left unchanged.
    The selection depends on the run's seed, the epoch and the sequence's tokens, and not on the batch.
    """

    whole_words = False

    def __init__(self) -> None:
        self._mask = self._vocabulary = 0

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise texts in one call, and split long ones into sequences, each with its own special tokens.

        `units` numbers what is masked together, a token or a word; special tokens are -1 and never masked.
        """
        if not examples:
            return []
        encoded = tokenizer(
            [example.text for example in examples],
            truncation=True,
            max_length=max_length,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
        )
        sequences: list[list[dict[str, Any]]] = [[] for _ in examples]
        for number, example in enumerate(encoded["overflow_to_sample_mapping"]):
            ids, special = encoded["input_ids"][number], encoded["special_tokens_mask"][number]
            words = encoded.word_ids(number) if self.whole_words else range(len(ids))
            units = [-1 if word is None or is_special else word for word, is_special in zip(words, special, strict=True)]
            if set(units) != {-1}:
                sequences[example].append({"input_ids": ids, "units": units})
        return [
            Encoded(tuple(rows), sum(_select_count(set(row["units"]) - {-1}) for row in rows)) if rows else _NO_TOKENS
            for rows in sequences
        ]

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Look up the mask token and the vocabulary size.

        Raises:
            ConfigError: the tokenizer has no mask token.
        """
        if setup.tokenizer.mask_token_id is None:
            raise ConfigError("the tokenizer has no mask token", hint="is this a masked language model?")
        self._mask = setup.tokenizer.mask_token_id
        self._vocabulary = min(len(setup.tokenizer), setup.model_config.vocab_size)
        return {}

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int, seed: int = 0) -> dict[str, Tensor]:
        """Mask tokens, and pad on the right; `labels` are `[B, T]`, -100 except at selected tokens."""
        return pad([self._masked(row, seed) for row in rows], pad_token_id)

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep each token's loss and whether it was predicted: `[n, 2]`."""
        return observe_tokens(outputs, targets)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Compute perplexity and accuracy over selected tokens."""
        return token_metrics(observed)

    def _masked(self, row: Mapping[str, Any], seed: int) -> dict[str, Any]:
        ids, units = np.array(row["input_ids"]), np.array(row["units"])
        rng = np.random.default_rng([seed, crc32(ids.tobytes())])
        distinct = np.unique(units[units >= 0])
        selected = np.isin(units, rng.choice(distinct, _select_count(distinct), replace=False))
        labels = np.where(selected, ids, IGNORED)
        fate, random_ids = rng.random(len(ids)), rng.integers(self._vocabulary, size=len(ids))
        ids[selected & (fate < _MASKED)] = self._mask
        replaced = selected & (fate >= _MASKED) & (fate < _MASKED + _REPLACED)
        ids[replaced] = random_ids[replaced]
        columns = {name: each for name, each in row.items() if name != "units"}
        return {**columns, "input_ids": ids.tolist(), "labels": labels.tolist()}


class WholeWordMaskedLM(MaskedLM):
    """Mask all tokens of a word, or none."""

    whole_words = True


def _select_count(units: Any) -> int:
    return max(1, round(_SELECTED * len(units)))
