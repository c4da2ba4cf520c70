"""Collate rows into micro-batches with the task's `collate`, seeded by epoch if it is random."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from smolora_core.components import TaskImplementation, TaskSetup
from smolora_core.config import DataConfig


@attrs.define
class Collator:
    """Collates rows for training, or for evaluation.

    Attributes:
        task: the task implementation.
        pad_token_id: the token id that pads rows.
        seed: the run's seed.
        epoch: the current epoch; None for an evaluation, where every pass draws the same.
        concatenate: makes padding-free micro-batches, instead of the task's `collate`.
    """

    task: TaskImplementation
    pad_token_id: int
    seed: int
    epoch: int | None = None
    concatenate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, before its batches are made."""
        self.epoch = epoch

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        if self.concatenate is not None:
            return self.concatenate(rows)
        if "seed" not in inspect.signature(self.task.collate).parameters:
            return self.task.collate(rows, self.pad_token_id)
        draw = self.seed * 2**20 + (0 if self.epoch is None else 1 + self.epoch)
        return self.task.collate(rows, self.pad_token_id, seed=draw)  # type: ignore[call-arg]

    def configure(self, train: Any, held_out: Any, tokenizer: Any, base_config: Any, data: DataConfig) -> dict[str, Any]:
        """Let the task inspect the encoded rows of both splits; return the values to set in the model's config."""
        configure = getattr(self.task, "configure", None)
        if configure is None:
            return {}
        setup = TaskSetup(
            train=train,
            held_out=held_out,
            tokenizer=tokenizer,
            pad_token_id=self.pad_token_id,
            model_config=base_config,
            label_field=data.label_field,
        )
        return dict(configure(setup))
