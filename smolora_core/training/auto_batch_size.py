"""How many rows a micro-batch has: tried out on the longest rows, so that training does not run out of memory later on."""

import time
from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest
from typing import Any

import attrs
import torch
from pyarrow.compute import list_value_length  # type: ignore[attr-defined]
from pyarrow.types import is_nested
from torch import Tensor, nn

from smolora_core.errors import ConfigError
from smolora_core.model.device import forget_peak, free_memory, peak_memory, resident_memory
from smolora_core.training.objective import Measured
from smolora_core.training.oom import draws, is_out_of_memory, redraw

_MARGIN = 0.8
_FASTER = 1.05
# Of each trained number: Adam's two means, which the first step makes.
_OPTIMIZER_BYTES = 8


@attrs.frozen
class Tried:
    """A micro-batch that fits.

    Attributes:
        rows: in it.
        need: bytes at most beyond what was in use before; None where nobody says.
        rate: tokens a second.
    """

    rows: int
    need: int | None
    rate: float


def sizes_of(effective: int, ranks: int, rows: int) -> list[int]:
    """List the sizes of micro-batches that an effective batch can be made of, smallest first.

    Args:
        effective: rows in a step on all ranks.
        ranks: that share them.
        rows: there are.

    Raises:
        ConfigError: the ranks cannot share them evenly.
    """
    if effective % ranks:
        what = f"{effective} rows cannot be shared evenly by {ranks} processes"
        raise ConfigError(what, where="training.effective_batch_size:", hint=f"take a multiple of {ranks}")
    share = effective // ranks
    most = max(1, rows // ranks)
    return [size for size in range(1, share + 1) if share % size == 0 and size <= most]


def choose_rows(sizes: Sequence[int], try_out: Callable[[int], Tried | None], free: int | None) -> tuple[int, str]:
    """Try larger and larger micro-batches while they fit and are faster.

    Args:
        sizes: smallest first.
        try_out: takes micro-steps of so many rows; None where memory ran out.
        free: bytes, of which a part is left as a margin; None where nobody says.

    Returns:
        The size and why it is no larger; 0 where not even the smallest fits.
    """
    tried: list[Tried] = []
    for size in sizes:
        if tried and free is not None and (need := _expected(tried, size)) is not None and need > _MARGIN * free:
            part = f"{_MARGIN:.0%} of {free / 1e9:.1f} GB free"
            return tried[-1].rows, f"{size} rows would need {need / 1e9:.1f} GB, more than {part}"
        found = try_out(size)
        if found is None:
            return (tried[-1].rows if tried else 0), f"{_rows(size)} ran out of memory"
        if tried and found.rate < _FASTER * tried[-1].rate:
            rates = f"{found.rate:,.0f} tokens a second, {tried[-1].rate:,.0f} with {tried[-1].rows}"
            return tried[-1].rows, f"{size} rows are no faster: {rates}"
        tried.append(found)
    return sizes[-1], "no more are asked for, or there"


def _expected(tried: Sequence[Tried], size: int) -> int | None:
    """Draw the line through the last two needs; through one, and nothing, where there is one."""
    last = tried[-1]
    if last.need is None:
        return None
    before = tried[-2] if len(tried) > 1 else Tried(0, 0, 0.0)
    return last.need + (size - last.rows) * (last.need - (before.need or 0)) // (last.rows - before.rows)


def _rows(count: int) -> str:
    return "one row" if count == 1 else f"{count} rows"


def longest_rows(dataset: Any, count: int) -> list[Mapping[str, Any]]:
    """Look up so many rows, those with most tokens and labels first."""
    lists = dataset.select_columns([name for name in ("input_ids", "labels") if name in dataset.column_names])
    lengths = [0] * len(dataset)
    start = 0
    for table in lists.with_format("arrow").iter(10_000):
        for column in filter(lambda each: is_nested(each.type), table.columns):
            for at, length in enumerate(list_value_length(column).to_pylist(), start):
                lengths[at] += length
        start += len(table)
    return [dataset[number] for number in nlargest(count, range(len(lengths)), key=lengths.__getitem__)]


def room_for_steps(model: nn.Module, device: torch.device, ranks: int) -> int | None:
    """Count the bytes that are free for micro-steps, once the optimizer has what it needs; None where nobody says.

    Args:
        model: with its adapter attached.
        device: that it is on.
        ranks: that share the memory of a processor.
    """
    free = free_memory(device)
    if free is None:
        return None
    if device.type == "cuda":
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    elif device.type == "cpu":
        free = (free - resident_memory()) // ranks
    return max(0, free - _OPTIMIZER_BYTES * sum(each.numel() for each in model.parameters() if each.requires_grad))


def try_micro_steps(
    model: nn.Module,
    measure: Callable[[Mapping[str, Any]], Measured],
    collate: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    device: torch.device,
) -> Callable[[int], Tried | None]:
    """Make what tries micro-batches of the first so many rows, and leaves the model and the random numbers as they were."""
    baseline = _in_use(device)

    def try_out(size: int) -> Tried | None:
        batch = {name: each.to(device) if isinstance(each, Tensor) else each for name, each in collate(rows[:size]).items()}
        before, training = draws(device), model.training
        measured = _begin_peak(device)
        seconds = 0.0
        try:
            model.train()
            # The first step finds its kernels and asks for memory, which takes time only once.
            for _ in range(2):
                start = time.perf_counter()
                measure(batch).sum.backward()
                _wait(device)
                seconds = time.perf_counter() - start
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            model.zero_grad()
            model.train(training)
            redraw(before)
        need = max(0, _peak(device) - baseline) if measured else None
        return Tried(size, need, sum(len(row["input_ids"]) for row in rows[:size]) / seconds)

    return try_out


def _begin_peak(device: torch.device) -> bool:
    """Forget the most memory that was in use until now, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        return forget_peak()
    return True


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "cpu":
        return peak_memory()
    return _in_use(device)


def _in_use(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    # What MPS has taken from the system it keeps, so that it is the peak too.
    return torch.mps.driver_allocated_memory() if device.type == "mps" else resident_memory()


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
