"""Load the micro-batches of each optimizer step."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import attrs
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainingArguments

from smolora_core.batches.padding import RowKey, collate_keyed
from smolora_core.batches.token_budget import token_counts
from smolora_core.training.order import RowOrder, Rows
from smolora_core.training.ranks import Ranks
from smolora_core.training.signals import ignore_signals

Collate = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]


@attrs.frozen
class StepRows:
    """The share of one rank in an optimizer step.

    Attributes:
        units: the units of `RowOrder`, or the streamed rows, that all ranks train on in this step.
        micro_batches: loads this rank's micro-batches, one after another.
    """

    units: Sequence[int]
    micro_batches: Iterator[Mapping[str, Any]]


@attrs.frozen
class StepLoader:
    """Loads one rank's micro-batches.

    Attributes:
        dataset: the rows to train on, or a stream of them.
        collate_fn: makes a micro-batch of rows; its `set_epoch`, if it has one, gets the epoch first.
        order: the rows of each step; for a stream, only `per_step` and `seed` are used.
        arguments: the size of micro-batches, and the settings of DataLoader.
        ranks: this process and the others.
    """

    dataset: Any
    collate_fn: Collate
    order: RowOrder
    arguments: TrainingArguments
    ranks: Ranks

    @property
    def streams(self) -> bool:
        """Whether rows are read while training."""
        return isinstance(self.dataset, IterableDataset)

    def steps(self, epoch: int, done: int) -> Iterator[StepRows]:
        """Load an epoch without its first `done` units."""
        yield from self._streamed(epoch, done) if self.streams else self._loaded(epoch, done)

    def _loaded(self, epoch: int, done: int) -> Iterator[StepRows]:
        steps = list(self.order.steps(epoch, done))
        keys = ([(epoch, row) for row in rows] for units in steps for rows in self._deal(units))
        collate = functools.partial(collate_keyed, self.collate_fn, self.order.seed)
        batches = iter(make_loader(_Keyed(self.dataset), keys, collate, self.arguments))
        for units in steps:
            yield StepRows(units, islice(batches, len(self._deal(units))))

    def _streamed(self, epoch: int, done: int) -> Iterator[StepRows]:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        numbered = islice(enumerate(self.dataset), done, None)
        while step := list(islice(numbered, self.order.per_step)):
            if self.order.drops_last and len(step) < self.order.per_step:
                return
            rows = dict(step)
            micro_batches = (
                collate_keyed(self.collate_fn, self.order.seed, [((epoch, number), rows[number]) for number in numbers])
                for numbers in self._deal(list(rows))
            )
            yield StepRows(list(rows), micro_batches)

    def _deal(self, units: Sequence[int]) -> list[Rows]:
        return self.order.deal(units, self.ranks.rank, self.ranks.size, self.arguments.per_device_train_batch_size)


@attrs.frozen
class _Keyed:
    """Rows with the keys they were asked for by."""

    dataset: Any

    def __getitems__(self, keys: Sequence[RowKey]) -> list[tuple[RowKey, Any]]:
        numbers = [number for _, number in keys]
        many = getattr(self.dataset, "__getitems__", None)
        return list(zip(keys, many(numbers) if many else map(self.dataset.__getitem__, numbers), strict=True))


def order_seed(arguments: TrainingArguments) -> int:
    """Return the seed of the order of rows."""
    return arguments.seed if arguments.data_seed is None else arguments.data_seed


def make_order(dataset: Any, arguments: TrainingArguments, per_step: int, filled: Sequence[Rows] | None = None) -> RowOrder:
    """Make the order of a dataset's rows.

    Args:
        dataset: the rows, or a stream of them.
        arguments: the seeds and the strategy.
        per_step: the number of rows, or of filled micro-batches, in an optimizer step.
        filled: micro-batches that are filled up to a budget of tokens.
    """
    strategy = arguments.train_sampling_strategy
    count = 0 if isinstance(dataset, IterableDataset) else len(dataset if filled is None else filled)
    return RowOrder(
        count=count,
        per_step=per_step,
        seed=order_seed(arguments),
        shuffled=strategy != "sequential",
        drops_last=arguments.dataloader_drop_last,
        lengths=token_counts(dataset) if count and filled is None and strategy == "group_by_length" else None,
        filled=filled,
    )


def make_loader(dataset: Any, batches: Any, collate: Callable[..., Any], arguments: TrainingArguments) -> Any:
    """Make a DataLoader that follows the arguments, and whose workers leave signals to this process.

    Args:
        dataset: the rows.
        batches: the keys of each batch's rows.
        collate: makes a batch of rows.
        arguments: the settings.
    """
    workers = arguments.dataloader_num_workers
    options: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": arguments.dataloader_pin_memory,
        "worker_init_fn": ignore_signals,
        # Workers take their seed from here, and not from the generator that training uses.
        "generator": torch.Generator().manual_seed(arguments.seed),
    }
    if workers:
        options |= {
            "prefetch_factor": arguments.dataloader_prefetch_factor,
            "multiprocessing_context": arguments.dataloader_multiprocessing_context,
        }
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, **options)
