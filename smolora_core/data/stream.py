"""Rows that are prepared while training, again in every epoch, and never kept."""

import random
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import torch

from smolora_core.data.ledger import Ledger
from smolora_core.data.pipeline import Parts, Prepared, Recipe, check_loss
from smolora_core.data.splits import Reader

__all__ = ["RowStream", "stream"]

_BUFFER = 10_000
_ENOUGH_TO_JUDGE = 1000


class RowStream(torch.utils.data.IterableDataset[dict[str, Any]]):
    """Token sequences in an order that is shuffled within a window of 10,000.

    Attributes:
        ledger: the account of the first pass, so far.
    """

    def __init__(self, start: Callable[[Ledger], tuple[Parts, Recipe]], seed: int) -> None:
        """Make a stream; nothing is read.

        Args:
            start: makes the parts of one pass, which keep the account that it is given, and the recipe they are made by.
            seed: of the order.
        """
        self._start, self._seed, self._epoch = start, seed, 0
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
        rng = random.Random(f"{self._seed} {self._epoch}")  # noqa: S311
        buffer: list[dict[str, Any]] = []
        ledger = Ledger() if self._counted else self.ledger
        self._counted = True
        for sequence in self._flow(ledger):
            if len(buffer) < _BUFFER:
                buffer.append(sequence)
                continue
            at = rng.randrange(_BUFFER)
            yield buffer[at]
            buffer[at] = sequence
        rng.shuffle(buffer)
        yield from buffer

    def in_order(self) -> Iterator[dict[str, Any]]:
        """Read from the start without shuffling, outside the account."""
        return self._flow(Ledger())

    def _flow(self, ledger: Ledger) -> Iterator[dict[str, Any]]:
        parts, recipe = self._start(ledger)
        for part in parts:
            if ledger.read >= _ENOUGH_TO_JUDGE:
                check_loss(ledger, recipe)
            if part.table is not None:
                yield from part.table.to_pylist()
        check_loss(ledger, recipe)


def stream(read: Reader, make_recipe: Callable[[], Recipe], *, processes: int = 1) -> Prepared:
    """Make a stream of the rows of one side; the first ones are prepared at once, for their shape and their errors.

    Args:
        read: reads rows.
        make_recipe: says what becomes of them, with steps made anew for each pass.
        processes: how many share the work.

    Raises:
        DatasetError: as `prepare`, at the first rows.
    """

    def start(ledger: Ledger) -> tuple[Parts, Recipe]:
        recipe = make_recipe()
        return Parts(read, recipe, ledger, processes=processes), recipe

    parts, recipe = start(Ledger())
    next(iter(parts))
    account = parts.account()
    dataset = RowStream(start, recipe.seed)
    return Prepared.of(dataset, account, dataset.ledger, array("q"))
