"""Regression on texts: one or more numbers per text."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from smolora_core import DatasetError, Drop, Encoded, TaskSetup
from smolora_core.batches import pad
from smolora_core.data import Example
from smolora_plugins.tasks.labels import column, label_config, padding_config
from smolora_plugins.tasks.metrics import score_metrics
from smolora_plugins.tasks.texts import truncated_ids

_NO_TOKENS = Drop("no tokens in the text")


class Regression:
    """Encode and collate for a model that predicts numbers from a text."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise texts in one call; long ones are truncated."""
        encoded = zip(examples, truncated_ids(tokenizer, [example.text for example in examples], max_length), strict=True)
        return [
            Encoded(({"input_ids": ids, "scores": list(example.labels)},), len(example.labels), lost) if ids else _NO_TOKENS
            for example, (ids, lost) in encoded
        ]

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Name the outputs after their columns.

        Raises:
            DatasetError: rows differ in how many numbers they have.
        """
        splits = (setup.train, *([setup.held_out] if setup.held_out is not None else []))
        counts = sorted({len(scores) for rows in splits for scores in column(rows, "scores")})
        if len(counts) > 1:
            raise DatasetError(f"some rows have {counts[0]} numbers, others {counts[-1]}", where="data.label_field:")
        fields = setup.label_field if isinstance(setup.label_field, tuple) else ()
        self._names = list(fields) if len(fields) == counts[0] else [str(number) for number in range(counts[0])]
        return {**label_config(self._names, "regression"), **padding_config(setup)}

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad texts; `labels` are `[B, K]`."""
        batch = pad([{name: each for name, each in row.items() if name != "scores"} for row in rows], pad_token_id)
        return {**batch, "labels": torch.tensor([row["scores"] for row in rows], dtype=torch.float32)}

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep predictions and targets: `[n, 2 * K]`."""
        return torch.cat([outputs, targets], dim=-1)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Compute Pearson, Spearman and RMSE of each output."""
        return score_metrics(observed, self._names)
