"""Find the micro-batch size by trying the longest rows first, so that training does not run out of memory later."""

import time
from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest
from typing import Any

import attrs
import torch
from pyarrow.compute import list_value_length  # type: ignore[attr-defined]
from pyarrow.types import is_nested
from torch import Tensor, nn

from smolora_core.model.device import free_memory, peak_memory, reset_peak_memory, resident_memory
from smolora_core.training.objective import Measured
from smolora_core.training.oom import is_out_of_memory, rng_states, set_rng_states

_USABLE = 0.8
_FASTER = 1.05
# Per trainable parameter: Adam's two moments, which the first step allocates.
_OPTIMIZER_BYTES = 8


@attrs.frozen
class Tried:
    """A micro-batch that fits.

    Attributes:
        rows: the number of its rows.
        need: peak bytes above what was in use before; None where the device does not report it.
        rate: tokens per second.
    """

    rows: int
    need: int | None
    rate: float


def sizes_of(effective: int, ranks: int, rows: int) -> list[int]:
    """List the micro-batch sizes that divide a rank's share of an effective batch, smallest first, of at most its `rows`."""
    share = -(-effective // ranks)
    most = max(1, rows // ranks)
    return [size for size in range(1, share + 1) if share % size == 0 and size <= most]


def choose_rows(sizes: Sequence[int], try_out: Callable[[int], Tried | None], free: int | None) -> tuple[int, str]:
    """Try larger and larger micro-batches while they fit and are faster.

    Args:
        sizes: candidate sizes, smallest first.
        try_out: runs micro-steps of the given size; returns None when memory runs out.
        free: free bytes, part of which is kept as a margin; None if unknown.

    Returns:
        The size, 0 where not even the smallest fits, and why it is no larger.
    """
    tried: list[Tried] = []
    for size in sizes:
        if tried and free is not None and (need := _extrapolate(tried, size)) is not None and need > _USABLE * free:
            part = f"{_USABLE:.0%} of {free / 1e9:.1f} GB free"
            return tried[-1].rows, f"{size} rows would need {need / 1e9:.1f} GB, more than {part}"
        found = try_out(size)
        if found is None:
            count = "one row" if size == 1 else f"{size} rows"
            return (tried[-1].rows if tried else 0), f"{count} ran out of memory"
        if tried and found.rate < _FASTER * tried[-1].rate:
            rates = f"{found.rate:,.0f} tokens/s against {tried[-1].rate:,.0f} with {tried[-1].rows}"
            return tried[-1].rows, f"{size} rows are no faster: {rates}"
        tried.append(found)
    return sizes[-1], "the largest size that the effective batch and the dataset allow"


def _extrapolate(tried: Sequence[Tried], size: int) -> int | None:
    """Extend the line through the last two measurements, or through the origin and the only one."""
    last = tried[-1]
    if last.need is None:
        return None
    before = tried[-2] if len(tried) > 1 else Tried(0, 0, 0.0)
    return last.need + (size - last.rows) * (last.need - (before.need or 0)) // (last.rows - before.rows)


def longest_rows(dataset: Any, count: int) -> list[Mapping[str, Any]]:
    """Return the rows with the most tokens and labels, longest first."""
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
    """Return the bytes free for micro-steps once the optimizer has its state; None if unknown.

    On a CPU, all ranks are taken to share the memory.
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
    """Return a function that tries a micro-batch of the first `size` rows and restores the model and the RNG."""
    baseline = _in_use(device)

    def try_out(size: int) -> Tried | None:
        batch = {name: each.to(device) if isinstance(each, Tensor) else each for name, each in collate(rows[:size]).items()}
        rng, training = rng_states(device), model.training
        measured = _reset_peak(device)
        seconds = 0.0
        try:
            model.train()
            # The first step also selects kernels and allocates memory; only the second one is representative.
            for _ in range(2):
                start = time.perf_counter()
                measure(batch).sum.backward()
                if device.type != "cpu":
                    torch.get_device_module(device).synchronize()
                seconds = time.perf_counter() - start
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            model.zero_grad()
            model.train(training)
            set_rng_states(rng)
        need = max(0, _peak(device) - baseline) if measured else None
        return Tried(size, need, sum(len(row["input_ids"]) for row in rows[:size]) / seconds)

    return try_out


def _reset_peak(device: torch.device) -> bool:
    """Reset the peak of memory in use; return whether `_peak` can be trusted afterwards."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return reset_peak_memory() if device.type == "cpu" else True


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory() if device.type == "cpu" else _in_use(device)


def _in_use(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    # MPS keeps what it has taken from the system, so this is its peak too.
    return torch.mps.driver_allocated_memory() if device.type == "mps" else resident_memory()
