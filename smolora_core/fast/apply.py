"""Speed up the training of a model without changing its results, and restore the model afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from torch import nn

from smolora_core.config import RunConfig
from smolora_core.fast.lora_linear import use_fast_lora
from smolora_core.fast.norms_and_gates import use_fused_gates, use_fused_norms
from smolora_core.fast.padding_free import Batching, choose_batching
from smolora_core.fast.row_parallel import RowParallel, choose_row_parallel


@attrs.frozen
class Speed:
    """The optimisations applied to a model.

    Attributes:
        batching: how micro-batches are made, and why.
        layers: the number of LoRA layers with a fused kernel.
        norms: the number of norms with a fused backward pass.
        gates: the number of gated MLPs with a fused backward pass.
        row_parallel: how the model is run on a micro-batch.
    """

    batching: Batching
    layers: int = 0
    norms: int = 0
    gates: int = 0
    row_parallel: RowParallel = attrs.field(factory=RowParallel)
    _undo: tuple[Callable[[], None], ...] = ()

    def describe(self) -> Iterator[str]:
        """Describe the optimisations, one line each."""
        yield f"micro-batches are {self.batching.name} ({self.batching.reason})"
        if self.layers or self.norms or self.gates:
            yield f"fused kernels: {self.layers} LoRA layers, {self.norms} norms, {self.gates} gated MLPs"
        if self.row_parallel.problem:
            yield f"row-parallel threads are off: {self.row_parallel.problem}"

    def undo(self) -> None:
        """Restore the model."""
        for undo in self._undo:
            undo()


@contextmanager
def applied(model: nn.Module, task: Any, loss_kind: str, config: RunConfig) -> Iterator[Speed]:
    """Apply the optimisations that a config allows for the duration of a block."""
    batching: str = config.training.batching
    if batching == "auto" and config.data.streaming:
        batching = "padded"
    elif batching == "auto" and config.training.extra.get("neftune_noise_alpha") is not None:
        # The noise is scaled by the length of padded rows.
        batching = "grouped"
    speed = make_fast(model, task, loss_kind, batching=batching, kernels=config.training.fast_kernels)
    try:
        yield speed
    finally:
        speed.undo()


def make_fast(model: nn.Module, task: Any, loss_kind: str, *, batching: str = "auto", kernels: bool = True) -> Speed:
    """Choose how micro-batches are made, and speed up a model with its adapter, on its device, before its first step.

    Without `kernels`, layers and threads stay as they are.
    """
    chosen = choose_batching(batching, model, task, loss_kind)
    if not kernels:
        return Speed(chosen, undo=(chosen.undo,))
    layers, undo_layers = use_fast_lora(model)
    norms, undo_norms = use_fused_norms(model)
    gates, undo_gates = use_fused_gates(model)
    row_parallel = choose_row_parallel(model)
    return Speed(chosen, layers, norms, gates, row_parallel, (undo_gates, undo_norms, undo_layers, chosen.undo))
