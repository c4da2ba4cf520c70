"""Micro-batches: collate rows of different lengths, padded or concatenated, and take such batches apart again."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from smolora_core.components import TaskImplementation, TaskSetup
from smolora_core.config import DataConfig

IGNORED = -100
"""The label of an unsupervised token."""

ROW_SEEDS = "row_seeds"
"""The column of a micro-batch with a seed for each row, which the loss does not see."""

RowKey = tuple[int, int]
"""The epoch and the number of a row."""

_MASK = 2**64 - 1

_FILLERS = {"labels": IGNORED, "attention_mask": 0}


def pad(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Pad lists on the right to the longest row, and stack scalars.

    Args:
        rows: the rows, each with `input_ids`, and perhaps other lists or scalars.
        pad_token_id: the token id that pads lists; labels are padded with -100.

    Returns:
        `input_ids`, `attention_mask` and every list column as `[B, T]`, where `T` is the longest list of the column; scalar
        columns as `[B]`.
    """
    batch: dict[str, Tensor] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if isinstance(values[0], list):
            length = max(map(len, values))
            filler = _FILLERS.get(name, pad_token_id)
            batch[name] = torch.tensor([[*value, *[filler] * (length - len(value))] for value in values])
        else:
            batch[name] = torch.tensor(values)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
    return batch


def concatenate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor | int]:
    """Concatenate token lists into a single padding-free row.

    Args:
        rows: the rows, each with `input_ids`, and perhaps `labels` and other lists of that length, or scalars.

    Returns:
        Every list column as `[1, N]`, with the label of each sequence's first token ignored; scalar columns as `[B]`;
        `position_ids` `[1, N]` that restart at 0 in each sequence; and the sequence boundaries as transformers expects them:
        `cu_seq_lens_q` and `cu_seq_lens_k` `[B + 1]`, `max_length_q` and `max_length_k`.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    batch: dict[str, Tensor | int] = {}
    for name in rows[0]:
        if isinstance(rows[0][name], list):
            lists = [[IGNORED, *row[name][1:]] if name == "labels" else row[name] for row in rows]
            batch[name] = torch.tensor([each for values in lists for each in values])[None]
        else:
            batch[name] = torch.tensor([row[name] for row in rows])
    batch["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None]
    bounds = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    return {
        **batch,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


@attrs.define
class Collator:
    """Collates rows with the task's `collate`, for training or for evaluation; a random one draws again in each epoch.

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


def mixed_seed(*numbers: int) -> int:
    """Mix numbers into a seed of 63 bits, a different one for other numbers or another order (SplitMix, Steele et al. 2014)."""
    seed = 0
    for number in numbers:
        z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
        seed = (z ^ z >> 31) >> 1
    return seed


def collate_keyed(
    collate: Callable[[Sequence[Any]], Mapping[str, Any]], seed: int, rows: Sequence[tuple[RowKey, Any]]
) -> dict[str, Any]:
    """Make a micro-batch of rows and their keys, with a seed for each row.

    Args:
        collate: makes a micro-batch of rows; its `set_epoch`, if it has one, gets the epoch first.
        seed: the run's seed.
        rows: the rows of one epoch, each with its key.
    """
    # Here and not once an epoch, because this may be a worker that was started before.
    getattr(collate, "set_epoch", lambda _: None)(rows[0][0][0])
    seeds = torch.tensor([mixed_seed(seed, *key) for key, _ in rows])
    return {**collate([row for _, row in rows]), ROW_SEEDS: seeds}


def row_indices(batch: Mapping[str, Tensor], positions: Tensor) -> Tensor:
    """Map positions, as indices `[n, 2]` into `[B, T]`, to the indices of the collated rows that they belong to."""
    if "cu_seq_lens_q" not in batch:
        return positions[:, 0]
    return torch.searchsorted(batch["cu_seq_lens_q"][1:], positions[:, 1].to(torch.int32), right=True)


def count_rows(batch: Mapping[str, Any]) -> int:
    """Count the rows in a micro-batch, padded or concatenated."""
    return len(batch["cu_seq_lens_q"]) - 1 if "cu_seq_lens_q" in batch else len(batch["input_ids"])


def split(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a micro-batch of several rows into halves."""
    rows = count_rows(batch)
    return take(batch, range(rows // 2)), take(batch, range(rows // 2, rows))


def take(batch: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Select rows of a micro-batch, in the order given."""
    count, chosen, positions = count_rows(batch), torch.tensor(rows), flat_positions(batch, rows)
    bounds = batch.get("cu_seq_lens_q")
    if bounds is not None:
        lengths = bounds.diff()[chosen]
        ends = torch.cat([bounds[:1], lengths.cumsum(0, dtype=bounds.dtype)])
    taken: dict[str, Any] = {}
    for name, each in batch.items():
        if bounds is not None and name.startswith("cu_seq_lens"):
            taken[name] = ends
        elif bounds is not None and name.startswith("max_length"):
            taken[name] = int(lengths.max())
        elif isinstance(each, Tensor) and each.dim() > 0 and len(each) == count:
            taken[name] = each[chosen]
        elif bounds is not None and isinstance(each, Tensor) and each.dim() > 1:
            taken[name] = each[:, positions]
        else:
            taken[name] = each
    return taken


def flat_positions(batch: Mapping[str, Any], rows: Sequence[int]) -> Tensor:
    """Locate rows in a micro-batch: by row index if it is padded, by the positions of all their tokens if concatenated."""
    bounds = batch.get("cu_seq_lens_q")
    if bounds is None:
        return torch.tensor(rows)
    ends = bounds.tolist()
    return torch.cat([torch.arange(ends[row], ends[row + 1]) for row in rows])
