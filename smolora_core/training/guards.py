"""Stop a run whose numbers have gone wrong, before they reach the adapter; name what does not learn."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from smolora_core.errors import TrainingError

__all__ = ["LearningGuard", "require_finite", "strange_start"]

_NAMED = 3


def require_finite(value: float, what: str, step: int) -> None:
    """Refuse NaN and infinity.

    Raises:
        TrainingError: before the optimizer step is taken, so that the adapter stays as it was.
    """
    if not math.isfinite(value):
        cure = "set model.dtype to float32" if step == 1 else "lower training.learning_rate, or set model.dtype to float32"
        raise TrainingError(f"{what} is {value} at step {step}", hint=f"{cure}; this step updated nothing")


def strange_start(loss: float, weight: float) -> str | None:
    """Say what is strange about the first step's loss."""
    if weight == 0:
        return "nothing in the first step is trained: no label is left, or every row weighs 0"
    if loss == 0:
        return "the loss is 0 at step 1: the rows have nothing to teach, or the loss does not look at them"
    return None


class LearningGuard(TrainerCallback):
    """After a few steps, names the trained tensors that had no gradient, or have not moved.

    The first step alone says little: an adapter's second factor begins at 0, so its first one has no gradient yet.
    """

    def __init__(self, warn: Callable[[str], object], steps: int = 3) -> None:
        """Choose after how many optimizer steps to look.

        Args:
            warn: told what does not learn.
            steps: of a shorter run, all but the first decide.
        """
        self._warn, self._steps = warn, steps
        self._before: dict[str, Tensor] = {}
        self._with_gradient: set[str] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Keep the tensors as they begin."""
        self._before = {name: each.detach().clone() for name, each in _trained(model)}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Note which tensors have a gradient."""
        for name, each in _trained(model) if self._before else ():
            if name not in self._with_gradient and each.grad is not None and bool(each.grad.any()):
                self._with_gradient.add(name)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Look once."""
        if self._before and state.global_step >= min(self._steps, state.max_steps) and state.global_step > 1:
            still = [name for name, each in _trained(model) if torch.equal(each.detach(), self._before[name])]
            without = [name for name in self._before if name not in self._with_gradient]
            for names, what in ((without, "no gradient"), ([name for name in still if name not in without], "not moved")):
                if names:
                    more_of_them = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
                    verb = "have had" if what == "no gradient" else "have"
                    self._warn(
                        f"{len(names)} of {len(self._before)} trained tensors {verb} {what} in {state.global_step} steps: "
                        f"{', '.join(names[:_NAMED])}{more_of_them}"
                    )
            self._before = {}


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, each) for name, each in model.named_parameters() if each.requires_grad)
