"""Stream rows: prepare them while training, again in every epoch, without storing them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from pyarrow.lib import Table, array, concat_tables

from smolora_core.data.ledger import Ledger
from smolora_core.data.pipeline import EncodedBatches, PreparedRows, Recipe, check_loss
from smolora_core.data.splits import Reader

_BLOCK = 10_000
_AT_A_TIME = 100
_MIN_ROWS_TO_CHECK = 1000


class RowStream(torch.utils.data.IterableDataset[dict[str, Any]]):
    """Token sequences, shuffled within blocks of 10,000 by seed and epoch; `ledger` accounts for the first pass."""

    def __init__(self, start: Callable[[Ledger], EncodedBatches], recipe: Recipe) -> None:
        """Make a stream from a function that starts a pass and fills the given ledger; nothing is read yet."""
        self._start, self._recipe, self._epoch = start, recipe, 0
        self._counted = False
        self.ledger = Ledger()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read from the start; errors as for `prepare`, once the row is reached."""
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
        """Read from the start without shuffling, and without counting."""
        return (row for table in self._tables(Ledger()) for row in _rows(table))

    def _tables(self, ledger: Ledger) -> Iterator[Table]:
        for part in self._start(ledger):
            if ledger.read >= _MIN_ROWS_TO_CHECK:
                check_loss(ledger, self._recipe)
            if part.table is not None:
                yield part.table
        check_loss(ledger, self._recipe)


def _shuffled(block: list[Table], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    if block:
        table = concat_tables(block)
        yield from _rows(table.take(array(rng.permutation(len(table)))))


def _rows(table: Table) -> Iterator[dict[str, Any]]:
    # Python objects take many times the memory of Arrow's, so convert only a few sequences at a time.
    for batch in table.to_batches(max_chunksize=_AT_A_TIME):
        yield from batch.to_pylist()


def stream(read: Reader, recipe: Recipe, *, processes: int = 1) -> PreparedRows:
    """Make a stream of a split; the first rows are prepared at once, to learn their shape and raise early."""

    def start(ledger: Ledger) -> EncodedBatches:
        return EncodedBatches(read, recipe, ledger, processes=processes)

    parts = start(Ledger())
    next(iter(parts))
    account = parts.account()
    dataset = RowStream(start, recipe)
    return PreparedRows.of(dataset, account, dataset.ledger, digests=())
