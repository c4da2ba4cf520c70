"""Name the trainable tensors that a run does not change."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

_MAX_NAMES = 3


class LearningGuard(TrainerCallback):
    """After a few steps, names the trainable tensors that had no gradient or have not changed.

    One step is not enough: LoRA's B starts at 0, so A has no gradient in the first step.
    """

    def __init__(self, warn: Callable[[str], object], steps: int = 3) -> None:
        """Check after `steps` optimizer steps, or at the end of a shorter run if it took more than one."""
        self._warn, self._steps = warn, steps
        self._before: dict[str, Tensor] = {}
        self._with_gradient: set[str] = set()
        self._taken = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Copy the tensors, unless an earlier part of a resumed run was already checked."""
        if state.global_step < self._steps:
            self._before = {name: each.detach().clone() for name, each in _trainable(model)}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Record which tensors have a gradient; in a skipped step none has, or in half precision one that is not finite."""
        if not self._before:
            return
        gradients = {name: each.grad for name, each in _trainable(model) if each.grad is not None}
        if gradients and bool(nn.utils.get_total_norm(gradients.values()).isfinite()):
            self._taken += 1
            self._with_gradient |= {name for name, each in gradients.items() if bool(each.any())}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        if self._before and self._taken > 1 and (self._taken >= self._steps or state.global_step >= state.max_steps):
            same = [name for name, each in _trainable(model) if torch.equal(each.detach(), self._before[name])]
            without = [name for name in self._before if name not in self._with_gradient]
            self._report(without, "had no gradient")
            self._report([name for name in same if name not in without], "have not changed")
            self._before = {}

    def _report(self, names: list[str], what: str) -> None:
        if names:
            more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
            listed = ", ".join(names[:_MAX_NAMES]) + more
            self._warn(f"{len(names)} of {len(self._before)} trainable tensors {what} in {self._taken} steps: {listed}")


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, each) for name, each in model.named_parameters() if each.requires_grad)
