"""Memory that runs out where a test wants it to, by the errors that devices raise."""

from collections.abc import Callable
from typing import Any

import torch

from smolora_core.batches.padding import count_rows

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 384.00 KB, max allowed: 9.07 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("CUDA ERROR: OUT OF MEMORY"),
    MemoryError(),
]


class Small:
    """Memory that has room for so few rows in some passes through a model, `when` says by their number in which."""

    def __init__(
        self,
        model: Any,
        room: int = 1,
        when: Callable[[int], bool] = lambda number: True,
        error: BaseException = ERRORS[0],
        backward: bool = False,
        training: bool | None = True,
    ) -> None:
        self.room, self.when, self.error, self.backward, self.training, self.passes = room, when, error, backward, training, 0
        base = model.get_base_model()
        base.register_forward_pre_hook(self.begin, with_kwargs=True)
        # Of the first layer, so that others have gradients already when it fails.
        next(each for each in base.modules() if isinstance(each, torch.nn.ModuleList))[0].register_forward_hook(self.layer)

    def begin(self, module: Any, arguments: Any, batch: Any) -> None:
        self.full = False
        if self.training is None or self.training == torch.is_grad_enabled():
            self.full = count_rows(batch) > self.room and self.when(self.passes)
            self.passes += 1

    def layer(self, module: Any, arguments: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if self.full and not self.backward:
            raise self.error
        if self.full:
            states.register_hook(self.fail)

    def fail(self, gradient: Any) -> None:
        raise self.error
