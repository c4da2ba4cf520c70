"""When to log, evaluate and save: at the steps that a config sets, or as often as suits the length of the run."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from transformers import DefaultFlowCallback
from transformers.trainer_callback import ExportableState

from smolora_core.training.ranks import Ranks

_LOGS, _EVALUATIONS = 20, 10
# The share of the time that evaluations may take, by the steps of this number that are timed first.
_SHARE, _TIMED_STEPS = 0.1, 3
_SAVE_SECONDS = 300.0


class Cadence(DefaultFlowCallback, ExportableState):
    """Decides as Trainer does, except for what is left to it.

    Then a run logs its first and last step and about 20 times between; evaluates about 10 times, or less often if that would
    take more than a tenth of the time; and saves when a kill would cost more than five minutes of work.
    """

    def __init__(self, auto: Iterable[str] = (), max_seconds: float = math.inf) -> None:
        """Leave some of `logging_steps`, `eval_steps` and `save_steps` to it, and end training after `max_seconds`."""
        self.evaluation_seconds, self.eval_steps = 0.0, 0
        self.ranks, self.is_out_of_time, self._saves = Ranks(), False, False
        self._auto, self._max_seconds, self._timed = frozenset(auto), max_seconds, list[float]()
        self._started = self._saved = self._step_began = time.monotonic()
        self._longest = 0.0

    def begin(self, state: Any) -> None:
        """Set the steps that are left to it, once the number of steps is known."""
        self._started = self._saved = time.monotonic()
        if "logging_steps" in self._auto:
            state.logging_steps = max(1, state.max_steps // _LOGS)
        if "eval_steps" in self._auto:
            state.eval_steps = self.eval_steps or math.ceil(state.max_steps / _EVALUATIONS)
        if "save_steps" in self._auto:
            state.save_steps = 0

    def flags(self) -> list[float]:
        """Return what the first process's clock asks for, which all processes do together: to save, and to end training."""
        if not self.ranks.leads:
            return [0.0, 0.0]
        now = time.monotonic()
        # Before the step after this one would make it too late.
        saves = "save_steps" in self._auto and now - self._saved + self._longest > _SAVE_SECONDS
        return [float(saves), float(now - self._started > self._max_seconds)]

    def agree(self, flags: Sequence[float]) -> None:
        """Adopt the flags of the first process."""
        self._saves, self.is_out_of_time = (flag > 0 for flag in flags)

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        """Decide after a step."""
        seconds = time.monotonic() - self._step_began
        self._longest = max(self._longest, seconds)
        if "eval_steps" in self._auto and not self.eval_steps:
            self._timed.append(seconds)
            if len(self._timed) >= min(_TIMED_STEPS, state.eval_steps):
                state.eval_steps = self.eval_steps = self.ranks.share(self._affordable(state.eval_steps))
        control = super().on_step_end(args, state, control, **more)
        if "logging_steps" in self._auto and (state.global_step == 1 or state.global_step >= state.max_steps):
            control.should_log = True
        control.should_save |= self._saves
        return control

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._saved = time.monotonic()

    def _affordable(self, steps: int) -> int:
        # The first step also selects kernels and allocates memory.
        timed = self._timed[1:] or self._timed
        return max(steps, math.ceil(self.evaluation_seconds / _SHARE / max(1e-9, sum(timed) / len(timed))))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        attributes = {"evaluation_seconds": self.evaluation_seconds, "eval_steps": self.eval_steps}
        return {"args": {}, "attributes": attributes}
