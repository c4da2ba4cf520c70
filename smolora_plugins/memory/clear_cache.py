"""Give cached device memory back."""

import gc
from typing import Any

import torch


class ClearDeviceCache:
    """Clears the allocator's cache of CUDA or MPS every so many optimizer steps, and after the run."""

    def __init__(self, *, interval: int) -> None:
        """Set the number of optimizer steps between two clearings."""
        self._interval = interval

    def step_finished(self, step: int, run: Any) -> None:
        """Clear when the interval is over."""
        if step % self._interval == 0:
            self.run_finished(run)

    def run_finished(self, run: Any) -> None:
        """Clear whatever device the process has used."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()
