"""The processes of a run started by torchrun: the first one logs, writes and decides, the others follow."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
import torch
from accelerate.state import PartialState

Value = TypeVar("Value")


@attrs.frozen
class Ranks:
    """This process's rank, from 0, and the number of processes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> "Ranks":
        """Join the other processes if torchrun started any."""
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return cls()
        if not torch.distributed.is_initialized():
            atexit.register(_leave)
        state: Any = PartialState(cpu=device.type == "cpu")
        return cls(state.process_index, state.num_processes)

    @classmethod
    def current(cls) -> "Ranks":
        """Return this process's rank among those that have joined."""
        if not torch.distributed.is_initialized():
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def device(self, chosen: torch.device) -> torch.device:
        """Assign each process of a machine its own GPU."""
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", local) if chosen.type == "cuda" and self.size > 1 else chosen

    @property
    def leads(self) -> bool:
        """Whether this process logs, writes and decides."""
        return self.rank == 0

    def share(self, value: Value) -> Value:
        """Broadcast the first process's value."""
        values = [value]
        if self.size > 1:
            torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a tensor with the sum of all processes' tensors."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def adopt(self, tensor: torch.Tensor) -> None:
        """Replace a tensor with the first process's."""
        if self.size > 1:
            torch.distributed.broadcast(tensor, src=0)

    def gather(self, value: Value) -> list[Value]:
        """Collect every process's value, in the order of ranks."""
        values = [value] * self.size
        if self.size > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until every process gets here."""
        self.share(None)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run the block in the first process, then in the others, which find its results."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


def _leave() -> None:
    """Join the backend's threads; one that still drops a Python tensor while the interpreter exits aborts the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
