"""Which rows a step was made of, found out when somebody must look at them."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from smolora_core.checkpoints.rng import restore


def rows_of_batches(loader: Any, epoch: int, rng: Mapping[str, Tensor], first: int, count: int) -> list[int] | None:
    """Draw an epoch's order again, and look up the numbers of the rows of some micro-batches.

    The random numbers' state is another one afterwards.

    Args:
        loader: of training rows, as accelerate has prepared it.
        epoch: that the order is of.
        rng: as that epoch began.
        first: of the micro-batches.
        count: of them.

    Returns:
        None for rows that are streamed, which have no numbers.
    """
    if isinstance(loader.dataset, torch.utils.data.IterableDataset):
        return None
    numbers: Any = torch.utils.data.DataLoader(
        range(len(loader.dataset)),  # type: ignore[arg-type]
        batch_sampler=loader.batch_sampler,
        collate_fn=list,
    )
    loader.set_epoch(epoch)
    restore(rng)
    return [number for batch in islice(numbers, first, first + count) for number in batch]
