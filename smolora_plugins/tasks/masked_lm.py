"""Masked language modelling: some tokens are hidden, others in each epoch, and found again."""

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from torch import Tensor

from smolora_core import ConfigError, Drop, Encoded, TaskSetup
from smolora_core.batches import IGNORED, pad
from smolora_core.data import Example
from smolora_plugins.tasks.measures import observe_tokens, token_measures

_NOTHING = Drop("there is no token to hide")
_HIDDEN, _MASKED, _REPLACED = 0.15, 0.8, 0.1


class MaskedLM:
    """Encodes and collates for an encoder that fills gaps (Devlin et al. 2019, section 3.1).

    Of the tokens of a sequence 15 % are to be found: 80 % of these are masked, 10 % are another token, and 10 % are left.
    Which ones hangs on the run's seed, the epoch and the tokens of the sequence, and not on the batch it is in.
    """

    whole_words = False

    def __init__(self) -> None:
        self._mask = self._vocabulary = 0

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise texts in one call, and cut long ones into sequences with special tokens of their own.

        `units` numbers what is hidden together, a token or a word; special tokens, which never are, have -1.
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
        for at, of in enumerate(encoded["overflow_to_sample_mapping"]):
            words = encoded.word_ids(at) if self.whole_words else range(len(encoded["input_ids"][at]))
            special = encoded["special_tokens_mask"][at]
            units = [-1 if word is None or mark else word for word, mark in zip(words, special, strict=True)]
            if set(units) != {-1}:
                sequences[of].append({"input_ids": encoded["input_ids"][at], "units": units})
        return [
            Encoded(tuple(each), sum(_count(set(row["units"]) - {-1}) for row in each)) if each else _NOTHING
            for each in sequences
        ]

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Look up what masks a token, and how many tokens there are.

        Raises:
            ConfigError: nothing masks one.
        """
        if setup.tokenizer.mask_token_id is None:
            raise ConfigError("the tokenizer has no mask token", hint="is it a model for masked tokens?")
        self._mask = setup.tokenizer.mask_token_id
        self._vocabulary = min(len(setup.tokenizer), setup.model_config.vocab_size)
        return {}

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int, seed: int = 0) -> dict[str, Tensor]:
        """Hide tokens, and pad on the right; `labels` are `[B, T]`, -100 where a token is not to be found."""
        return pad([self._hidden(row, seed) for row in rows], pad_token_id)

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep what perplexity and accuracy are made of."""
        return observe_tokens(outputs, targets)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Perplexity and accuracy of the tokens to be found."""
        return token_measures(observed)

    def _hidden(self, row: Mapping[str, Any], seed: int) -> dict[str, Any]:
        ids, units = np.array(row["input_ids"]), np.array(row["units"])
        rng = np.random.default_rng([seed, crc32(ids.tobytes())])
        there = np.unique(units[units >= 0])
        chosen = np.isin(units, rng.choice(there, _count(there), replace=False))
        labels = np.where(chosen, ids, IGNORED)
        what, other = rng.random(len(ids)), rng.integers(self._vocabulary, size=len(ids))
        ids[chosen & (what < _MASKED)] = self._mask
        replaced = chosen & (what >= _MASKED) & (what < _MASKED + _REPLACED)
        ids[replaced] = other[replaced]
        rest = {name: each for name, each in row.items() if name != "units"}
        return {**rest, "input_ids": ids.tolist(), "labels": labels.tolist()}


class WholeWordMaskedLM(MaskedLM):
    """Hides all tokens of a word, or none."""

    whole_words = True


def _count(units: Any) -> int:
    return max(1, round(_HIDDEN * len(units)))
