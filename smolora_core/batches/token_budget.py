"""Micro-batches of as many rows as a budget of tokens has room for, so that each takes about as much memory as the others."""

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

# Budgets that a window of shuffled rows is worth: one micro-batch of a window is half empty, and the others nearly full.
_WINDOW = 64


def token_counts(dataset: Any) -> list[int]:
    """Count the tokens of each row of a `datasets.Dataset`."""
    tables = dataset.select_columns("input_ids").with_format("arrow").iter(10_000)
    return [count for table in tables for count in list_value_length(table["input_ids"]).to_pylist()]


def fill_micro_batches(lengths: Sequence[int], budget: int, seed: int, *, padded: bool, ranks: int = 1) -> list[Rows]:
    """Put rows together, the same whenever they are of the same lengths.

    Args:
        lengths: of the rows.
        budget: tokens of a micro-batch at most.
        seed: of the order that rows are taken in.
        padded: whether a row counts as much as the longest of its micro-batch; rows of similar length then come together.
        ranks: that share the micro-batches; some of them are halved, until each rank gets as many as the others.

    Returns:
        The rows' numbers, each in one micro-batch.

    Raises:
        ConfigError: a row alone is longer.
    """
    if (longest := max(lengths, default=0)) > budget:
        hint = f"set it to {longest} or more, or data.max_seq_length to {budget} or less"
        raise ConfigError(
            f"has room for {budget} tokens, and a row has {longest}", where="training.max_tokens_per_batch:", hint=hint
        )
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    fill = _of_similar_length if padded else _end_to_end
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


def _end_to_end(window: Rows, lengths: Sequence[int], budget: int) -> list[Rows]:
    """Put the longest row first, each where the least room is that is enough."""
    found: list[Rows] = []
    rooms: list[tuple[int, int]] = []
    for row in sorted(window, key=lengths.__getitem__, reverse=True):
        at = bisect_left(rooms, (lengths[row], 0))
        if at == len(rooms):
            room, number = budget, len(found)
            found.append([])
        else:
            room, number = rooms.pop(at)
        found[number].append(row)
        insort(rooms, (room - lengths[row], number))
    return found


def _of_similar_length(window: Rows, lengths: Sequence[int], budget: int) -> list[Rows]:
    found: list[Rows] = []
    for row in sorted(window, key=lengths.__getitem__, reverse=True):
        if not found or (len(found[-1]) + 1) * lengths[found[-1][0]] > budget:
            found.append([])
        found[-1].append(row)
    return found


class BudgetSampler(BatchRebalanceSampler):
    """Draws one rank's micro-batches, in another order each epoch.

    It is of the one class that Trainer takes for a sampler of whole micro-batches, and does not share out among the ranks.
    """

    def __init__(self, micro_batches: Sequence[Rows], seed: int, rank: int = 0, ranks: int = 1) -> None:
        """Make a sampler of what `fill_micro_batches` has made."""
        self._micro_batches, self._seed, self._rank, self._ranks = micro_batches, seed, rank, ranks
        self.epoch = 0

    @property
    def sampler(self) -> "BudgetSampler":
        """What accelerate tells the epoch where there are several ranks."""
        return self

    def __len__(self) -> int:
        """Count the micro-batches of the rank."""
        return math.ceil(len(self._micro_batches) / self._ranks)

    def __iter__(self) -> Iterator[Rows]:
        """Draw an epoch; rows that are fewer than the ranks are drawn again, so that none waits for ever."""
        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        order = torch.randperm(len(self._micro_batches), generator=generator).tolist()
        for number in islice(cycle(order), self._rank, len(self) * self._ranks, self._ranks):
            yield self._micro_batches[number]
