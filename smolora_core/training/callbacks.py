"""Our callbacks: log lines become events, and memory strategies learn of finished steps."""

import math
import time
from collections.abc import Callable
from typing import Any

import transformers

from smolora_core.training.memory import Strategies


class LogEvents(transformers.TrainerCallback):
    """Emits what the loop logs as `log` and `eval` events."""

    def __init__(self, emit: Callable[..., None]) -> None:
        self._emit = emit
        self._mark = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Emit the step that training starts from."""
        self._restart(state)
        self._emit("step", step=state.global_step, steps=state.max_steps, loss=math.nan, tokens=self._mark[1])

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Leave the evaluation out of the training time."""
        self._restart(state)

    # Nor does saving count.
    on_save = on_evaluate

    def _restart(self, state: Any) -> None:
        self._mark = (time.perf_counter(), state.num_input_tokens_seen)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **more: Any) -> None:
        """Emit a log line; the summary at the end of training is not one."""
        logs = logs or {}
        if "eval_loss" in logs:
            metrics = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
            self._emit("eval", step=state.global_step, **metrics)
        elif "loss" in logs:
            (then, before), now, seen = self._mark, time.perf_counter(), state.num_input_tokens_seen
            self._mark = (now, seen)
            self._emit(
                "log",
                step=state.global_step,
                steps=state.max_steps,
                epoch=round(state.epoch or 0.0, 4),
                loss=logs["loss"],
                grad_norm=logs.get("grad_norm"),
                learning_rate=logs["learning_rate"],
                tokens_per_second=round((seen - before) / max(now - then, 1e-9), 1),
            )


class StepCallback(transformers.TrainerCallback):
    """Tells memory strategies of every finished optimizer step."""

    def __init__(self, strategies: Strategies) -> None:
        self._strategies = strategies

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._strategies.step_finished(state.global_step)
