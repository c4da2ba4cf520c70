"""Give cached device memory back."""

import gc

import torch

from smolora_core import RunContext


class ClearDeviceCache:
    """Collects garbage and clears the allocator's cache every so many optimizer steps, when memory ran out, and at the end."""

    def __init__(self, *, interval: int) -> None:
        """Set the number of optimizer steps between two clearings."""
        self._interval = interval

    def step_finished(self, step: int, run: RunContext) -> None:
        """Clear when the interval is over."""
        if step % self._interval == 0:
            self.run_finished(run)

    def out_of_memory(self, error: BaseException, run: RunContext) -> bool:
        """Clear, because memory that is cached in small pieces is of no use to a large tensor."""
        self.run_finished(run)
        return True

    def run_finished(self, run: RunContext) -> None:
        """Clear the cache of the device that the run computes on; garbage first, because it may hold tensors."""
        gc.collect()
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
        elif run.device.type == "mps":
            # The compiled graphs of all shapes that have been computed; not every torch has this.
            getattr(torch.mps, "clear_graph_cache", lambda: None)()
            torch.mps.empty_cache()
