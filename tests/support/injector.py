"""A plugin that makes a run fail where a test wants it to."""

import math
import os
import signal
from collections.abc import Collection
from typing import Any

from transformers import TrainerCallback

from smolora_core import hookimpl

# In these the step is not counted yet.
_BEFORE_THE_END = ("on_step_begin", "on_substep_end", "on_pre_optimizer_step", "on_optimizer_step")


class Injected(Exception):
    """Raised by the plugin."""


class FailAt(TrainerCallback):
    """A callback, and the plugin that offers it."""

    def __init__(self, steps: Collection[int], hook: str, kind: str) -> None:
        self._left, self._kind, self._poison = set(steps), kind, None
        setattr(
            self, hook, lambda args, state, control, **more: self._at(state.global_step + (hook in _BEFORE_THE_END), **more)
        )

    @hookimpl
    def smolora_callbacks(self, run: Any) -> list[TrainerCallback]:
        return [self]

    def _at(self, step: int, model: Any = None, **more: Any) -> None:
        if self._poison is not None:
            self._poison.remove()
            self._poison = None
        if step not in self._left:
            return
        self._left.remove(step)
        if self._kind == "raise":
            raise Injected(f"at step {step}")
        if self._kind == "nan":
            embeddings = model.get_input_embeddings()
            self._poison = embeddings.register_forward_hook(
                lambda module, inputs, output: output * math.nan if module.training else output
            )
        else:
            os.kill(os.getpid(), getattr(signal, self._kind))


def fail_at(step: int | tuple[int, ...], hook: str, kind: str) -> FailAt:
    """Make a plugin that fails at optimizer steps, once at each.

    Args:
        step: that is being taken or has just been taken, from 1.
        hook: of `transformers.TrainerCallback`; `nan` is for `on_step_begin`.
        kind: `raise`, `nan` (in the training loss of that step), `SIGTERM`, `SIGINT` or `SIGHUP` (sent to this process).
    """
    return FailAt((step,) if isinstance(step, int) else step, hook, kind)
