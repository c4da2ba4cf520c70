"""Regression of texts: one number or several."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from smolora_core import DatasetError, Drop, Encoded, TaskSetup
from smolora_core.batches import pad
from smolora_core.data import Example
from smolora_plugins.tasks.labels import column, config_of, filling
from smolora_plugins.tasks.measures import score_measures
from smolora_plugins.tasks.texts import cut_ids

_NOTHING = Drop("there is no token to judge")


class Regression:
    """Encodes and collates for a model that gives a text numbers."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise texts in one call; what is longer than a sequence is cut off."""
        encoded = zip(examples, cut_ids(tokenizer, [example.text for example in examples], max_length), strict=True)
        return [
            Encoded(({"input_ids": ids, "scores": list(example.labels)},), len(example.labels), lost) if ids else _NOTHING
            for example, (ids, lost) in encoded
        ]

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Name the outputs by their columns.

        Raises:
            DatasetError: rows have more or fewer numbers than others.
        """
        sides = (setup.train, *([setup.held_out] if setup.held_out is not None else []))
        counts = sorted({len(scores) for side in sides for scores in column(side, "scores")})
        if len(counts) > 1:
            raise DatasetError(f"some rows have {counts[0]} numbers, and some {counts[-1]}", where="data.label_field:")
        given = setup.label_field if isinstance(setup.label_field, tuple) else ()
        self._names = list(given) if len(given) == counts[0] else [str(number) for number in range(counts[0])]
        return {**config_of(self._names, "regression"), **filling(setup)}

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad texts; `labels` are `[B, K]`."""
        batch = pad([{name: each for name, each in row.items() if name != "scores"} for row in rows], pad_token_id)
        return {**batch, "labels": torch.tensor([row["scores"] for row in rows], dtype=torch.float32)}

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep both: `[n, 2 * K]`."""
        return torch.cat([outputs, targets], dim=-1)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Pearson, Spearman and RMSE of each output."""
        return score_measures(observed, self._names)
