"""Micro-batches: rows of different lengths as rectangular tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["IGNORED", "pad"]

IGNORED = -100
"""The label of a token that nothing is learned from."""

_FILLERS = {"labels": IGNORED, "attention_mask": 0}


def pad(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Pad token lists on the right to the longest row, and stack what else the rows hold.

    Args:
        rows: each with `input_ids`, other lists, or scalars.
        pad_token_id: what fills lists up; labels are filled with -100.

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
