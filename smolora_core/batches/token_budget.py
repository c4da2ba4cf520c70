"""Fill micro-batches up to a budget of tokens, so that all of them take about the same memory."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pyarrow.compute import list_value_length  # type: ignore[attr-defined]

from smolora_core.errors import ConfigError

Rows = list[int]

# The micro-batches per window of shuffled rows: the last one of a window is half empty, the others are nearly full.
_WINDOW = 64


def token_counts(dataset: Any) -> list[int]:
    """Count the tokens of each row of a dataset."""
    if not hasattr(dataset, "select_columns"):
        return [len(row["input_ids"]) for row in dataset]
    tables = dataset.select_columns("input_ids").with_format("arrow").iter(10_000)
    return [count for table in tables for count in list_value_length(table["input_ids"]).to_pylist()]


def fill_micro_batches(lengths: Sequence[int], budget: int, seed: int, *, padded: bool) -> list[Rows]:
    """Group rows into micro-batches; the result depends only on the arguments.

    Args:
        lengths: the tokens of each row.
        budget: the tokens in a micro-batch at most.
        seed: the seed for the order of the rows.
        padded: whether every row counts as much as the longest of its micro-batch; rows of similar length are then grouped.

    Returns:
        The row indices of each micro-batch.

    Raises:
        ConfigError: a single row exceeds the budget.
    """
    if (longest := max(lengths, default=0)) > budget:
        hint = f"set it to {longest} or more, or data.max_seq_length to {budget} or less"
        what = f"is {budget}, but the longest row has {longest} tokens"
        raise ConfigError(what, where="training.max_tokens_per_batch:", hint=hint)
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    fill = _group_by_length if padded else _pack
    return [rows for window in _windows(order, lengths, _WINDOW * budget) for rows in fill(window, lengths, budget)]


def _windows(order: Rows, lengths: Sequence[int], tokens: int) -> Iterator[Rows]:
    window: Rows = []
    room = tokens
    for row in order:
        window.append(row)
        room -= lengths[row]
        if room <= 0:
            yield window
            window, room = [], tokens
    yield window


def _pack(window: Rows, lengths: Sequence[int], budget: int) -> list[Rows]:
    """Pack rows by best-fit decreasing."""
    found: list[Rows] = []
    rooms: list[tuple[int, int]] = []
    for row in sorted(window, key=lengths.__getitem__, reverse=True):
        at = bisect_left(rooms, (lengths[row], 0))
        if at == len(rooms):
            room, index = budget, len(found)
            found.append([])
        else:
            room, index = rooms.pop(at)
        found[index].append(row)
        insort(rooms, (room - lengths[row], index))
    return found


def _group_by_length(window: Rows, lengths: Sequence[int], budget: int) -> list[Rows]:
    found: list[Rows] = []
    for row in sorted(window, key=lengths.__getitem__, reverse=True):
        if not found or (len(found[-1]) + 1) * lengths[found[-1][0]] > budget:
            found.append([])
        found[-1].append(row)
    return found
