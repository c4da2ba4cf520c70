"""Release cached device memory."""

import gc

import torch

from smolora_core import RunContext


class ClearDeviceCache:
    """Collect garbage and empty the allocator's cache every `interval` optimizer steps, on out-of-memory, and after the run."""

    def __init__(self, *, interval: int) -> None:
        self._interval = interval

    def step_finished(self, step: int, run: RunContext) -> None:
        if step % self._interval == 0:
            self.run_finished(run)

    def out_of_memory(self, error: BaseException, run: RunContext) -> bool:
        """Empty the cache: memory cached in small blocks cannot serve a large tensor."""
        self.run_finished(run)
        return True

    def run_finished(self, run: RunContext) -> None:
        """Empty the cache of the run's device; garbage goes first, because it may contain tensors."""
        gc.collect()
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
        elif run.device.type == "mps":
            # Compiled graphs of every shape seen; not every torch version has this.
            getattr(torch.mps, "clear_graph_cache", lambda: None)()
            torch.mps.empty_cache()
