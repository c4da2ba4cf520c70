"""Threads that each run the model on rows of their own.

When all threads share every operation, they wait for the slowest one after each: tens of thousands of times a step, and longer
where another program takes a core for a while. Rows are independent until the loss is summed, so a thread with rows of its own
waits once in the forward pass and once in the backward pass.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from smolora_core.batches.padding import flat_positions, take
from smolora_core.lora.dropout import RowSeeds, current_seeds, seeded_here
from smolora_core.model.head import Compute

# The largest group's tokens relative to the mean: two threads that share every operation lose about as much.
_MAX_IMBALANCE = 1.15

RunAll = Callable[[Sequence[Callable[[], Any]]], list[Any]]


class RowThreads:
    """A pool of threads that runs a model on groups of rows; it is a `RunModel`."""

    def __init__(self, threads: int, min_elements: int) -> None:
        self._pool, self._min_elements = ThreadPoolExecutor(threads, "rows"), min_elements

    def __call__(self, compute: Compute, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        ids, bounds, threads = inputs["input_ids"], inputs.get("cu_seq_lens_q"), torch.get_num_threads()
        lengths = [ids.shape[1]] * len(ids) if bounds is None else bounds.diff().tolist()
        width = model.get_input_embeddings().weight.shape[-1]  # type: ignore[operator]
        groups = balance_rows(lengths, threads, self._min_elements / width)
        if len(groups) == 1 or _has_thread_local_state() or has_foreign_hooks(model):
            return compute(model, inputs)
        # Dropout must not depend on which thread runs first.
        seeds = current_seeds() or RowSeeds(torch.randint(2**62, (len(lengths),)).tolist(), None if bounds is None else lengths)
        tasks = [
            partial(_run_group, compute, model, take(inputs, rows), torch.is_grad_enabled(), seeds.select(rows))
            for rows in groups
        ]
        run_all = partial(self.run_all, threads // len(groups))
        positions, dim = [flat_positions(inputs, rows) for rows in groups], 0 if bounds is None else 1
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return cast("Tensor", _RowGroups.apply(run_all, tasks, positions, dim, *trained))  # type: ignore[no-untyped-call]

    def run_all(self, cores: int, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run each task in a thread that computes on `cores` cores, and wait for all of them even if one fails."""
        futures = [self._pool.submit(copy_context().run, _run_on, cores, task) for task in tasks]
        wait(futures)
        return [future.result() for future in futures]


def _run_on(cores: int, task: Callable[[], Any]) -> Any:
    torch.set_num_threads(cores)  # affects only the calling thread
    return task()


def _run_group(compute: Compute, model: nn.Module, inputs: Mapping[str, Any], grad: bool, seeds: RowSeeds) -> Tensor:
    with torch.set_grad_enabled(grad), seeded_here(seeds):
        return compute(model, inputs)


class _RowGroups(torch.autograd.Function):
    """Runs tasks in threads and joins their outputs; the backward pass runs the tasks' graphs in threads again."""

    @staticmethod
    def forward(
        ctx: Any,
        run_all: RunAll,
        tasks: Sequence[Callable[[], Tensor]],
        positions: Sequence[Tensor],
        dim: int,
        *trained: Tensor,
    ) -> Tensor:
        outputs = run_all(tasks)
        shape = list(outputs[0].shape)
        shape[dim] = sum(map(len, positions))
        joined: Tensor = outputs[0].new_empty(shape)
        for output, position in zip(outputs, positions, strict=True):
            joined.index_copy_(dim, position, output.detach())
        ctx.run_all, ctx.outputs, ctx.positions, ctx.dim, ctx.trained = run_all, outputs, positions, dim, trained
        return joined

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, ctx.outputs = ctx.outputs, None
        tasks = [
            partial(
                torch.autograd.grad, output, ctx.trained, grad_outputs[0].index_select(ctx.dim, position), allow_unused=True
            )
            for output, position in zip(outputs, ctx.positions, strict=True)
        ]
        # Summed in the order of the groups, whichever finished first.
        return None, None, None, None, *map(_sum, zip(*ctx.run_all(tasks), strict=True))


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    used = [gradient for gradient in gradients if gradient is not None]
    return torch.stack(used).sum(0) if used else None


def balance_rows(lengths: Sequence[int], threads: int, min_tokens: float) -> list[list[int]]:
    """Group rows so that every group has about the same number of tokens, and at least `min_tokens`.

    The number of groups divides `threads`, so that all get the same number of cores. It is 1 where groups would be too small
    or too uneven.
    """
    total = sum(lengths)
    for count in range(min(threads, len(lengths)), 1, -1):
        if threads % count or total < count * min_tokens:
            continue
        groups: list[list[int]] = [[] for _ in range(count)]
        loads = [0] * count
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            lightest = loads.index(min(loads))
            groups[lightest].append(row)
            loads[lightest] += lengths[row]
        if max(loads) * count <= total * _MAX_IMBALANCE:
            return [sorted(rows) for rows in groups]
    return [list(range(len(lengths)))]


def has_foreign_hooks(model: nn.Module) -> bool:
    """Whether layers have hooks other than ours, which would see partial micro-batches from several threads."""
    ours = __name__.partition(".")[0]
    registries = ((each._forward_hooks, each._forward_pre_hooks, each._backward_hooks) for each in model.modules())
    hooks = (hook for registry in chain.from_iterable(registries) for hook in registry.values())
    return any(getattr(hook, "__module__", "").partition(".")[0] != ours for hook in hooks)


def _has_thread_local_state() -> bool:
    """Whether a profiler, autocast or fake tensors are active, which other threads would not inherit."""
    profiled = sys.getprofile() is not None or torch._C._autograd._profiler_enabled()
    return profiled or torch.is_autocast_enabled("cpu") or _get_current_dispatch_mode() is not None
