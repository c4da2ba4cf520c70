"""What makes micro-batches: a task's `collate`, and for one that draws, a number that changes with the epoch."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor
from transformers import TrainerCallback

from smolora_core.components import TaskImplementation

__all__ = ["Collator", "EpochCallback"]


@attrs.define
class Collator:
    """Collates rows for training, or for evaluation.

    Attributes:
        task: the implementation.
        pad_token_id: what fills rows up.
        seed: of the run.
        epoch: that rows are collated for; None for an evaluation, where every draw is the same.
    """

    task: TaskImplementation
    pad_token_id: int
    seed: int
    epoch: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a micro-batch."""
        if "seed" not in inspect.signature(self.task.collate).parameters:
            return self.task.collate(rows, self.pad_token_id)
        draw = self.seed * 2**20 + (0 if self.epoch is None else 1 + self.epoch)
        return self.task.collate(rows, self.pad_token_id, seed=draw)  # type: ignore[call-arg]


class EpochCallback(TrainerCallback):
    """Tells the collator of training rows which epoch begins."""

    def __init__(self, collator: Collator) -> None:
        """Keep the collator."""
        self._collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Pass the epoch on, before its batches are made."""
        self._collator.epoch = round(state.epoch or 0.0)
