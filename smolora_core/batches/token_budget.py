"""Fill micro-batches up to a budget of tokens, so that all of them take about the same memory."""

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from pyarrow.compute import list_value_length  # type: ignore[attr-defined]
from transformers.trainer_pt_utils import BatchRebalanceSampler

from smolora_core.errors import ConfigError

Rows = list[int]

# The micro-batches per window of shuffled rows: the last one of a window is half empty, the others are nearly full.
_WINDOW = 64


def token_counts(dataset: Any) -> list[int]:
    """Count the tokens of each row of a `datasets.Dataset`."""
    tables = dataset.select_columns("input_ids").with_format("arrow").iter(10_000)
    return [count for table in tables for count in list_value_length(table["input_ids"]).to_pylist()]


def fill_micro_batches(lengths: Sequence[int], budget: int, seed: int, *, padded: bool, ranks: int = 1) -> list[Rows]:
    """Group rows into micro-batches; the result depends only on the arguments.

    Args:
        lengths: the tokens of each row.
        budget: the tokens in a micro-batch at most.
        seed: the seed for the order of the rows.
        padded: whether every row counts as much as the longest of its micro-batch; rows of similar length are then grouped.
        ranks: the number of ranks; micro-batches are halved until all ranks get the same number.

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
    found = [rows for window in _windows(order, lengths, _WINDOW * budget) for rows in fill(window, lengths, budget)]
    while len(found) % ranks and len(most := max(found, key=len)) > 1:
        found.append(most[len(most) // 2 :])
        del most[len(most) // 2 :]
    return found


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


class BudgetSampler(BatchRebalanceSampler):
    """Draws one rank's micro-batches, in a new order each epoch.

    The base class is the only one that Trainer accepts as a sampler of whole micro-batches and does not shard across ranks.
    """

    def __init__(self, micro_batches: Sequence[Rows], seed: int, rank: int = 0, ranks: int = 1) -> None:
        """Make a sampler of the micro-batches from `fill_micro_batches`."""
        self._micro_batches, self._seed, self._rank, self._ranks = micro_batches, seed, rank, ranks
        self.epoch = 0

    @property
    def sampler(self) -> "BudgetSampler":
        """The object on which accelerate sets the epoch where there are several ranks."""
        return self

    def __len__(self) -> int:
        """Count the micro-batches of the rank."""
        return math.ceil(len(self._micro_batches) / self._ranks)

    def __iter__(self) -> Iterator[Rows]:
        """Draw an epoch; repeat micro-batches where there are too few, so that no rank waits for ever."""
        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        order = torch.randperm(len(self._micro_batches), generator=generator).tolist()
        for index in islice(cycle(order), self._rank, len(self) * self._ranks, self._ranks):
            yield self._micro_batches[index]
