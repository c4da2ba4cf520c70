"""The processes of a run that torchrun has started: the first one speaks, writes and decides, the others follow."""

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
    """This process among those of its run.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> "Ranks":
        """Find the other processes, where torchrun has started some."""
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return cls()
        state: Any = PartialState(cpu=device.type == "cpu")
        return cls(state.process_index, state.num_processes)

    def device(self, chosen: torch.device) -> torch.device:
        """Give each process of a machine a card of its own."""
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", local) if chosen.type == "cuda" and self.size > 1 else chosen

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, value: Value) -> Value:
        """Give every process the first one's value."""
        values = [value]
        if self.size > 1:
            torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait until every process is here."""
        self.share(None)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the others wait until the first process is through, and find what it has made."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()
