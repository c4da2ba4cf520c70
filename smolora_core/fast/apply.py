"""Make a model train faster without changing what it learns, and undo it afterwards."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs
from torch import nn

from smolora_core.fast.lora_linear import use_fast_lora
from smolora_core.fast.norms_and_gates import use_fused_gates, use_fused_norms
from smolora_core.fast.padding_free import Batching, choose_batching
from smolora_core.fast.row_parallel import Sharing, choose_sharing


@attrs.frozen
class Speed:
    """What was done to a model.

    Attributes:
        batching: how micro-batches are made, and why.
        layers: LoRA layers that are computed in fewer passes.
        norms: norms with a gradient of their own.
        gates: MLPs with one for their gate.
        sharing: how the model is run on a micro-batch.
    """

    batching: Batching
    layers: int = 0
    norms: int = 0
    gates: int = 0
    sharing: Sharing = attrs.field(factory=Sharing)
    _undo: tuple[Callable[[], None], ...] = ()

    def describe(self) -> Iterator[str]:
        """Say it to a person."""
        yield f"micro-batches are {self.batching.name} ({self.batching.reason})"
        if self.layers or self.norms or self.gates:
            yield f"fast kernels: {self.layers} LoRA layers, {self.norms} norms, {self.gates} gated MLPs"
        if self.sharing.problem:
            yield f"threads share operations and not rows ({self.sharing.problem})"

    def undo(self) -> None:
        """Leave the model as it was."""
        for undo in self._undo:
            undo()


def make_fast(model: nn.Module, task: Any, loss_kind: str, *, batching: str = "auto", kernels: bool = True) -> Speed:
    """Choose how micro-batches are made, and speed up the layers of a model with its adapter attached.

    Args:
        model: on its device, before its first step.
        task: the implementation.
        loss_kind: of the loss.
        batching: `auto`, `padding-free`, `grouped` or `padded`.
        kernels: whether layers may be computed otherwise than by PEFT and transformers.
    """
    chosen = choose_batching(batching, model, task, loss_kind)
    if not kernels:
        return Speed(chosen, undo=(chosen.undo,))
    layers, undo_layers = use_fast_lora(model)
    norms, undo_norms = use_fused_norms(model)
    gates, undo_gates = use_fused_gates(model)
    sharing = choose_sharing(model)
    return Speed(chosen, layers, norms, gates, sharing, (undo_gates, undo_norms, undo_layers, chosen.undo))
