"""The rows of every optimizer step: a function of seed, epoch and step, for any number of processes and any micro-batch."""

import math
from collections.abc import Iterator, Sequence

import attrs
import torch

from smolora_core.batches.padding import mixed_seed

Rows = list[int]

# Rows of similar length are put together within windows of this many steps, so that epochs still differ.
_WINDOW = 50


@attrs.frozen(kw_only=True)
class RowOrder:
    """Decides which rows each optimizer step trains on, and deals them to processes and micro-batches.

    A step takes units: rows, or micro-batches that are already filled up to a budget of tokens.

    Attributes:
        count: the number of units in an epoch.
        per_step: the number of units in an optimizer step over all processes.
        seed: the seed of the order, together with the epoch.
        shuffled: whether each epoch has an order of its own; otherwise all have that of the data.
        drops_last: whether an epoch leaves out a last step with fewer units than the others.
        lengths: the tokens of each row, for steps of rows of similar length; None for steps of any rows.
        per_block: the number of rows of similar length that are put together; 0 for those of a step.
        filled: the rows of each unit where units are filled micro-batches; None where they are rows.
    """

    count: int
    per_step: int
    seed: int
    shuffled: bool = True
    drops_last: bool = False
    lengths: Sequence[int] | None = None
    per_block: int = 0
    filled: Sequence[Rows] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.steps_after(0)

    def steps_after(self, done: int) -> int:
        """Count the steps that are left of an epoch of which `done` units are trained."""
        left = (self.count - done) / self.per_step
        return math.floor(left) if self.drops_last else math.ceil(left)

    def ends_at(self, done: int) -> bool:
        """Whether an epoch of which `done` units are trained has no further step; a stream does not know."""
        return self.count > 0 and self.steps_after(done) < 1

    def steps(self, epoch: int, done: int = 0) -> Iterator[list[int]]:
        """Yield the units of an epoch's steps, without the first `done` units."""
        order = self._order(epoch)
        for start in range(done, self.count, self.per_step):
            units = order[start : start + self.per_step]
            if len(units) == self.per_step or not self.drops_last:
                yield units

    def rows(self, units: Sequence[int]) -> Rows:
        """Return the rows of a step's units."""
        return list(units) if self.filled is None else [row for unit in units for row in self.filled[unit]]

    def deal(self, units: Sequence[int], rank: int, ranks: int, size: int) -> list[Rows]:
        """Return the micro-batches of one rank, of `size` rows each unless they are filled; a rank may get none."""
        mine = units[rank::ranks]
        if self.filled is not None:
            return [self.filled[unit] for unit in mine]
        return [list(mine[start : start + size]) for start in range(0, len(mine), size)]

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffled:
            return list(range(self.count))
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        order: list[int] = torch.randperm(self.count, generator=generator).tolist()
        return order if self.lengths is None else self._by_length(order, self.lengths, generator)

    def _by_length(self, order: list[int], lengths: Sequence[int], generator: torch.Generator) -> list[int]:
        """Sort the rows of each window by length, and shuffle its blocks; one with fewer rows stays the last."""
        size, found = self.per_block or self.per_step, list[int]()
        for begin in range(0, len(order), _WINDOW * size):
            rows = sorted(order[begin : begin + _WINDOW * size], key=lengths.__getitem__, reverse=True)
            full = len(rows) // size
            for block in [*torch.randperm(full, generator=generator).tolist(), full]:
                found += rows[block * size : (block + 1) * size]
        return found
