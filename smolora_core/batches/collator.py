"""What makes micro-batches: a task's `collate`, and for one that draws, a number that changes with the epoch."""

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
        task: the implementation.
        pad_token_id: what fills rows up.
        seed: of the run.
        epoch: that rows are collated for; None for an evaluation, where every draw is the same.
        concatenate: makes a micro-batch without padding, in place of the task's `collate`.
    """

    task: TaskImplementation
    pad_token_id: int
    seed: int
    epoch: int | None = None
    concatenate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose what the rows of an epoch are drawn by, before its batches are made."""
        self.epoch = epoch

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a micro-batch."""
        if self.concatenate is not None:
            return self.concatenate(rows)
        if "seed" not in inspect.signature(self.task.collate).parameters:
            return self.task.collate(rows, self.pad_token_id)
        draw = self.seed * 2**20 + (0 if self.epoch is None else 1 + self.epoch)
        return self.task.collate(rows, self.pad_token_id, seed=draw)  # type: ignore[call-arg]

    def configure(self, train: Any, held_out: Any, tokenizer: Any, base_config: Any, data: DataConfig) -> dict[str, Any]:
        """Let the task look at the encoded rows before any is collated.

        Args:
            train: encoded rows to train on.
            held_out: encoded rows to evaluate on, or None.
            tokenizer: the base model's tokenizer.
            base_config: the base model's transformers config.
            data: the config's section, which names the label columns.

        Returns:
            What the model's config must hold for these rows.
        """
        look = getattr(self.task, "configure", None)
        if look is None:
            return {}
        setup = TaskSetup(
            train=train,
            held_out=held_out,
            tokenizer=tokenizer,
            pad_token_id=self.pad_token_id,
            model_config=base_config,
            label_field=data.label_field,
        )
        return dict(look(setup))
