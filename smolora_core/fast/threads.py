"""Threads of a processor that each run the model on rows of their own.

Where all threads work on one operation at a time, they wait for the slowest of them after each: tens of thousands of times in
a step, and longer where another program takes a core for a while. Rows have nothing to do with one another until the loss adds
them up, so a thread that has rows of its own waits once on the way forward and once on the way back.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from smolora_core.batches.padding import flat_positions, take
from smolora_core.fast.lora_linear import drawing
from smolora_core.model.head import Compute

# Times the mean of all threads that the one with the most tokens may have: two that share every operation lose about as much.
_UNEVEN = 1.15


class RowThreads:
    """Threads that wait for rows."""

    def __init__(self, threads: int, least: int) -> None:
        self._pool, self._least = ThreadPoolExecutor(threads, "rows"), least

    def __call__(self, compute: Compute, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        ids, bounds, threads = inputs["input_ids"], inputs.get("cu_seq_lens_q"), torch.get_num_threads()
        lengths = [ids.shape[1]] * len(ids) if bounds is None else bounds.diff().tolist()
        width = model.get_input_embeddings().weight.shape[-1]  # type: ignore[operator]
        groups = share_out(lengths, threads, self._least / width)
        if len(groups) == 1 or _bound() or is_watched(model):
            return compute(model, inputs)
        # Which thread is the first must not change what is dropped.
        seeds = torch.randint(2**62, (len(groups),)).tolist() if model.training else [None] * len(groups)
        work = [
            partial(_run, compute, model, take(inputs, rows), torch.is_grad_enabled(), seed)
            for rows, seed in zip(groups, seeds, strict=True)
        ]
        run = partial(self.run, threads // len(groups))
        places, dim = [flat_positions(inputs, rows) for rows in groups], 0 if bounds is None else 1
        trained = [each for each in model.parameters() if each.requires_grad]
        return cast("Tensor", _Shared.apply(run, work, places, dim, *trained))  # type: ignore[no-untyped-call]

    def run(self, processors: int, work: Sequence[Callable[[], Any]]) -> list[Any]:
        """Call functions, each in a thread that computes on so many processors, and wait for all."""
        done = [self._pool.submit(copy_context().run, _on, processors, each) for each in work]
        wait(done)
        return [each.result() for each in done]


def _on(processors: int, work: Callable[[], Any]) -> Any:
    torch.set_num_threads(processors)  # of this thread
    return work()


def _run(compute: Compute, model: nn.Module, inputs: Mapping[str, Any], learns: bool, seed: int | None) -> Tensor:
    apart = nullcontext() if seed is None else drawing(torch.Generator().manual_seed(seed))
    with torch.set_grad_enabled(learns), apart:
        return compute(model, inputs)


class _Shared(torch.autograd.Function):
    """What threads have computed, put together; their graphs are gone through by threads again."""

    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[[Sequence[Callable[[], Any]]], list[Any]],
        work: Sequence[Callable[[], Tensor]],
        places: Sequence[Tensor],
        dim: int,
        *trained: Tensor,
    ) -> Tensor:
        parts = run(work)
        shape = list(parts[0].shape)
        shape[dim] = sum(map(len, places))
        whole: Tensor = parts[0].new_empty(shape)
        for part, place in zip(parts, places, strict=True):
            whole.index_copy_(dim, place, part.detach())
        ctx.run, ctx.parts, ctx.places, ctx.dim, ctx.trained = run, parts, places, dim, trained
        return whole

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        parts, ctx.parts = ctx.parts, None
        work = [
            partial(torch.autograd.grad, part, ctx.trained, given[0].index_select(ctx.dim, place), allow_unused=True)
            for part, place in zip(parts, ctx.places, strict=True)
        ]
        # Summed in the order of the parts, whichever was ready first.
        return None, None, None, None, *map(_sum, zip(*ctx.run(work), strict=True))


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    some = [each for each in gradients if each is not None]
    return torch.stack(some).sum(0) if some else None


def share_out(lengths: Sequence[int], threads: int, least: float) -> list[list[int]]:
    """Give each thread rows of about as many tokens.

    Args:
        lengths: of the rows.
        threads: at most; a divisor of them is taken, so that all have as many processors.
        least: tokens for each.

    Returns:
        The rows of each; of a single one where there is too little for each, or one would keep all others waiting.
    """
    total = sum(lengths)
    for parts in range(min(threads, len(lengths)), 1, -1):
        if threads % parts or total < parts * least:
            continue
        rows: list[list[int]] = [[] for _ in range(parts)]
        loads = [0] * parts
        for row in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
            lightest = loads.index(min(loads))
            rows[lightest].append(row)
            loads[lightest] += lengths[row]
        if max(loads) * parts <= total * _UNEVEN:
            return [sorted(each) for each in rows]
    return [list(range(len(lengths)))]


def is_watched(model: nn.Module) -> bool:
    """Whether somebody else has hooks on layers, which would see parts of a micro-batch, from several threads."""
    ours = __name__.partition(".")[0]
    for each in model.modules():
        for hooks in (each._forward_hooks, each._forward_pre_hooks, each._backward_hooks):
            if any(getattr(hook, "__module__", "").partition(".")[0] != ours for hook in hooks.values()):
                return True
    return False


def _bound() -> bool:
    """Whether this thread has what others would not: a profiler, autocast, tensors without numbers."""
    profiled = sys.getprofile() is not None or torch._C._autograd._profiler_enabled()
    return profiled or torch.is_autocast_enabled("cpu") or _get_current_dispatch_mode() is not None
