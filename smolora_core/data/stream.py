"""Rows that are prepared while training, again in every epoch, and never kept."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from pyarrow.lib import Table, array, concat_tables

from smolora_core.data.ledger import Ledger
from smolora_core.data.pipeline import Parts, PreparedRows, Recipe, check_loss
from smolora_core.data.splits import Reader

_BLOCK = 10_000
_AT_A_TIME = 100
_ENOUGH_TO_JUDGE = 1000


class RowStream(torch.utils.data.IterableDataset[dict[str, Any]]):
    """Token sequences in an order that is shuffled within blocks of 10,000.

    Attributes:
        ledger: the account of the first pass, so far.
    """

    def __init__(self, start: Callable[[Ledger], Parts], recipe: Recipe) -> None:
        """Make a stream; nothing is read.

        Args:
            start: starts a pass, whose parts keep the account that it is given.
            recipe: says what becomes of rows; its seed is that of their order.
        """
        self._start, self._recipe, self._epoch = start, recipe, 0
        self._counted = False
        self.ledger = Ledger()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read from the start.

        Raises:
            DatasetError: as `prepare`, at the row.
        """
        rng = np.random.default_rng([self._recipe.seed, self._epoch])
        ledger = Ledger() if self._counted else self.ledger
        self._counted = True
        block: list[Table] = []
        for table in self._tables(ledger):
            block.append(table)
            if sum(map(len, block)) >= _BLOCK:
                yield from _shuffled(block, rng)
                block = []
        yield from _shuffled(block, rng)

    def in_order(self) -> Iterator[dict[str, Any]]:
        """Read from the start without shuffling, outside the account."""
        return (row for table in self._tables(Ledger()) for row in _rows(table))

    def _tables(self, ledger: Ledger) -> Iterator[Table]:
        for part in self._start(ledger):
            if ledger.read >= _ENOUGH_TO_JUDGE:
                check_loss(ledger, self._recipe)
            if part.table is not None:
                yield part.table
        check_loss(ledger, self._recipe)


def _shuffled(block: list[Table], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    if block:
        table = concat_tables(block)
        yield from _rows(table.take(array(rng.permutation(len(table)))))


def _rows(table: Table) -> Iterator[dict[str, Any]]:
    # As Python objects the sequences take many times the memory, so only a few of them are that at a time.
    for batch in table.to_batches(max_chunksize=_AT_A_TIME):
        yield from batch.to_pylist()


def stream(read: Reader, recipe: Recipe, *, processes: int = 1) -> PreparedRows:
    """Make a stream of the rows of one side; the first ones are prepared at once, for their shape and their errors.

    Args:
        read: reads rows.
        recipe: says what becomes of them.
        processes: how many share the work.

    Raises:
        DatasetError: as `prepare`, at the first rows.
    """

    def start(ledger: Ledger) -> Parts:
        return Parts(read, recipe, ledger, processes=processes)

    parts = start(Ledger())
    next(iter(parts))
    account = parts.account()
    dataset = RowStream(start, recipe)
    return PreparedRows.of(dataset, account, dataset.ledger, digests=())
